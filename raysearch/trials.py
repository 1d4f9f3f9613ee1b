"""Trials as people know them: what is planned, what is watched, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

COSTS = ("wall_seconds", "device_seconds", "epoch_equivalents")
"""The three units of a cost."""


@dataclass(frozen=True)
class TrialInfo:
    """One trial, known before it runs.

    Attributes:
        id: unique within the experiment and the same after `--resume`.
        method: whose it is; a baseline's is its own name.
        stage: "search", "shared" (a training that a search begins with) or "evaluation".
        name: for people, e.g. "dada seed 0" or "trivial_augment seed 3".
        policy: the row that an evaluation counts in; None for a search.
        seed: the trial's seed.
        epochs: that its history will have; of a search in rounds, what its rows stand for.
        params: what sets this trial apart, nested or flat; becomes its MLflow parameters.
        search_seed: of the search whose own policy is evaluated; None where that is not one's.
    """

    id: str
    method: str
    stage: str
    name: str
    policy: str | None
    seed: int
    epochs: int
    params: Mapping[str, Any] = field(default_factory=dict)
    search_seed: int | None = None


@dataclass(frozen=True)
class TrialResult:
    """One trial after its end.

    Attributes:
        trial: which.
        history: a dictionary an epoch, in order; the key "epoch" counts from 1.
        metrics: the last epoch's values and what is known only at the end, `test_error`, say.
        wall_seconds: while it ran, earlier attempts included.
        device_seconds: wall seconds times the share of the device held.
        epoch_equivalents: arithmetic in units of one plain training epoch.
        error: one line when the trial failed, else None.
    """

    trial: TrialInfo
    history: list[dict[str, float]]
    metrics: dict[str, float]
    wall_seconds: float
    device_seconds: float
    epoch_equivalents: float
    error: str | None = None


class Watcher(Protocol):
    """Called on the driver only, from one thread, in the order in which things happen.

    A trial that is retried is announced again with the same `id` and reports its epochs again from
    its checkpoint on.
    """

    def planned(self, trials: Sequence[TrialInfo], done: int) -> None:
        """Trials that are known from now on; `done` of them had finished in an earlier attempt."""

    def trial_started(self, trial: TrialInfo) -> None:
        """A trial begins (or begins again, after a failure or a resume)."""

    def trial_progress(self, trial: TrialInfo, epoch: int, metrics: Mapping[str, float]) -> None:
        """Epoch `epoch`, counted from 1, has ended."""

    def trial_finished(
        self, trial: TrialInfo, error: str | None, metrics: Mapping[str, float]
    ) -> None:
        """The trial has ended for good; `error` is one line when it failed.

        `metrics` holds the last values and, as far as they are known, `wall_seconds`,
        `device_seconds`, `epoch_equivalents` and `test_error`.
        """

    def message(self, text: str) -> None:
        """A remark for the person who watches."""

    def ended(self) -> None:
        """Nothing more will run."""
