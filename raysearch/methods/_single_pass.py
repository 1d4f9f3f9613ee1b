"""What the methods that search in a single pass share: they train a classifier as they go."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from raysearch.errors import NonFiniteLossError
from raysearch.hypergrad import Network, OneStep
from raysearch.methods._base import SearchMethod
from raysearch.training import (
    FlopCounter,
    SGDSettings,
    Task,
    autocast,
    finite_mean,
    plain_step_flops,
    seeded,
)

Batch = tuple[Tensor, Tensor]


class SinglePass(SearchMethod):
    """A search that moves its policy after every step of one classifier's training.

    A subclass says in `search_step` how a step's train gradient and policy gradient come about
    and keeps the policy's own state.

    Args:
        task: data, network, device and seed.
        search: the fields of `SGDSettings` for the classifier.
        warmup: share of the epochs, in [0, 1), that only train the classifier, on images
            augmented by the starting policy. The policy's signal then comes from late training.
    """

    def __init__(self, task: Task, search: Mapping[str, Any], warmup: float) -> None:
        self.task = task
        self.sgd = SGDSettings.of(search)
        self.epochs = self.sgd.epochs
        self.warmup_epochs = round(warmup * self.epochs)
        self.train, self.val = task.search_splits()
        self.model = task.build_model()
        self.network = Network(self.model)
        self.optimizer = self.sgd.optimizer(self.model)
        self._plain_flops = plain_step_flops(task, self.sgd.batch_size)
        self.steps_done = 0  # search steps, all epochs together
        self._flops_of: dict[str, int] = {}  # by kind of step, counted the first time
        self._flops = 0
        self._last_val: dict[str, float] = {}  # not known while the search warms up

    @abstractmethod
    def sample(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Any]:
        """Augment a uint8 batch by the current policy; the draw goes back to `search_step`."""

    @abstractmethod
    def search_step(self, train: Batch, val: Batch, draw: Any, lr: float) -> OneStep:
        """Rewards of an augmented batch and one update of the policy.

        Args:
            train: augmented, normalised images [B, C, H, W] and labels [B].
            val: normalised validation images and labels.
            draw: what `sample` returned for these images.
            lr: ζ, the classifier's learning rate in this step.
        """

    def step_kind(self) -> str:
        """A name for the next search step's arithmetic, where steps differ in it."""
        return "search"

    @abstractmethod
    def policy_metrics(self) -> dict[str, float]:
        """`entropy`, `kl_uniform` (nats) and `share/<operation>`."""

    def step(self) -> dict[str, float]:
        """One epoch; see `SearchMethod.step`."""
        task, sgd = self.task, self.sgd
        steps = sgd.steps(len(self.train))
        generator = task.generator("augment", self.epoch)
        train_losses: list[Tensor] = []
        results: list[OneStep] = []
        validation = self._validation_batches()
        self.model.train()
        with seeded(task.seed, "dropout", self.epoch):
            for step, (images, labels) in enumerate(self._train_batches()):
                lr = sgd.lr_at(self.epoch, step, steps)
                images, draw = self.sample(task.before(images, generator), generator)
                train = task.normalise(task.after(images, generator)), labels
                if self.epoch < self.warmup_epochs:
                    train_losses.append(self._plain_step(train, lr))
                    self._flops += self._plain_flops
                    continue
                result = self._counted(train, next(validation), draw, lr)
                if not bool(result.rewards.isfinite().all()):
                    raise NonFiniteLossError("search", self.epoch + 1, step + 1)
                self._update(result.gradient, lr)
                train_losses.append(result.train_loss)
                results.append(result)
        return self._finish_epoch(train_losses, results, lr)

    def _train_batches(self) -> Iterator[Batch]:
        order = self.task.generator("order", self.epoch, device=torch.device("cpu"))
        yield from self.train.batches(
            self.sgd.batch_size,
            device=self.task.device,
            generator=order,
            drop_last=len(self.train) >= self.sgd.batch_size,
        )

    def _validation_batches(self) -> Iterator[Batch]:
        """Normalised validation batches without end, in an order of this epoch's own."""
        for round_ in itertools.count():
            order = self.task.generator("val", self.epoch, round_, device=torch.device("cpu"))
            for images, labels in self.val.batches(
                self.sgd.batch_size,
                device=self.task.device,
                generator=order,
                drop_last=len(self.val) >= self.sgd.batch_size,
            ):
                yield self.task.normalise(images), labels

    def _plain_step(self, train: Batch, lr: float) -> Tensor:
        with autocast(self.task.device):
            logits = self.model(train[0])
        loss = F.cross_entropy(logits.float(), train[1])
        parameters = self.network.parameters()
        gradient = torch.autograd.grad(loss, list(parameters.values()))
        self._update(dict(zip(parameters, gradient, strict=True)), lr)
        return loss.detach()

    def _counted(self, train: Batch, val: Batch, draw: Any, lr: float) -> OneStep:
        """`search_step`; its arithmetic is counted the first time that a kind of step is taken."""
        kind = self.step_kind()
        if kind in self._flops_of:
            result = self.search_step(train, val, draw, lr)
        else:
            with FlopCounter() as counter:
                result = self.search_step(train, val, draw, lr)
            self._flops_of[kind] = counter.total * self.sgd.batch_size // len(train[0])
        self._flops += self._flops_of[kind]
        self.steps_done += 1
        return result

    def _update(self, gradient: Mapping[str, Tensor], lr: float) -> None:
        """The classifier's own SGD step, with the train gradient that the search shares."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        for name, parameter in self.network.parameters().items():
            parameter.grad = gradient[name]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _finish_epoch(
        self, train_losses: list[Tensor], results: list[OneStep], lr: float
    ) -> dict[str, float]:
        train_loss = finite_mean(train_losses, "search", self.epoch)
        if results:
            self._last_val = {
                "val_loss": finite_mean([r.val_loss for r in results], "search", self.epoch),
                "val_error": 100 * float(torch.stack([r.val_error for r in results]).mean()),
            }
        self.epoch += 1
        return {
            "train_loss": train_loss,
            **self._last_val,
            "lr": lr,
            "epoch_equivalents": self.epoch_equivalents(),
            **self.policy_metrics(),
        }

    def epoch_equivalents(self) -> float:
        """Arithmetic so far over that of a plain training epoch on the same split."""
        return self._flops / (self._plain_flops * self.sgd.steps(len(self.train)))

    def state_dict(self) -> dict[str, Any]:
        """The classifier's part of the state; a subclass adds the policy's."""
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps_done": self.steps_done,
            "flops": self._flops,
            "flops_of": self._flops_of,
            "last_val": self._last_val,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the classifier's part of the state."""
        self.epoch = state["epoch"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps_done, self._flops = state["steps_done"], state["flops"]
        self._flops_of = dict(state["flops_of"])
        self._last_val = dict(state["last_val"])
