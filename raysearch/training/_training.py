"""The plain training that every evaluation uses."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from raysearch.data import Split
from raysearch.policy import Adaptive, Magnitudes, Policy
from raysearch.protocol import Answer
from raysearch.training._evaluate import evaluate_on_test
from raysearch.training._loop import Loop
from raysearch.training._setup import Setup
from raysearch.training._sgd import SGDSettings


class Training:
    """Trains a network from scratch, with or without a policy; a `raysearch.protocol.Work`.

    Args:
        setup: data, network, device, seed.
        settings: the fields of `SGDSettings`; others are ignored.
        policy: augments every training image, or None. One that adapts to each image is told about
            the outputs of every step, which are those of the image as it was augmented.
        predefined: whether the predefined augmentation is used.
        split: what to train on, instead of train + validation.

    Attributes:
        loop: see `Loop`; its `between_batches` may be set.
    """

    def __init__(
        self,
        setup: Setup,
        settings: Mapping[str, Any],
        policy: Policy | None,
        predefined: bool,
        *,
        split: Split | None = None,
    ) -> None:
        self.policy = policy
        self._magnitudes = Magnitudes(policy) if isinstance(policy, Adaptive) else None
        self.predefined = predefined
        self.settings = SGDSettings.of(settings)
        self.loop = Loop(
            setup,
            self.settings,
            split or setup.dataset.full_train(),
            where="training",
            unit=setup.search_images(),
        )
        self.model, self.optimizer = self.loop.model, self.loop.optimizer

    @property
    def setup(self) -> Setup:
        """Data, network, device, seed; another seed may be set between two trainings."""
        return self.loop.setup

    @setup.setter
    def setup(self, setup: Setup) -> None:
        self.loop.setup = setup

    @property
    def epochs(self) -> int:
        """How many epochs it has."""
        return self.loop.epochs

    @property
    def epoch(self) -> int:
        """How many are done."""
        return self.loop.epoch

    def equivalents(self, epochs: int) -> float:
        """Images of so many epochs, over those of an epoch of a search."""
        loop, copies = self.loop, self.settings.enlarge_batch
        # the rest of a batch is left out
        used = min(len(loop.train), loop.steps * self.settings.batch_size)
        return epochs * used * copies / loop.unit

    def step(self) -> dict[str, float]:
        """Train for one epoch.

        Returns:
            `train_loss`, `lr` at the epoch's end and the cumulative `epoch_equivalents`.

        Raises:
            NonFiniteLossError: the loss became NaN or infinite.
        """
        loop, setup, copies = self.loop, self.setup, self.settings.enlarge_batch
        with loop.one_epoch() as batches:
            for batch in batches:
                images, targets, indices = (_copies(rows, copies) for rows in batch)
                policy, observe = self.policy, None
                if self._magnitudes is not None:
                    policy = self._magnitudes.policy_for(indices)
                    observe = partial(self._magnitudes.observe, indices, targets=targets)
                images = setup.augment(
                    images, policy, self.predefined, loop.generators, loop.progress
                )
                loop.update(*loop.plain_step(setup.normalise(images), targets, observe))
        return {**loop.finish_epoch(), "epoch_equivalents": self.equivalents(self.epoch)}

    def test(self) -> dict[str, float]:
        """`test_loss`, `test_<metric>` and the task's other figures on the test split."""
        return evaluate_on_test(self.model, self.setup)

    def answer(self) -> Answer:
        """`epoch_equivalents` and the test figures."""
        return Answer({"epoch_equivalents": self.equivalents(self.epoch), **self.test()})

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on; see `Loop.state_dict`."""
        state = self.loop.state_dict()
        if self._magnitudes is not None:
            state["magnitudes"] = self._magnitudes.state()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the `state_dict` of a training with the same arguments."""
        self.loop.load_state_dict(state)
        if self._magnitudes is not None:
            self._magnitudes.load(state["magnitudes"])


def _copies(rows: Tensor, count: int) -> Tensor:
    """All rows, one time after the other."""
    return rows if count == 1 else rows.repeat(count, *[1] * (rows.ndim - 1))
