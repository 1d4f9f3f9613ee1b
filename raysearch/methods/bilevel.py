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

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from raysearch.hypergrad import SGDRule, TrainStep, image_gradients, train_step, validate
from raysearch.methods._joint import JointMethod, JointTraining
from raysearch.methods._single_pass import search_loop
from raysearch.settings import Count, wrong
from raysearch.training import (
    Gradient,
    Loop,
    Setup,
    derive_seed,
    estimate_statistics,
    evaluate_on_test,
)


@dataclass(frozen=True)
class Bilevel(JointMethod):
    """The method; see the module's text.

    Attributes:
        unroll: K, the classifier's last steps through which the augmenter's gradient goes.
        interval: J, the classifier's steps from one update of the augmenter to the next, at
            least K.
        resplit: divide the training images anew in every epoch rather than once, where the data
            have no validation split of their own.
        clean_statistics: at the end, take batch normalisation's running statistics from training
            images as they are. So are those with which the validation loss was computed.
    """

    title: ClassVar[str] = "online bilevel"
    unroll: Count
    interval: Count
    resplit: bool
    clean_statistics: bool

    def __post_init__(self) -> None:
        if self.unroll > self.interval:
            most = f"at most method.interval={self.interval}, which can be set too"
            raise wrong("method.unroll", self.unroll, most)

    def training(self, setup: Setup, search: Mapping[str, Any]) -> BilevelTraining:
        """See `SinglePass.training`."""
        return BilevelTraining(search_loop(self.mirrored(setup), search), self)

    def step_equivalents(self, setup: Setup, epochs: int) -> float:
        """Steps; and in every J-th a validation, K mixed and K − 1 Hessian products."""
        update = 3 + 4 * self.unroll + 3 * (self.unroll - 1)
        return 1 + update / 3 / self.interval


class BilevelTraining(JointTraining):
    """The search; see the module's text and `SearchTraining`."""

    settings: Bilevel

    def __init__(self, loop: Loop, settings: Bilevel) -> None:
        super().__init__(loop, settings)
        sgd = self.loop.settings
        self._rule = SGDRule(sgd.momentum, sgd.nesterov and sgd.momentum > 0, sgd.weight_decay)
        # the steps to differentiate through, and their images with A_φ's graph
        self._window: list[tuple[TrainStep, Tensor]] = []

    def step(self) -> dict[str, float]:
        """One epoch; see `SearchTraining.step`."""
        loop, setup = self.loop, self.setup
        if self.settings.resplit:
            seed = derive_seed(setup.seed, "split", loop.epoch)
            loop.train, loop.val = setup.dataset.search_splits(seed, setup.val_fraction)
        self.augmenter.train()
        with loop.one_epoch() as batches:
            for images, targets, _ in batches:
                images = setup.before(images, loop.generators.images)
                kind = self.step_kind()
                gradient, loss = loop.cost.counted(kind, self.search_step, kind, images, targets)
                loop.update(gradient, loss)
                loop.holding = bool(self._window)
        if self.settings.clean_statistics and loop.epoch + 1 == loop.epochs:
            batch = loop.settings.batch_size
            loop.cost.counted(
                "statistics", estimate_statistics, loop.model, setup, loop.train, batch
            )
        return self.finish_epoch()

    def step_kind(self) -> str:
        """A name for the next step's arithmetic: whether it is kept, and whether φ moves after it.

        An epoch's last step is an update too, through fewer steps where there are no more.
        """
        step, interval = self.loop.step, self.settings.interval
        left = min((step // interval + 1) * interval, self.loop.steps) - 1 - step
        if left == 0:
            return f"update through {1 + len(self._window)}"
        return "kept" if left < self.settings.unroll else "plain"

    def search_step(self, kind: str, images: Tensor, targets: Tensor) -> tuple[Gradient, Tensor]:
        """Equations 3 and 5: the classifier's gradient and train loss; φ moves where that is due.

        Args:
            kind: what `step_kind` said.
            images: uint8 [B, C, H, W].
            targets: theirs.
        """
        loop = self.loop
        with torch.set_grad_enabled(kind != "plain"):
            augmented = self.augmenter.augment(images, loop.generators.policy)
        images = self.setup.normalise(augmented)
        if kind == "plain":
            return loop.plain_step(images, targets)
        taken = train_step(self.network, loop.parameters, images, targets, loop.lr)
        self._window.append((taken, images))
        gradient = {name: g.detach() for name, g in taken.gradient.items()}
        if kind != "kept":
            self._update_augmenter(gradient)
        return gradient, taken.loss

    def _update_augmenter(self, gradient: Mapping[str, Tensor]) -> None:
        """φ ← φ − η ∂L_val(w')/∂φ, w' being one step of the classifier ahead (equation 5)."""
        loop = self.loop
        detached = {name: parameter.detach() for name, parameter in loop.parameters.items()}
        ahead, _ = self._rule.step(detached, self._velocity(), gradient, loop.lr)
        v, val_loss, val_wrong = validate(self.network, ahead, loop.val_batch())
        loop.note_validation(val_loss, val_wrong)
        steps, augmented = zip(*self._window, strict=True)
        self._window = []
        along = image_gradients(steps, v, self._rule)
        found = torch.autograd.grad(augmented, list(self.augmenter.parameters()), along)
        self.move_augmenter(found)

    def _velocity(self) -> dict[str, Tensor | None]:
        """The momentum buffers of the classifier's optimiser, by parameter name."""
        state = self.loop.optimizer.state
        return {
            name: state.get(parameter, {}).get("momentum_buffer")
            for name, parameter in self.loop.parameters.items()
        }

    def test(self) -> dict[str, float]:
        """The classifier's test figures."""
        return evaluate_on_test(self.loop.model, self.setup)


METHOD = Bilevel
