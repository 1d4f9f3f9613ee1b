"""The transformation-invariant baseline (a spatial transformer; Mounsaveng et al., WACV 2021).

The same augmenter as in `bilevel`, but trained on the training loss, together with the classifier
and by the same backward pass, and applied at test time too (section 4.3). It learns what makes
images easy to classify rather than what makes the classifier generalise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from raysearch.methods._classifier import Batch, Taken
from raysearch.methods._joint import Joint
from raysearch.methods._joint_settings import JointSettings
from raysearch.training import Setup, evaluate


class Stn(Joint):
    """The training; see the module's text and `SearchMethod`."""

    def __init__(self, setup: Setup, search: Mapping[str, Any], method: Mapping[str, Any]) -> None:
        super().__init__(setup, search, JointSettings.of(method))
        self.train = setup.dataset.full_train()  # nothing is validated

    def joint_step(self, kind: str, train: Batch, validation: Iterator[Batch], lr: float) -> Taken:
        """One gradient of the training loss for w and φ alike."""
        images, labels = train
        own, parameters = self.network.parameters(), list(self.augmenter.parameters())
        loss = self.network.own_losses(images, labels).mean()
        found = torch.autograd.grad(loss, [*own.values(), *parameters])
        self.move_augmenter(found[len(own) :])
        return Taken(dict(zip(own, found, strict=False)), loss.detach())

    def test(self) -> dict[str, float]:
        """Test error (percent) and loss on transformed test images, one draw for each."""
        generator = self.setup.generator("test", device=torch.device("cpu"))
        self.augmenter.eval()

        def transformed(images: Tensor) -> Tensor:
            return self.augmenter.augment(images, generator)

        error, loss = evaluate(self.model, self.setup, self.setup.dataset.test, before=transformed)
        return {"test_error": error, "test_loss": loss}


METHOD = Stn
