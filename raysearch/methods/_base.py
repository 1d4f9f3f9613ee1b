"""What a method is: its settings, checked once, and what it makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from raysearch import ops
from raysearch.errors import RaysearchError
from raysearch.methods._study import Studies
from raysearch.policy import Policy, SubPolicies
from raysearch.protocol import Build, Search, Values
from raysearch.settings import checked
from raysearch.training import Predefined, Setup


@dataclass(frozen=True)
class Context:
    """What a search works with, beside the method's settings, the data and the seed. Picklable.

    Attributes:
        search: the `search` group of the configuration, how the search trains, as plain values.
        finetune: the group of how its short trainings train, of a method that has them; else None.
        studies: the engine's, for methods that have their trials proposed.
    """

    search: Mapping[str, Any]
    finetune: Mapping[str, Any] | None = None
    studies: Studies = field(default_factory=Studies)

    @property
    def epochs(self) -> int:
        """Epochs of the search."""
        return int(self.search["epochs"])

    @property
    def tuning(self) -> Mapping[str, Any]:
        """The `finetune` group.

        Raises:
            RaysearchError: there is none.
        """
        if self.finetune is None:
            raise RaysearchError("the method needs the group finetune")
        return self.finetune


@dataclass(frozen=True)
class Expected:
    """What a search will do, by arithmetic.

    Attributes:
        equivalents: epoch-equivalents of the whole search; where trials may be given up, at most.
        proposals: how often it will ask.
        parallel: how many proposals can be carried out at once.
        described: what it will ask for, in a few words.
    """

    equivalents: float
    proposals: int
    parallel: int
    described: str


@dataclass(frozen=True)
class Method:
    """A way to come by a policy; a subclass is a frozen dataclass of its settings. Picklable.

    Attributes:
        name: the method's name.
        title: its name for people.
        begins_shared: whether its search begins with a training that another run may have done
            already, see `fits`; its proposal's id is `shared`.
    """

    name: str
    title: ClassVar[str] = ""
    begins_shared: ClassVar[bool] = False

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """The method with the settings of the configuration's `method` group.

        Raises:
            RaysearchError: a key that does not belong, one that is missing, or a wrong value.
        """
        return checked(cls, "method", settings)

    @property
    def known(self) -> Policy | None:
        """The policy, where nothing is left to search; None where a search finds it."""
        return None

    @property
    def uniform(self) -> Policy | None:
        """The policy that knows nothing, to compare with: all pairs of operations alike.

        None where the method chooses no operations.
        """
        return SubPolicies.pairs(getattr(self, "operations", ops.DADA_OPERATIONS))

    def predefined(self, given: Predefined, size: tuple[int, int]) -> Predefined:
        """The predefined augmentation that goes with the method's policies.

        Args:
            given: the data's.
            size: (height, width) of the images in pixels.
        """
        return given

    def search(self, seed: int, context: Context) -> Search:
        """The search of a seed, at its beginning.

        Args:
            seed: everything random follows from it.
            context: how it trains, and what proposes its trials.

        Raises:
            RaysearchError: settings that do not go together.
        """
        raise NotImplementedError(f"{self.name} searches nothing")

    def build(self, setup: Setup, context: Context) -> Build:
        """What makes the work of the search of the setup's seed.

        One work at a time: the next may take over what the last one has used.

        Args:
            setup: data, network, device and seed.
            context: the search's.
        """
        raise NotImplementedError(f"{self.name} searches nothing")

    def forecast(self, setup: Setup, context: Context) -> Expected:
        """What the search will cost; nothing is trained for that."""
        raise NotImplementedError(f"{self.name} searches nothing")

    def fits(self, shared: Values, setup: Setup, context: Context) -> None:
        """That the search can begin with what another run's `shared` training has left.

        Raises:
            RaysearchError: it cannot; the message says why.
        """
        raise RaysearchError(f"method {self.name} takes no shared checkpoint")
