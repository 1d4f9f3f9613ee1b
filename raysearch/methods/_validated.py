"""The work of searches in rounds: parts of trainings, judged on validation images."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from raysearch.data import Split
from raysearch.errors import NonFiniteLossError
from raysearch.protocol import Answer, Metrics, Values
from raysearch.tasks import Metric
from raysearch.training import Setup, Training, evaluate, validation_cost

Goal = Literal["metric", "loss"]
"""By what of the validation images trials are compared: the task's metric, or the loss."""


class ValidatedTraining(ABC):
    """A part of a training, validated at its end, as work; see `raysearch.protocol.Work`.

    Args:
        training: goes on from where it stands.
        val: what it is validated on.
        epochs: of the part, fewer where the training ends before; None is all that are left.
        every: epochs between two validations; None is one at the end.

    Attributes:
        rows: the metrics of each epoch, those of the validation where there was one.
    """

    def __init__(
        self, training: Training, val: Split, epochs: int | None = None, every: int | None = None
    ) -> None:
        self.training, self.loop, self.val = training, training.loop, val
        self._first = training.epoch
        left = training.epochs - self._first
        self.epochs = min(epochs or left, left)
        self._every = every or self.epochs
        self.rows: list[Metrics] = []

    @property
    def epoch(self) -> int:
        """How many epochs of the part are done."""
        return self.training.epoch - self._first

    @property
    def metrics(self) -> Metrics:
        """Those of the last epoch, and of the last validation."""
        return {key: value for row in self.rows for key, value in row.items()}

    def step(self) -> Metrics:
        """One epoch; `epoch_equivalents` are the part's so far."""
        training, row = self.training, self.training.step()
        if self.epoch % self._every == 0 or self.epoch == self.epochs:
            row |= validated(training.model, training.setup, self.val, training.epoch)
        self.rows.append(row)
        validation = validation_cost(self.loop.unit, len(self.val))
        validations = sum("val_loss" in one for one in self.rows)
        row["epoch_equivalents"] = training.equivalents(self.epoch) + validations * validation
        return self.metrics

    @abstractmethod
    def answer(self) -> Answer:
        """See `Work.answer`."""

    def state_dict(self) -> dict[str, Any]:
        """The training's, and the metrics so far."""
        return {"training": self.training.state_dict(), "rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state: Values) -> None:
        """Continue from `state_dict`."""
        self.training.load_state_dict(state["training"])
        self.rows = [dict(row) for row in state["rows"]]


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


def snapshot(state: Any) -> Any:
    """A copy of a state whose tensors lie on the CPU, for a file or to go on from."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, Mapping):
        return {key: snapshot(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(snapshot(value) for value in state)
    return state
