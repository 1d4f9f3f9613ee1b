"""What a run tells those who watch it: the display on the terminal and the tracker in MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

Stage = Literal["search", "evaluation"]


@dataclass(frozen=True)
class TrialInfo:
    """One trial, known before it runs.

    Args:
        id: unique within the run and the same after `--resume`, so that a continued trial is known.
        stage: "search" or "evaluation".
        name: for people, e.g. "dada seed 0" or "trivial_augment seed 3".
        policy: name of the evaluated policy; None for a search trial.
        seed: the trial's seed.
        params: what sets this trial apart, nested or flat; becomes its MLflow parameters.
        epochs: that it has, where the trials of a stage differ in that; 0 is the stage's.
    """

    id: str
    stage: str
    name: str
    policy: str | None
    seed: int
    params: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 0


@dataclass(frozen=True)
class TrialResult:
    """One trial after its end.

    Args:
        trial: which trial.
        history: one dictionary per epoch, in order; the key "epoch" counts from 1.
        metrics: the last values; an evaluation's hold `test_error` in percent, and a search's
            where it trained a network that is a result.
        wall_seconds: time from start to end, retries included.
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


@runtime_checkable
class Observer(Protocol):
    """Called on the driver only, from one thread, in the order in which things happen.

    A trial that is retried is announced again with the same `id` and reports its epochs again
    from the checkpoint on. `metrics` of `trial_finished` holds the last values and, as far as
    they are known, `wall_seconds`, `device_seconds`, `epoch_equivalents` and `test_error`.
    """

    def stage_started(self, stage: str, trials: int, epochs: int, resumed: int = 0) -> None:
        """A stage of `trials` trials of `epochs` epochs each begins; `resumed` are done already."""

    def trial_started(self, trial: TrialInfo) -> None:
        """A trial begins (or begins again, after a failure or a resume)."""

    def trial_progress(self, trial: TrialInfo, epoch: int, metrics: Mapping[str, float]) -> None:
        """Epoch `epoch`, counted from 1, has ended."""

    def trial_finished(
        self, trial: TrialInfo, error: str | None, metrics: Mapping[str, float]
    ) -> None:
        """The trial has ended for good; `error` is one line when it failed."""

    def message(self, text: str) -> None:
        """A remark for the person who watches."""

    def stage_finished(self, stage: str) -> None:
        """All trials of the stage have ended."""
