"""The transformation-invariant baseline (a spatial transformer; Mounsaveng et al., WACV 2021).

The same augmenter as in `bilevel`, but trained on the training loss, together with the classifier
and by the same backward pass, and applied at test time too (section 4.3). It learns what makes
images easy to classify rather than what makes the classifier generalise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from raysearch.hypergrad import Network
from raysearch.methods._base import Groups, SearchMethod
from raysearch.methods._joint_settings import JointSettings
from raysearch.methods._learned_augmenter import LearnedAugmenter, mirroring
from raysearch.policy import Schedule
from raysearch.training import (
    Gradient,
    Loop,
    Predefined,
    Setup,
    SGDSettings,
    evaluate,
    network_document,
)


class Stn(SearchMethod):
    """The training; see the module's text and `SearchMethod`."""

    def __init__(self, setup: Setup, search: Mapping[str, Any], method: Mapping[str, Any]) -> None:
        self.settings = JointSettings.of(method)
        self.setup = setup = replace(setup, predefined=mirroring(setup.predefined))
        everything = setup.dataset.full_train()  # nothing is validated
        sgd, unit = SGDSettings.of(search), setup.search_images()
        self.loop = Loop(setup, sgd, everything, where="search", unit=unit)
        self.network = Network(self.loop.model, setup.task)
        self.epochs = self.loop.epochs
        self.augmenter = LearnedAugmenter(setup, self.settings)

    @classmethod
    def predefined(cls, given: Predefined, size: tuple[int, int]) -> Predefined:
        """Mirroring alone (section 4)."""
        return mirroring(given)

    @classmethod
    def step_equivalents(cls, setup: Setup, groups: Groups) -> float:
        """All images, and not only those that a search with validation trains on."""
        JointSettings.of(groups.method)  # a mistake in them is said before the search begins
        counts = setup.dataset.counts
        return (counts["train"] + counts["val"]) / setup.search_images()

    def step(self) -> dict[str, float]:
        """One epoch; see `SearchMethod.step`."""
        loop, setup = self.loop, self.setup
        self.augmenter.network.train()
        with loop.one_epoch() as batches:
            for images, targets, _ in batches:
                images = setup.before(images, loop.generators.images)
                loop.update(*loop.cost.counted("update", self.search_step, images, targets))
        metrics = loop.finish_epoch()
        metrics["epoch_equivalents"] = self.epoch_equivalents()
        metrics |= self.augmenter.finish_epoch(loop.epoch - 1)
        self.epoch = loop.epoch
        return metrics

    def search_step(self, images: Tensor, targets: Tensor) -> tuple[Gradient, Tensor]:
        """One gradient of the training loss for w and φ alike; φ moves.

        Args:
            images: uint8 [B, C, H, W].
            targets: theirs.
        """
        loop = self.loop
        augmented = self.augmenter.network.augment(images, loop.generators.policy)
        loss = self.network.own_losses(self.setup.normalise(augmented), targets).mean()
        wanted = [*loop.parameters.values(), *self.augmenter.parameters()]
        found = torch.autograd.grad(loss, wanted)
        self.augmenter.move(found[len(loop.parameters) :], loop.lr / loop.settings.lr)
        return dict(zip(loop.parameters, found, strict=False)), loss.detach()

    def policy(self) -> Schedule:
        """What the augmenter did, epoch by epoch."""
        return self.augmenter.policy()

    def trained(self) -> dict[str, Any]:
        """The jointly trained classifier."""
        return network_document(self.loop.model, self.setup)

    def test(self) -> dict[str, float]:
        """The classifier's test figures on transformed test images, one draw for each."""
        generator = self.setup.generator("test", device=torch.device("cpu"))
        network = self.augmenter.network.eval()
        figures = evaluate(
            self.loop.model,
            self.setup,
            self.setup.dataset.test,
            before=lambda images: network.augment(images, generator),
        )
        return {f"test_{name}": value for name, value in figures.items()}

    def state_dict(self) -> dict[str, Any]:
        """The classifier's state and the augmenter's."""
        return {**self.loop.state_dict(), **self.augmenter.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.loop.load_state_dict(state)
        self.augmenter.load_state_dict(state)
        self.epoch = self.loop.epoch


METHOD = Stn
