"""Weight sharing: the one training from which every fine-tune trial starts (AWS, section 3.2)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from raysearch.data import Split
from raysearch.errors import NonFiniteLossError, RaysearchError
from raysearch.methods._rounds import snapshot
from raysearch.policy import Policy
from raysearch.protocol import Answer, Metrics
from raysearch.tasks import Metric
from raysearch.training import Setup, Training, evaluate, validation_cost

FORMAT = "raysearch-shared-checkpoint"
Goal = Literal["metric", "loss"]
"""By what of the validation images trials are compared: the task's metric, or the loss."""


class SharedTraining:
    """A training with one policy throughout on the search's train split, as work.

    What it leaves is the shared checkpoint: weights with batch normalisation's statistics, the
    optimiser's state, what it cost and what it was made with.

    Args:
        setup: data, network, device and seed.
        search: the fields of `SGDSettings`.
        policy: augments the images; the uniform one minimises the expected divergence between
            the shared training and those that would have had a policy of their own (section 3.2).
            None is no augmentation, the predefined one neither.
        made: what else a search that uses the checkpoint must have in common with it.
    """

    def __init__(
        self,
        setup: Setup,
        search: Mapping[str, Any],
        policy: Policy | None,
        made: Mapping[str, Any],
    ) -> None:
        train, self._val = setup.search_splits()
        self._validation = validation_cost(train, self._val)
        self._search, self._made = search, made
        self.training = Training(setup, search, policy, policy is not None, split=train)
        self.loop = self.training.loop
        self.epochs = self.training.epochs
        self._final: dict[str, float] = {}

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return self.training.epoch

    def step(self) -> dict[str, float]:
        """One epoch; validated after the last."""
        metrics = self.training.step()
        if self.epoch == self.epochs:
            training = self.training
            metrics |= validated(training.model, training.setup, self._val, self.epoch)
            metrics["epoch_equivalents"] += self._validation
            self._final = metrics
        return metrics

    def checkpoint(self) -> dict[str, Any]:
        """The shared checkpoint."""
        state = self.training.state_dict()
        return {
            "format": FORMAT,
            "made": {**made_with(self.training.setup, self._search), **self._made},
            "model": snapshot(state["model"]),
            "optimizer": snapshot(state["optimizer"]),
            "metrics": dict(self._final),
        }

    def answer(self) -> Answer:
        """The metrics of the last epoch; the checkpoint is the file."""
        return Answer(dict(self._final), file=self.checkpoint())

    def state_dict(self) -> dict[str, Any]:
        """The training's, and the last metrics."""
        return {"training": self.training.state_dict(), "final": dict(self._final)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.training.load_state_dict(state["training"])
        self._final = dict(state["final"])


def validated(model: nn.Module, setup: Setup, val: Split, epoch: int) -> Metrics:
    """`val_loss`, `val_<metric>` and the task's other figures after an epoch, counted from 1.

    Raises:
        NonFiniteLossError: the loss is NaN or infinite; the last step of a training is not noticed
            otherwise.
    """
    figures = evaluate(model, setup, val)
    if not math.isfinite(figures["loss"]):
        raise NonFiniteLossError("validation", epoch, 1)
    return {f"val_{name}": value for name, value in figures.items()}


def reward(by: Goal, figures: Mapping[str, float], metric: Metric) -> float:
    """How good validation figures are, larger being better.

    Args:
        by: minus the loss, or the metric, from 0 to 1.
        figures: what `validated` has found.
        metric: the task's.
    """
    return -figures["val_loss"] if by == "loss" else metric.score(figures[f"val_{metric.name}"])


def cost(by: Goal, figures: Mapping[str, float], metric: Metric) -> float:
    """What is minimised: the loss or the metric (minus it, where more is better); see `reward`."""
    return figures["val_loss"] if by == "loss" else metric.cost(figures[f"val_{metric.name}"])


def made_with(setup: Setup, search: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint was made with, by the names that a person knows it by."""
    train, val = setup.search_splits()
    keys = ("epochs", "batch_size", "lr", "momentum", "nesterov", "weight_decay")
    return {
        "model": setup.model,
        "classes": list(setup.dataset.classes),
        "image size": list(setup.dataset.size),
        "channels": setup.dataset.channels,
        "training images": fingerprint(train),
        "validation images": fingerprint(val),
        "predefined augmentation": vars(setup.predefined).copy(),
        **{f"search.{key}": search[key] for key in keys},
    }


def fingerprint(split: Split) -> str:
    """How many images a split has, and a digest of its labels and first images."""
    digest = hashlib.sha256(split.targets.cpu().numpy().tobytes())
    images, _, _ = next(iter(split.batches(64, device=torch.device("cpu"), generator=None)))
    digest.update(images.contiguous().numpy().tobytes())
    return f"{len(split)} ({digest.hexdigest()[:16]})"


def check_fits(checkpoint: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """That a checkpoint was made with what a search has.

    Raises:
        RaysearchError: it was not; the message says what differs.
    """
    if not isinstance(checkpoint, Mapping) or checkpoint.get("format") != FORMAT:
        raise RaysearchError("not a shared checkpoint of raysearch")
    for key in ("made", "model", "optimizer", "metrics"):
        if not isinstance(checkpoint.get(key), Mapping):
            raise RaysearchError(f"not a shared checkpoint of raysearch (no {key!r})")
    if not isinstance(checkpoint["metrics"].get("epoch_equivalents"), int | float):
        raise RaysearchError("not a shared checkpoint of raysearch (it does not say what it cost)")
    for key, value in made.items():
        theirs = checkpoint["made"].get(key)
        if isinstance(theirs, Tensor) or theirs != value:
            why = " (another seed divides the images otherwise)" if key.endswith(" images") else ""
            raise RaysearchError(f"it was made with {key} {theirs!s:.200}, not {value}{why}")
