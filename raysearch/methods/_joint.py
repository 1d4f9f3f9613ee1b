"""What methods share that train an augmenter network beside a classifier."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from raysearch.errors import DivergedError
from raysearch.hypergrad import Network
from raysearch.methods._augmenter import Augmenter, parameter_names
from raysearch.methods._single_pass import SearchTraining, SinglePass
from raysearch.policy import Schedule, Transformations
from raysearch.settings import BelowOne, NotNegative, Positive
from raysearch.training import Loop, Predefined, Setup, network_document, seeded

DRAWS = 100  # of the augmenter that stand for it in a phase of the policy
MEMORY = 0.95  # share that the mean square of the gradient's norm keeps from step to step
DIVERGED = 1e3  # a parameter beyond which nothing of an image is left
PHASES = 40  # of the policy at most; a longer search's epochs are put together


@dataclass(frozen=True)
class JointMethod(SinglePass):
    """A method that trains an augmenter A_φ beside its classifier, which is a result too.

    The distribution of transformations that the augmenter makes in each epoch is the policy.
    Mirroring is the only predefined augmentation (section 4): the rest is the augmenter's to find.

    Attributes:
        transformations: what the augmenter learns.
        size: of the augmenter; see `raysearch.methods._augmenter.SIZES`.
        gain: factor on the starting weights of the augmenter's last layer, whose biases it then
            sets to 0; 0 leaves both as PyTorch draws them.
        lr: the augmenter's learning rate (SGD).
        schedule: of that learning rate: `constant`, or half a `cosine` to 0.
        normalise: divide the augmenter's gradient by the running root mean square of its norm,
            so that `lr` is the length of a step whatever the scale of the losses. The gradient
            falls by orders of magnitude as ζ and the training loss do.
        momentum: the augmenter's, in [0, 1).
        weight_decay: the augmenter's, at least 0.
    """

    transformations: Literal["translation", "affine", "colour", "affine+colour"]
    size: Literal["small", "medium", "large"]
    gain: NotNegative
    lr: Positive
    schedule: Literal["constant", "cosine"]
    normalise: bool
    momentum: BelowOne
    weight_decay: NotNegative

    @property
    def uniform(self) -> None:
        """None: parameters of continuous transformations are learnt, and no operations."""

    def predefined(self, given: Predefined, size: tuple[int, int]) -> Predefined:
        """Mirroring alone."""
        return replace(given, padding=0, cutout=0)

    def mirrored(self, setup: Setup) -> Setup:
        """The setup with the method's predefined augmentation."""
        return replace(setup, predefined=self.predefined(setup.predefined, setup.dataset.size))


class JointTraining(SearchTraining):
    """The training of a classifier and its augmenter; see `JointMethod`.

    Args:
        loop: trains the classifier.
        settings: the method's.

    Attributes:
        setup: the loop's.
        network: the classifier.
        augmenter: A_φ, on the setup's device.
    """

    def __init__(self, loop: Loop, settings: JointMethod) -> None:
        self.loop, self.setup = loop, loop.setup
        self.network = Network(loop.model, self.setup.task)
        names = parameter_names(settings.transformations, self.setup.dataset.channels)
        with seeded(self.setup.seed, "augmenter"):
            augmenter = Augmenter(names, settings.size, settings.gain)
        self.augmenter = augmenter.to(self.setup.device)
        self.settings = settings
        self._square = torch.zeros((), device=self.setup.device)  # running, of the gradient's norm
        self._moves = 0
        self._optimizer = torch.optim.SGD(
            self.augmenter.parameters(),
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        self._drawn: list[Tensor] = []  # after each epoch, [DRAWS, parameters]

    def move_augmenter(self, gradient: Sequence[Tensor]) -> None:
        """One step of φ along its gradient; a cosine schedule is the classifier's."""
        settings, loop = self.settings, self.loop
        if settings.normalise:
            gradient = self._normalised(gradient)
        share = loop.lr / loop.settings.lr if settings.schedule == "cosine" else 1
        for group in self._optimizer.param_groups:
            group["lr"] = settings.lr * share
        for parameter, g in zip(self.augmenter.parameters(), gradient, strict=True):
            parameter.grad = g
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def _normalised(self, gradient: Sequence[Tensor]) -> list[Tensor]:
        """The gradient over the root mean square of its norm so far, late steps counting more.

        A norm beyond that mean counts as the mean, so no single step is longer than the others.
        """
        square = torch.stack([g.square().sum() for g in gradient]).sum()
        self._square.lerp_(square, 1 - MEMORY)
        self._moves += 1
        mean = self._square / (1 - MEMORY**self._moves)
        length = torch.maximum(mean, square).sqrt().clamp_min(1e-30)
        return list(torch._foreach_div(list(gradient), length))

    def finish_epoch(self) -> dict[str, float]:
        """Draw what the augmenter now does.

        Returns:
            See `SearchTraining.step`.

        Raises:
            DivergedError: nothing of an image is left.
        """
        metrics = {**self.loop.finish_epoch(), "epoch_equivalents": self.epoch_equivalents()}
        drawn = self._draw(self.epoch - 1)
        if not bool((drawn.abs() < DIVERGED).all()):
            raise DivergedError(
                f"search: the augmenter diverged in epoch {self.epoch}: use a smaller method.lr"
            )
        self._drawn.append(drawn)
        for name, (mean, std) in self._phase([drawn]).parameters().items():
            metrics |= {f"mean/{name}": mean, f"std/{name}": std}
        return metrics

    @torch.no_grad()
    def _draw(self, epoch: int) -> Tensor:
        """Parameters of DRAWS images, [DRAWS, parameters], on the CPU."""
        generator = self.setup.generator("draws", epoch, device=torch.device("cpu"))
        self.augmenter.train()  # with dropout, as the images of the training had it
        with seeded(self.setup.seed, "draws", epoch):
            drawn = self.augmenter.draw(DRAWS, generator)
        return torch.stack(list(drawn.values()), dim=1).cpu()

    def _phase(self, drawn: Sequence[Tensor]) -> Transformations:
        """Epochs put together: DRAWS draws, taken from each in turn."""
        rows = torch.arange(DRAWS)
        together = torch.stack(list(drawn))[rows % len(drawn), rows]
        return Transformations(self.augmenter.names, together)

    def policy(self) -> Schedule:
        """What the augmenter did in each epoch, or in each of at most PHASES parts."""
        drawn = self._drawn or [self._draw(0)]
        each = math.ceil(len(drawn) / PHASES)
        return Schedule(
            [self._phase(drawn[first : first + each]) for first in range(0, len(drawn), each)]
        )

    def trained(self) -> dict[str, Any]:
        """The jointly trained classifier."""
        return network_document(self.loop.model, self.setup)

    def parts(self) -> dict[str, Any]:
        """φ, its optimiser, and the running mean of its gradient's squared norm."""
        optimizer, square = self._optimizer, self._square
        return {"augmenter": self.augmenter, "augmenter_optimizer": optimizer, "square": square}

    def state_dict(self) -> dict[str, Any]:
        """Steps of φ, and the draws of the epochs so far, besides."""
        return {**super().state_dict(), "moves": self._moves, "drawn": list(self._drawn)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        super().load_state_dict(state)
        self._moves, self._drawn = state["moves"], list(state["drawn"])
