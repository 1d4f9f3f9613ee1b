"""What every method has, and the interface of those that search in one trial."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raysearch import ops
from raysearch.policy import Policy, SubPolicies
from raysearch.protocol import Answer
from raysearch.training import Predefined, Setup


@dataclass(frozen=True)
class Groups:
    """The configuration groups that a method reads, as plain values.

    Attributes:
        method: the method's own settings.
        search: how the search trains.
        finetune: how its short trainings train, of a method that has them; else None.
        parallel: proposals in a round, see `Method.parallel`; 1 where there are no rounds.
    """

    method: Mapping[str, Any]
    search: Mapping[str, Any]
    finetune: Mapping[str, Any] | None = None
    parallel: int = 1


class Method:
    """A way to come by a policy: a `SearchMethod`, a `TrialSearch`, or one known beforehand."""

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
    def uniform(cls, method: Mapping[str, Any]) -> Policy:
        """The policy that knows nothing, to compare with: all pairs of operations alike.

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


class SearchMethod(Method, ABC):
    """A policy search that runs epoch by epoch, in one trial.

    Whoever schedules it builds it, calls `step` until `epoch == epochs`, may save its
    `state_dict` after any step, and asks for the `policy` at the end or at any time before. A
    search that is restored continues bit for bit on CPU.

    Attributes:
        epochs: how many steps the search has.
        epoch: how many are done.
    """

    epochs: int
    epoch: int = 0

    @abstractmethod
    def __init__(self, setup: Setup, search: Mapping[str, Any], method: Mapping[str, Any]) -> None:
        """Build the search.

        Args:
            setup: data, network, device and seed.
            search: the `search` group of the configuration: how the classifier is trained.
            method: the `method` group: the method's own settings.
        """

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

    @classmethod
    def step_equivalents(cls, setup: Setup, groups: Groups) -> float:
        """Epoch-equivalents of one of its epochs, on average over the search; for `forecast`."""
        return 1.0

    def epoch_equivalents(self) -> float:
        """Arithmetic so far over that of a plain training epoch on the search's train split."""
        raise NotImplementedError

    def answer(self) -> Answer:
        """The policy, and the network with its test metrics where that is a result."""
        values = {"epoch_equivalents": self.epoch_equivalents(), **self.test()}
        return Answer(values, policy=self.policy(), network=self.trained())

    def test(self) -> dict[str, float]:
        """`test_<metric>`, `test_loss` and so on of the search's own classifier, at the end.

        Empty where that classifier is only a means to find a policy.
        """
        return {}

    def trained(self) -> dict[str, Any] | None:
        """What the search trained, where it is a result.

        For `raysearch.load_network`; or the shared checkpoint of a `TrialSearch`.
        """
        return None

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers, strings and containers of them: all that a restored search needs."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state_dict` of a search with the same setup and settings."""
