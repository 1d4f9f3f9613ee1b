"""Online bilevel optimisation (Mounsaveng et al., WACV 2021).

An augmenter network A_φ draws every training image's transformation; φ follows the validation loss
of the classifier that is trained with it, while it is trained. A step, with w the classifier's
weights and ζ its learning rate:

    w' = w − ζ (momentum and weight decay of) ∇_w L_train(w; A_φ(x))                 (equation 3)
    φ ← φ − η ∂L_val(w')/∂φ,  ∂L_val(w')/∂φ = −ζ ∂/∂φ ⟨∇L_val(w'), ∇_w L_train⟩      (equation 5)

through the last K steps rather than one where `unroll` says so, and after every J-th step where
`interval` does. The derivative is exact: batch normalisation, momentum and weight decay are
differentiated through. The step to w' is the classifier's own, so it is computed once.

The classifier is a result as it is. The distribution of transformations that the augmenter made in
each epoch is the policy, replayed over a later training as the schedule it was. Images for
training and for validation are divided anew in every epoch, and mirroring is the only predefined
augmentation (section 4).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from raysearch.hypergrad import SGDRule, TrainStep, image_gradients, train_step, validate
from raysearch.methods._classifier import Batch, Taken
from raysearch.methods._joint import Joint
from raysearch.methods._joint_settings import BilevelSettings
from raysearch.training import FlopCounter, Setup, derive_seed, estimate_statistics


class Bilevel(Joint):
    """The search; see the module's text and `SearchMethod`."""

    def __init__(self, setup: Setup, search: Mapping[str, Any], method: Mapping[str, Any]) -> None:
        self.settings: BilevelSettings = BilevelSettings.of(method)
        super().__init__(setup, search, self.settings)
        sgd = self.sgd
        self._rule = SGDRule(sgd.momentum, sgd.nesterov and sgd.momentum > 0, sgd.weight_decay)
        self._window: list[
            tuple[TrainStep, Tensor]
        ] = []  # steps, and their images with A_φ's graph

    def begin_epoch(self) -> None:
        """Divide the images anew, if at all."""
        if self.settings.resplit:
            seed = derive_seed(self.setup.seed, "split", self.epoch)
            splits = self.setup.dataset.search_splits(seed, self.setup.val_fraction)
            self.train, self.val = splits

    def step_kind(self, step: int) -> str:
        """Steps differ in whether they are kept and whether the augmenter moves after them.

        An epoch's last step is an update too, through fewer steps where there are no more.
        """
        interval = self.settings.interval
        left = min((step // interval + 1) * interval, self.steps) - 1 - step
        if left == 0:
            return f"update through {1 + len(self._window)}"
        return "kept" if left < self.settings.unroll else "plain"

    def end_epoch(self) -> dict[str, float]:
        """See `Joint.end_epoch`; after the last, the classifier is made ready for clean images."""
        if self.settings.clean_statistics and self.epoch + 1 == self.epochs:
            with FlopCounter() as counter:
                estimate_statistics(self.model, self.setup, self.train, self.sgd.batch_size)
            self.add_flops(counter.total)
        return super().end_epoch()

    def joint_step(self, kind: str, train: Batch, validation: Iterator[Batch], lr: float) -> Taken:
        """Equations 3 and 5."""
        images, labels = train
        if kind == "plain":
            return self.plain_step(images, labels)
        own = self.network.parameters()
        taken = train_step(self.network, own, images, labels, lr)
        self._window.append((taken, images))
        gradient = {name: g.detach() for name, g in taken.gradient.items()}
        if kind == "kept":
            return Taken(gradient, taken.loss)
        detached = {name: parameter.detach() for name, parameter in own.items()}
        ahead, _ = self._rule.step(detached, self._velocity(), gradient, lr)
        v, val_loss, val_error = validate(self.network, ahead, next(validation))
        steps, augmented = zip(*self._window, strict=True)
        self._window = []
        along = image_gradients(steps, v, self._rule)
        parameters = list(self.augmenter.parameters())
        self.move_augmenter(torch.autograd.grad(augmented, parameters, along))
        return Taken(gradient, taken.loss, val_loss, val_error)

    def _velocity(self) -> dict[str, Tensor]:
        """The momentum buffers of the classifier's optimiser, by parameter name."""
        buffers = {
            name: self.optimizer.state[parameter].get("momentum_buffer")
            for name, parameter in self.network.parameters().items()
            if parameter in self.optimizer.state
        }
        return {name: buffer for name, buffer in buffers.items() if buffer is not None}


METHOD = Bilevel
