"""What all methods share that train a classifier while they search."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from raysearch.data import Batch as Loaded
from raysearch.hypergrad import Network, Parameters
from raysearch.methods._base import SearchMethod
from raysearch.training import (
    FlopCounter,
    Setup,
    SGDSettings,
    autocast,
    finite_mean,
    plain_step_flops,
    seeded,
)

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Taken:
    """What a step of a search leaves.

    Attributes:
        gradient: of the train loss, for the classifier's own update, by parameter name.
        train_loss: a detached scalar.
        val_loss: at the weights one step ahead, a detached scalar; None where nothing was
            validated.
        val_error: share of wrong validation images, likewise.
    """

    gradient: Parameters
    train_loss: Tensor
    val_loss: Tensor | None = None
    val_error: Tensor | None = None


class ClassifierSearch(SearchMethod):
    """One training of one classifier, in whose course something is searched.

    A subclass says in `take_step` what a step does and keeps its own state.

    Args:
        setup: data, network, device and seed.
        search: the fields of `SGDSettings` for the classifier.

    Attributes:
        train, val: what the current epoch trains on and what it validates on.
        generators: the current epoch's sources of randomness.
        steps: of the current epoch.
    """

    def __init__(self, setup: Setup, search: Mapping[str, Any]) -> None:
        self.setup = setup
        self.sgd = SGDSettings.of(search)
        self.epochs = self.sgd.epochs
        self.train, self.val = setup.search_splits()
        self.steps = self.sgd.steps(len(self.train))
        self._unit = len(self.train) / self.sgd.batch_size  # batches, of plain training
        self.generators = setup.generators(0)
        self.model = setup.build_model()
        self.network = Network(self.model)
        self.optimizer = self.sgd.optimizer(self.model)
        self.plain_flops = plain_step_flops(setup, self.sgd.batch_size)
        self._flops_of: dict[str, int] = {}  # by kind of step, counted the first time
        self._flops = 0
        self._last_val: dict[str, float] = {}  # not known before anything is validated

    @abstractmethod
    def take_step(
        self, images: Tensor, labels: Tensor, validation: Iterator[Batch], step: int, lr: float
    ) -> Taken:
        """One step, but for the classifier's own update.

        Args:
            images: uint8 [B, C, H, W] on the setup's device, as they are.
            labels: int64 [B].
            validation: normalised validation batches without end.
            step: in this epoch, from 0.
            lr: ζ, the classifier's learning rate.
        """

    def begin_epoch(self) -> None:
        """Make ready for the epoch `self.epoch`."""
        return

    @abstractmethod
    def end_epoch(self) -> dict[str, float]:
        """Metrics of what is searched, after an epoch."""

    def step(self) -> dict[str, float]:
        """One epoch; see `SearchMethod.step`."""
        self.begin_epoch()
        self.steps = self.sgd.steps(len(self.train))
        self.generators = self.setup.generators(self.epoch)
        validation = self._validation_batches()
        losses: list[Tensor] = []
        validated: list[tuple[Tensor, Tensor]] = []
        self.model.train()
        with seeded(self.setup.seed, "dropout", self.epoch):
            for step, (images, labels, _) in enumerate(self._train_batches()):
                lr = self.sgd.lr_at(self.epoch, step, self.steps)
                taken = self.take_step(images, labels, validation, step, lr)
                self._update(taken.gradient, lr)
                losses.append(taken.train_loss)
                if taken.val_loss is not None and taken.val_error is not None:
                    validated.append((taken.val_loss, taken.val_error))
        train_loss = finite_mean(losses, "search", self.epoch)
        if validated:
            val_losses, val_errors = zip(*validated, strict=True)
            self._last_val = {
                "val_loss": finite_mean(list(val_losses), "search", self.epoch),
                "val_error": 100 * float(torch.stack(val_errors).mean()),
            }
        searched = self.end_epoch()
        self.epoch += 1
        return {
            "train_loss": train_loss,
            **self._last_val,
            "lr": lr,
            "epoch_equivalents": self.epoch_equivalents(),
            **searched,
        }

    def _train_batches(self) -> Iterator[Loaded]:
        order = self.setup.generator("order", self.epoch, device=torch.device("cpu"))
        yield from self.train.batches(
            self.sgd.batch_size,
            device=self.setup.device,
            generator=order,
            drop_last=len(self.train) >= self.sgd.batch_size,
        )

    def _validation_batches(self) -> Iterator[Batch]:
        """Normalised validation batches without end, in an order of this epoch's own."""
        for round_ in itertools.count():
            order = self.setup.generator("val", self.epoch, round_, device=torch.device("cpu"))
            for images, labels, _ in self.val.batches(
                self.sgd.batch_size,
                device=self.setup.device,
                generator=order,
                drop_last=len(self.val) >= self.sgd.batch_size,
            ):
                yield self.setup.normalise(images), labels

    def plain_step(self, images: Tensor, labels: Tensor) -> Taken:
        """Loss and gradient of normalised images at the classifier's weights, and no more."""
        with autocast(self.setup.device):
            logits = self.model(images)
        loss = F.cross_entropy(logits.float(), labels)
        parameters = self.network.parameters()
        gradient = torch.autograd.grad(loss, list(parameters.values()))
        return Taken(dict(zip(parameters, gradient, strict=True)), loss.detach())

    def counted(self, kind: str, work: Callable[[], Taken]) -> Taken:
        """Do a step's work; its arithmetic is counted the first time that its kind is met."""
        if kind in self._flops_of:
            taken = work()
        else:
            with FlopCounter() as counter:
                taken = work()
            self._flops_of[kind] = counter.total
        self._flops += self._flops_of[kind]
        return taken

    def add_flops(self, count: int) -> None:
        """Account for arithmetic that is not a step's."""
        self._flops += count

    def _update(self, gradient: Mapping[str, Tensor], lr: float) -> None:
        """The classifier's own SGD step, with the train gradient that the search shares."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        for name, parameter in self.network.parameters().items():
            parameter.grad = gradient[name]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def epoch_equivalents(self) -> float:
        """Arithmetic so far over that of a plain training epoch on the search's train split."""
        return self._flops / (self.plain_flops * self._unit)

    def state_dict(self) -> dict[str, Any]:
        """The classifier's part of the state; a subclass adds the rest."""
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "flops": self._flops,
            "flops_of": self._flops_of,
            "last_val": self._last_val,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the classifier's part of the state."""
        self.epoch = state["epoch"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._flops = state["flops"]
        self._flops_of = dict(state["flops_of"])
        self._last_val = dict(state["last_val"])
