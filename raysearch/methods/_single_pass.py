"""What the methods share that move a policy over operations by per-image rewards."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from raysearch.errors import NonFiniteLossError
from raysearch.hypergrad import OneStep, one_step_rewards
from raysearch.methods._classifier import Batch, ClassifierSearch, Taken
from raysearch.methods._settings import RewardSettings
from raysearch.policy import Policy
from raysearch.training import Setup


class SinglePass(ClassifierSearch):
    """A search that moves its policy after every step of one classifier's training.

    A subclass says in `search_step` how a step's train gradient and policy gradient come about
    and keeps the policy's own state, on the CPU.

    Args:
        setup: data, network, device and seed.
        search: the fields of `SGDSettings` for the classifier.
        settings: the method's. In the epochs of warm-up, images augmented by the starting policy
            train the classifier, and no more; the policy's signal then comes from late training.
    """

    def __init__(self, setup: Setup, search: Mapping[str, Any], settings: RewardSettings) -> None:
        super().__init__(setup, search)
        self.warmup_epochs = min(self.epochs - 1, round(settings.warmup * self.epochs))
        self.steps_done = 0  # search steps, all epochs together
        self._difference, self._epsilon = settings.difference, settings.epsilon

    @abstractmethod
    def current(self) -> Policy:
        """The whole policy as it stands, from which the epochs of warm-up draw too."""

    @abstractmethod
    def sample(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Any]:
        """Augment a uint8 batch for a search step.

        Args:
            images: uint8 [B, C, H, W] on the setup's device.
            generator: source of the policy's draws, on the CPU.

        Returns:
            Augmented images: [B, C, H, W], or [R·B, C, H, W] with all images once in each of R
            rows; and the draw, which goes back to `search_step`.
        """

    @abstractmethod
    def search_step(self, train: Batch, val: Batch, draw: Any, lr: float) -> OneStep:
        """Rewards of an augmented batch and one update of the policy.

        Args:
            train: augmented, normalised images and labels, as many as `sample` returned.
            val: normalised validation images and labels.
            draw: what `sample` returned for these images.
            lr: ζ, the classifier's learning rate in this step.
        """

    def rewards(
        self,
        train: Batch,
        val: Batch,
        lr: float,
        *,
        with_pixels: bool = False,
        weights: Tensor | None = None,
    ) -> OneStep:
        """`one_step_rewards` with the rewards on the CPU, where policies are kept."""
        found = one_step_rewards(
            self.network,
            train,
            val,
            lr,
            difference=self._difference,
            epsilon=self._epsilon,
            with_pixels=with_pixels,
            weights=None if weights is None else weights.to(train[0].device),
        )
        pixels = found.pixel_rewards
        return replace(
            found,
            rewards=found.rewards.cpu(),
            pixel_rewards=None if pixels is None else pixels.cpu(),
        )

    def step_kind(self) -> str:
        """A name for the next search step's arithmetic, where steps differ in it."""
        return "search"

    @abstractmethod
    def policy_metrics(self) -> dict[str, float]:
        """`entropy`, `kl_uniform` (nats) and `share/<operation>`."""

    def take_step(
        self, images: Tensor, labels: Tensor, validation: Iterator[Batch], step: int, lr: float
    ) -> Taken:
        """A search step, or a plain one on images augmented by the starting policy."""
        setup, generators = self.setup, self.generators
        if self.epoch < self.warmup_epochs:
            images = setup.normalise(setup.augment(images, self.current(), True, generators))
            return self.counted("plain", lambda: self.plain_step(images, labels))
        images = setup.before(images, generators.images)
        rows, draw = self.sample(images, generators.policy)
        rows = setup.normalise(setup.after(rows, generators.images))
        train = rows, labels.repeat(len(rows) // len(labels))

        def work() -> Taken:
            found = self.search_step(train, next(validation), draw, lr)
            if not bool(found.rewards.isfinite().all()):
                raise NonFiniteLossError("search", self.epoch + 1, step + 1)
            return Taken(found.gradient, found.train_loss, found.val_loss, found.val_error)

        taken = self.counted(self.step_kind(), work)
        self.steps_done += 1
        return taken

    def end_epoch(self) -> dict[str, float]:
        """See `policy_metrics`."""
        return self.policy_metrics()

    def state_dict(self) -> dict[str, Any]:
        """The classifier's part of the state; a subclass adds the policy's."""
        return {**super().state_dict(), "steps_done": self.steps_done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the classifier's part of the state."""
        super().load_state_dict(state)
        self.steps_done = state["steps_done"]
