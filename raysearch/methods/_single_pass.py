"""Methods that search in one training, epoch by epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from raysearch.methods._base import Context, Expected, Method
from raysearch.methods._once import Once
from raysearch.policy import Policy
from raysearch.protocol import Answer, Build, Proposal, Values
from raysearch.training import Loop, Setup, SGDSettings

SEARCH = "search"
"""The id of a single-pass search's only proposal."""


@dataclass(frozen=True)
class SinglePass(Method, ABC):
    """A method whose search is one training, its only work."""

    @abstractmethod
    def training(self, setup: Setup, search: Mapping[str, Any]) -> SearchTraining:
        """The training, at its beginning.

        Args:
            setup: data, network, device and seed.
            search: the `search` group of the configuration: how the classifier is trained.
        """

    def step_equivalents(self, setup: Setup, epochs: int) -> float:
        """Epoch-equivalents of one of its epochs, on average over the search; for `forecast`."""
        return 1.0

    def search(self, seed: int, context: Context) -> Once:
        """Asks for the whole search at once."""
        return Once(SEARCH, start=self.uniform)

    def build(self, setup: Setup, context: Context) -> Build:
        """Makes the training."""

        def built(proposal: Proposal, files: Mapping[str, Values]) -> SearchTraining:
            return self.training(setup, context.search)

        return built

    def forecast(self, setup: Setup, context: Context) -> Expected:
        """One piece of work of all its epochs."""
        epochs = context.epochs
        each = self.step_equivalents(setup, epochs)
        return Expected(epochs * each, 1, 1, f"one training of {epochs} epochs")


def search_loop(setup: Setup, search: Mapping[str, Any]) -> Loop:
    """The classifier's training on the part of the images that a search trains on.

    Args:
        setup: data, network, device and seed.
        search: the `search` group.
    """
    train, val = setup.search_splits()
    return Loop(setup, SGDSettings.of(search), train, val, where="search")


class SearchTraining(ABC):
    """A training that searches, epoch by epoch; see `raysearch.protocol.Work`.

    Restored, it goes on bit for bit on the CPU.

    Attributes:
        loop: trains the classifier, and counts what that and the search cost.
    """

    loop: Loop

    @property
    def epochs(self) -> int:
        """How many steps the search has."""
        return self.loop.epochs

    @property
    def epoch(self) -> int:
        """How many are done."""
        return self.loop.epoch

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
