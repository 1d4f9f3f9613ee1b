"""What the methods share that train a classifier and an augmenter network together."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from raysearch.errors import DivergedError
from raysearch.methods._augmenter import Augmenter, parameter_names
from raysearch.methods._classifier import Batch, ClassifierSearch, Taken
from raysearch.methods._joint_settings import JointSettings
from raysearch.policy import Schedule, Transformations
from raysearch.training import Predefined, Setup, evaluate, network_document, seeded

DRAWS = 100  # of the augmenter that stand for it in a phase of the policy
MEMORY = 0.95  # share that the mean square of the gradient's norm keeps from step to step
DIVERGED = 1e3  # a parameter beyond which nothing of an image is left
PHASES = 40  # of the policy at most; a longer search's epochs are put together


class Joint(ClassifierSearch):
    """A training whose augmentation is learned as it goes; the classifier is a result too.

    Args:
        setup: data, network, device and seed.
        search: the fields of `SGDSettings` for the classifier.
        settings: the augmenter's.
    """

    def __init__(self, setup: Setup, search: Mapping[str, Any], settings: JointSettings) -> None:
        predefined = self.predefined(setup.predefined, setup.dataset.size)
        super().__init__(replace(setup, predefined=predefined), search)
        names = parameter_names(settings.transformations, setup.dataset.channels)
        with seeded(setup.seed, "augmenter"):
            augmenter = Augmenter(names, settings.size, settings.gain)
        self.augmenter = augmenter.to(setup.device)
        self._joint = settings
        self._square = torch.zeros((), device=setup.device)  # running, of the gradient's norm
        self._moves = 0
        self._augmenter_optimizer = torch.optim.SGD(
            self.augmenter.parameters(),
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        self._step = 0  # of the current epoch
        self._drawn: list[Tensor] = []  # after each epoch, [DRAWS, parameters]

    @classmethod
    def predefined(cls, given: Predefined, size: tuple[int, int]) -> Predefined:
        """Mirroring alone: the rest is the augmenter's to find."""
        return replace(given, padding=0, cutout=0)

    @abstractmethod
    def joint_step(self, kind: str, train: Batch, validation: Iterator[Batch], lr: float) -> Taken:
        """The classifier's gradient, and an update of the augmenter where one is due.

        Args:
            kind: what `step_kind` said.
            train: augmented, normalised images, with the graph that leads to φ unless the step is
                plain, and labels.
            validation: normalised validation batches without end.
            lr: ζ, the classifier's learning rate in this step.
        """

    def step_kind(self, step: int) -> str:
        """A name for the arithmetic of a step of the epoch, counted from 0.

        That is "plain" where only the classifier moves.
        """
        return "update"

    def take_step(
        self, images: Tensor, labels: Tensor, validation: Iterator[Batch], step: int, lr: float
    ) -> Taken:
        """Augment, and then what the method does."""
        generators, self._step = self.generators, step
        images = self.setup.before(images, generators.images)
        kind = self.step_kind(step)

        def work() -> Taken:
            with torch.set_grad_enabled(kind != "plain"):
                augmented = self.augmenter.augment(images, generators.policy)
            train = self.setup.normalise(augmented), labels
            return self.joint_step(kind, train, validation, lr)

        self.augmenter.train()
        return self.counted(kind, work)

    def move_augmenter(self, gradient: Sequence[Tensor]) -> None:
        """One step of the augmenter's optimiser."""
        if self._joint.normalise:
            gradient = self._normalised(gradient)
        for group in self._augmenter_optimizer.param_groups:
            share = self.sgd.lr_at(self.epoch, self._step, self.steps) / self.sgd.lr
            group["lr"] = self._joint.lr * (share if self._joint.schedule == "cosine" else 1)
        for parameter, g in zip(self.augmenter.parameters(), gradient, strict=True):
            parameter.grad = g
        self._augmenter_optimizer.step()
        self._augmenter_optimizer.zero_grad(set_to_none=True)

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

    def end_epoch(self) -> dict[str, float]:
        """Draw what the augmenter now does: mean and spread of each parameter."""
        drawn = self._draw(self.epoch)
        if not bool((drawn.abs() < DIVERGED).all()):
            raise DivergedError(
                f"search: the augmenter diverged in epoch {self.epoch + 1}: use a smaller method.lr"
            )
        self._drawn.append(drawn)
        return {
            f"{figure}/{name}": value
            for name, pair in self._phase(self._drawn[-1:]).parameters().items()
            for figure, value in zip(("mean", "spread"), pair, strict=True)
        }

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
        return network_document(self.model, self.setup)

    def test(self) -> dict[str, float]:
        """Test error (percent) and loss of the classifier."""
        error, loss = evaluate(self.model, self.setup, self.setup.dataset.test)
        return {"test_error": error, "test_loss": loss}

    def state_dict(self) -> dict[str, Any]:
        """The classifier's state, the augmenter's, and the draws of the epochs so far."""
        return {
            **super().state_dict(),
            "augmenter": self.augmenter.state_dict(),
            "augmenter_optimizer": self._augmenter_optimizer.state_dict(),
            "square": self._square.clone(),
            "moves": self._moves,
            "drawn": list(self._drawn),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        super().load_state_dict(state)
        self.augmenter.load_state_dict(state["augmenter"])
        self._augmenter_optimizer.load_state_dict(state["augmenter_optimizer"])
        self._square.copy_(state["square"])
        self._moves = state["moves"]
        self._drawn = list(state["drawn"])
