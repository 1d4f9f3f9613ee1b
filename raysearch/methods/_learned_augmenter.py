"""An augmenter network that is trained beside a classifier, and the policy that it makes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from raysearch.errors import DivergedError
from raysearch.methods._augmenter import Augmenter, parameter_names
from raysearch.methods._joint_settings import JointSettings
from raysearch.policy import Schedule, Transformations
from raysearch.training import Predefined, Setup, seeded

DRAWS = 100  # of the augmenter that stand for it in a phase of the policy
MEMORY = 0.95  # share that the mean square of the gradient's norm keeps from step to step
DIVERGED = 1e3  # a parameter beyond which nothing of an image is left
PHASES = 40  # of the policy at most; a longer search's epochs are put together


def mirroring(given: Predefined) -> Predefined:
    """Mirroring alone: the rest is the augmenter's to find."""
    return replace(given, padding=0, cutout=0)


class LearnedAugmenter:
    """The augmenter A_φ, its optimiser, and what it did in each epoch.

    Args:
        setup: data, network, device and seed.
        settings: the augmenter's.

    Attributes:
        network: A_φ, on the setup's device.
    """

    def __init__(self, setup: Setup, settings: JointSettings) -> None:
        names = parameter_names(settings.transformations, setup.dataset.channels)
        with seeded(setup.seed, "augmenter"):
            augmenter = Augmenter(names, settings.size, settings.gain)
        self.network = augmenter.to(setup.device)
        self._setup, self._settings = setup, settings
        self._square = torch.zeros((), device=setup.device)  # running, of the gradient's norm
        self._moves = 0
        self._optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        self._drawn: list[Tensor] = []  # after each epoch, [DRAWS, parameters]

    def parameters(self) -> list[Tensor]:
        """φ."""
        return list(self.network.parameters())

    def move(self, gradient: Sequence[Tensor], share: float) -> None:
        """One step of the optimiser.

        Args:
            gradient: for φ.
            share: of the classifier's learning rate that is left, which a cosine schedule follows.
        """
        settings = self._settings
        if settings.normalise:
            gradient = self._normalised(gradient)
        for group in self._optimizer.param_groups:
            group["lr"] = settings.lr * (share if settings.schedule == "cosine" else 1)
        for parameter, g in zip(self.network.parameters(), gradient, strict=True):
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

    def finish_epoch(self, epoch: int) -> dict[str, float]:
        """Draw what the augmenter now does.

        Args:
            epoch: that has ended, from 0.

        Returns:
            `mean/<parameter>` and `std/<parameter>`, the standard deviation, of each parameter.

        Raises:
            DivergedError: nothing of an image is left.
        """
        drawn = self._draw(epoch)
        if not bool((drawn.abs() < DIVERGED).all()):
            raise DivergedError(
                f"search: the augmenter diverged in epoch {epoch + 1}: use a smaller method.lr"
            )
        self._drawn.append(drawn)
        return {
            f"{figure}/{name}": value
            for name, pair in self._phase(self._drawn[-1:]).parameters().items()
            for figure, value in zip(("mean", "std"), pair, strict=True)
        }

    @torch.no_grad()
    def _draw(self, epoch: int) -> Tensor:
        """Parameters of DRAWS images, [DRAWS, parameters], on the CPU."""
        generator = self._setup.generator("draws", epoch, device=torch.device("cpu"))
        self.network.train()  # with dropout, as the images of the training had it
        with seeded(self._setup.seed, "draws", epoch):
            drawn = self.network.draw(DRAWS, generator)
        return torch.stack(list(drawn.values()), dim=1).cpu()

    def _phase(self, drawn: Sequence[Tensor]) -> Transformations:
        """Epochs put together: DRAWS draws, taken from each in turn."""
        rows = torch.arange(DRAWS)
        together = torch.stack(list(drawn))[rows % len(drawn), rows]
        return Transformations(self.network.names, together)

    def policy(self) -> Schedule:
        """What the augmenter did in each epoch, or in each of at most PHASES parts."""
        drawn = self._drawn or [self._draw(0)]
        each = math.ceil(len(drawn) / PHASES)
        return Schedule(
            [self._phase(drawn[first : first + each]) for first in range(0, len(drawn), each)]
        )

    def state_dict(self) -> dict[str, Any]:
        """φ, the optimiser's state, and the draws of the epochs so far."""
        return {
            "augmenter": self.network.state_dict(),
            "augmenter_optimizer": self._optimizer.state_dict(),
            "square": self._square.clone(),
            "moves": self._moves,
            "drawn": list(self._drawn),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.network.load_state_dict(state["augmenter"])
        self._optimizer.load_state_dict(state["augmenter_optimizer"])
        self._square.copy_(state["square"])
        self._moves = state["moves"]
        self._drawn = list(state["drawn"])
