"""The transformation-invariant baseline (a spatial transformer; Mounsaveng et al., WACV 2021).

The same augmenter as in `bilevel`, but trained on the training loss, together with the classifier
and by the same backward pass, and applied at test time too (section 4.3). It learns what makes
images easy to classify rather than what makes the classifier generalise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from raysearch.methods._joint import JointMethod, JointTraining
from raysearch.training import Gradient, Loop, Setup, SGDSettings, evaluate


@dataclass(frozen=True)
class Stn(JointMethod):
    """The method; see the module's text."""

    title: ClassVar[str] = "STN"

    def training(self, setup: Setup, search: Mapping[str, Any]) -> StnTraining:
        """See `SinglePass.training`."""
        setup, sgd, unit = self.mirrored(setup), SGDSettings.of(search), setup.search_images()
        everything = setup.dataset.full_train()  # nothing is validated
        return StnTraining(Loop(setup, sgd, everything, where="search", unit=unit), self)

    def step_equivalents(self, setup: Setup, epochs: int) -> float:
        """All images, and not only those that a search with validation trains on."""
        counts = setup.dataset.counts
        return (counts["train"] + counts["val"]) / setup.search_images()


class StnTraining(JointTraining):
    """The training; see the module's text and `SearchTraining`."""

    def step(self) -> dict[str, float]:
        """One epoch; see `SearchTraining.step`."""
        loop, setup = self.loop, self.setup
        self.augmenter.train()
        with loop.one_epoch() as batches:
            for images, targets, _ in batches:
                images = setup.before(images, loop.generators.images)
                loop.update(*loop.cost.counted("update", self.search_step, images, targets))
        return self.finish_epoch()

    def search_step(self, images: Tensor, targets: Tensor) -> tuple[Gradient, Tensor]:
        """One gradient of the training loss for w and φ alike; φ moves.

        Args:
            images: uint8 [B, C, H, W].
            targets: theirs.
        """
        loop = self.loop
        augmented = self.augmenter.augment(images, loop.generators.policy)
        loss = self.network.own_losses(self.setup.normalise(augmented), targets).mean()
        wanted = [*loop.parameters.values(), *self.augmenter.parameters()]
        found = torch.autograd.grad(loss, wanted)
        self.move_augmenter(found[len(loop.parameters) :])
        return dict(zip(loop.parameters, found, strict=False)), loss.detach()

    def test(self) -> dict[str, float]:
        """The classifier's test figures on transformed test images, one draw for each."""
        generator = self.setup.generator("test", device=torch.device("cpu"))
        augmenter = self.augmenter.eval()
        figures = evaluate(
            self.loop.model,
            self.setup,
            self.setup.dataset.test,
            before=lambda images: augmenter.augment(images, generator),
        )
        return {f"test_{name}": value for name, value in figures.items()}


METHOD = Stn
