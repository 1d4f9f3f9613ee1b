"""What every method has, and the interface of those that search in a single pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from raysearch import ops
from raysearch.errors import RaysearchError
from raysearch.methods._once import Once
from raysearch.methods._settings import MethodSettings
from raysearch.methods._study import GiveUp, Studies
from raysearch.policy import Policy, SubPolicies
from raysearch.protocol import Answer, Build, Proposal, Search, Values, Work
from raysearch.training import Loop, Predefined, Setup, SGDSettings

SEARCH = "search"
"""The id of a single-pass search's only proposal."""


@dataclass(frozen=True)
class Groups:
    """The configuration groups that a method reads, as plain values.

    Attributes:
        method: the method's own settings.
        search: how the search trains.
        finetune: how its short trainings train, of a method that has them; else None.
    """

    method: Mapping[str, Any]
    search: Mapping[str, Any]
    finetune: Mapping[str, Any] | None = None

    @property
    def tuning(self) -> Mapping[str, Any]:
        """The `finetune` group.

        Raises:
            RaysearchError: there is none.
        """
        if self.finetune is None:
            raise RaysearchError(f"method {self.method.get('name')} needs the group finetune")
        return self.finetune


@dataclass(frozen=True)
class Expected:
    """What a search will do, by arithmetic.

    Attributes:
        equivalents: epoch-equivalents of the whole search; where trials may be given up, at most.
        proposals: how often it will ask.
        epochs_each: epochs of each proposal, of the longest kind.
        files: most files of answers that there are at a time.
        parallel: how many proposals can be carried out at once.
        described: what it will ask for, in a few words.
    """

    equivalents: float
    proposals: int
    epochs_each: int
    files: int
    parallel: int
    described: str


class Method:
    """A way to come by a policy.

    Attributes:
        settings_class: what the `method` group has to be.
        shares: whether its search begins with a training that another run may have done already,
            see `fits`; its proposal's id is `shared`.
    """

    settings_class: ClassVar[type[MethodSettings]] = MethodSettings
    shares: ClassVar[bool] = False

    @classmethod
    def known(cls, method: Mapping[str, Any]) -> Policy | None:
        """The policy, where nothing is left to search; None where a search finds it.

        Args:
            method: the `method` group.

        Raises:
            RaysearchError: settings that the method does not take.
        """
        return None

    @classmethod
    def uniform(cls, method: Mapping[str, Any]) -> Policy | None:
        """The policy that knows nothing, to compare with: all pairs of operations alike.

        None where the method chooses no operations.

        Args:
            method: the `method` group.
        """
        return SubPolicies.pairs(method.get("operations") or ops.DADA_OPERATIONS)

    @classmethod
    def predefined(cls, given: Predefined, size: tuple[int, int]) -> Predefined:
        """The predefined augmentation that goes with the method's policies.

        Args:
            given: the data's.
            size: (height, width) of the images in pixels.
        """
        return given

    @classmethod
    def settled(cls, setup: Setup, groups: Groups) -> Mapping[str, Any]:
        """The `method` group with the choices made that follow from the data.

        They are stored, so that a run which is resumed keeps them.
        """
        return groups.method

    @classmethod
    def search(cls, seed: int, groups: Groups, studies: Studies | None = None) -> Search:
        """The search of a seed, at its beginning.

        Args:
            seed: everything random follows from it.
            groups: the settings.
            studies: makes studies, for methods that have their trials proposed.

        Raises:
            RaysearchError: settings that the method does not take.
        """
        raise NotImplementedError(f"{cls.__name__} searches nothing")

    @classmethod
    def build(cls, setup: Setup, groups: Groups, give_up: GiveUp | None = None) -> Build:
        """What makes the work of the search of the setup's seed.

        One work at a time: the next may take over what the last one has used.

        Args:
            setup: data, network, device and seed.
            groups: the settings.
            give_up: makes the watches over trials, for methods whose trials may be given up.
        """
        raise NotImplementedError(f"{cls.__name__} searches nothing")

    @classmethod
    def forecast(cls, setup: Setup, groups: Groups) -> Expected:
        """What the search will cost; nothing is trained for that."""
        raise NotImplementedError(f"{cls.__name__} searches nothing")

    @classmethod
    def fits(cls, shared: Values, setup: Setup, groups: Groups) -> None:
        """That the search can begin with what another run's `shared` training has left.

        Raises:
            RaysearchError: it cannot; the message says why.
        """
        raise RaysearchError(f"method {groups.method.get('name')} takes no shared checkpoint")


def search_loop(setup: Setup, search: Mapping[str, Any]) -> Loop:
    """The classifier's training on the part of the images that a search trains on.

    Args:
        setup: data, network, device and seed.
        search: the `search` group.
    """
    train, val = setup.search_splits()
    return Loop(setup, SGDSettings.of(search), train, val, where="search")


class SearchMethod(Method, ABC):
    """A method that searches in one training, epoch by epoch: it is its search's only work.

    See `raysearch.protocol.Work`. Restored, it goes on bit for bit on the CPU.

    Attributes:
        loop: trains the classifier, and counts what that and the search cost.
    """

    loop: Loop

    @abstractmethod
    def __init__(self, setup: Setup, search: Mapping[str, Any], method: Mapping[str, Any]) -> None:
        """Build the work.

        Args:
            setup: data, network, device and seed.
            search: the `search` group of the configuration: how the classifier is trained.
            method: the `method` group: the method's own settings.
        """

    @property
    def epochs(self) -> int:
        """How many steps the search has."""
        return self.loop.epochs

    @property
    def epoch(self) -> int:
        """How many are done."""
        return self.loop.epoch

    @classmethod
    def search(cls, seed: int, groups: Groups, studies: Studies | None = None) -> Once:
        """Asks for the whole search at once."""
        return Once(SEARCH, start=cls.uniform(groups.method))

    @classmethod
    def build(cls, setup: Setup, groups: Groups, give_up: GiveUp | None = None) -> Build:
        """Makes an object of this class."""

        def built(proposal: Proposal, files: Mapping[str, Values]) -> Work:
            return cls(setup, groups.search, groups.method)

        return built

    @classmethod
    def step_equivalents(cls, setup: Setup, groups: Groups) -> float:
        """Epoch-equivalents of one of its epochs, on average over the search; for `forecast`."""
        return 1.0

    @classmethod
    def forecast(cls, setup: Setup, groups: Groups) -> Expected:
        """One piece of work of all its epochs."""
        epochs = int(groups.search["epochs"])
        each = cls.step_equivalents(setup, groups)
        return Expected(epochs * each, 1, epochs, 0, 1, f"one training of {epochs} epochs")

    @abstractmethod
    def step(self) -> dict[str, float]:
        """One epoch of search.

        Returns:
            At least `train_loss`, `val_loss` and the task's `val_error` (percent) or `val_map`
            (these two once something has been validated), `lr`, the cumulative
            `epoch_equivalents`; how far a policy over operations has moved (`entropy` and
            `kl_uniform`, nats) and `share/<operation>` for each, or `mean/<parameter>` and
            `std/<parameter>` of a continuous one.

        Raises:
            NonFiniteLossError: the loss became NaN or infinite.
        """

    @abstractmethod
    def policy(self) -> Policy:
        """The policy as it stands."""

    def epoch_equivalents(self) -> float:
        """Arithmetic so far over that of a plain training epoch on the search's train split."""
        return self.loop.cost.epoch_equivalents()

    def test(self) -> dict[str, float]:
        """`test_<metric>`, `test_loss` and so on of the search's own classifier, at the end.

        Empty where that classifier is only a means to find a policy.
        """
        return {}

    def trained(self) -> dict[str, Any] | None:
        """The network for `raysearch.load_network`, where it is a result."""
        return None

    def answer(self) -> Answer:
        """The policy, and the network with its test metrics where that is a result."""
        values = {"epoch_equivalents": self.epoch_equivalents(), **self.test()}
        return Answer(values, policy=self.policy(), network=self.trained())

    @abstractmethod
    def parts(self) -> Mapping[str, Any]:
        """What a search changes beside `loop`, by name: tensors, and what has a `state_dict`."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers, strings and containers of them: all that a restored search needs."""
        state = self.loop.state_dict()
        for name, part in self.parts().items():
            state[name] = part.clone() if isinstance(part, Tensor) else part.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state_dict` of a search with the same setup and settings."""
        self.loop.load_state_dict(state)
        for name, part in self.parts().items():
            if isinstance(part, Tensor):
                part.copy_(state[name])
            else:
                part.load_state_dict(state[name])
