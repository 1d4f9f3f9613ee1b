"""What an experiment tells those who watch it, trial by trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

COSTS = ("wall_seconds", "device_seconds", "epoch_equivalents")
"""The three units of a cost: `device_seconds` are wall seconds times the share of the device held,
`epoch_equivalents` arithmetic over that of one plain training epoch on the search split."""


@dataclass(frozen=True)
class TrialInfo:
    """One trial, known before it runs.

    Attributes:
        id: unique within the experiment and the same after a resume.
        method: whose it is.
        stage: "search", "shared" (a training with which several searches begin) or "evaluation".
        name: for people, e.g. "dada seed 0" or "trivial_augment seed 3".
        policy: name of the row that it is an evaluation for; None for a search.
        seed: the trial's seed.
        epochs: that it has.
        params: what sets this trial apart, nested or flat; becomes its MLflow parameters.
        search_seed: of the one search whose own policy is evaluated; None where the policy is
            merged from several, or is no search's.
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
        trial: which trial.
        history: one dictionary per epoch, in order; the key "epoch" counts from 1.
        metrics: the last values; with prefix `test_` those of a network that was tested, by the
            evaluation or by the search that trained it.
        wall_seconds: time from start to end, retries included.
        device_seconds: wall seconds times the share of the device held.
        epoch_equivalents: arithmetic in units of one plain training epoch.
        error: one line when the trial failed, else None.
    """

    trial: TrialInfo
    history: Sequence[Mapping[str, float]]
    metrics: Mapping[str, float]
    wall_seconds: float
    device_seconds: float
    epoch_equivalents: float
    error: str | None = None


@runtime_checkable
class Watcher(Protocol):
    """Called on the driver only, from one thread, in the order in which things happen.

    A trial that is retried is announced again with the same `id` and reports its epochs again
    from the checkpoint on.
    """

    def planned(self, trials: Sequence[TrialInfo], done: int) -> None:
        """Trials are known from now on; `done` of them were finished before."""

    def trial_started(self, trial: TrialInfo) -> None:
        """A trial begins (or begins again, after a failure or a resume)."""

    def trial_progress(self, trial: TrialInfo, epoch: int, metrics: Mapping[str, float]) -> None:
        """Epoch `epoch`, counted from 1, has ended."""

    def trial_finished(
        self, trial: TrialInfo, error: str | None, metrics: Mapping[str, float]
    ) -> None:
        """The trial has ended for good.

        Args:
            trial: which.
            error: one line when it failed.
            metrics: the last values and, as far as they are known, the costs in `COSTS`.
        """

    def message(self, text: str) -> None:
        """A remark for the person who watches."""

    def ended(self) -> None:
        """All trials have ended, or the run is interrupted."""
