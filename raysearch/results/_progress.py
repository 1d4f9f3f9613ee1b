"""How far the trials of an experiment are, and how long they still take."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from raysearch.trials import TrialInfo

Kind = tuple[str, str | None]  # trials of one kind take about as long as each other


@dataclass
class Running:
    """A running trial; `is_whole` says that it began with its first epoch and was not restored."""

    trial: TrialInfo
    started_at: float
    epoch: int | None = None
    reported_at: float = 0.0
    is_whole: bool = True
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class _Times:
    """Seconds that epochs, and whole trials, of one kind took."""

    epochs: list[float] = field(default_factory=list)
    trials: list[float] = field(default_factory=list)


class Progress:
    """Counts trials and the time that they take.

    Attributes:
        done, failed: trials that have ended so far.
        running: trials that run, by their ids.
        started_at: when the first became known, on the monotonic clock.
    """

    def __init__(self) -> None:
        self.done = self.failed = 0
        self.running: dict[str, Running] = {}
        self.started_at = time.monotonic()
        self._waiting: dict[str, TrialInfo] = {}
        self._done_before = 0  # of those that seem to wait
        self._known: set[str] = set()
        self._width = 1  # most trials that have run at once
        self._times: dict[Kind, _Times] = {}

    @property
    def known(self) -> int:
        """Trials that are known."""
        return len(self._known)

    @property
    def ended(self) -> int:
        """Trials that have ended, failed ones among them."""
        return self.done + self.failed

    def plan(self, trials: Sequence[TrialInfo], done: int) -> list[TrialInfo]:
        """Take note of trials, `done` of which were finished before; those that are new."""
        if not self._known:
            self.started_at = time.monotonic()
        new = [trial for trial in trials if trial.id not in self._known]
        self._known |= {trial.id for trial in new}
        self._waiting |= {trial.id: trial for trial in new}
        self.done += done
        self._done_before += done
        return new

    def start(self, trial: TrialInfo) -> None:
        """A trial begins, or begins again."""
        self._known.add(trial.id)
        self._waiting.pop(trial.id, None)
        self.running[trial.id] = Running(trial, time.monotonic())
        self._width = max(self._width, len(self.running))

    def move(self, trial: TrialInfo, epoch: int, metrics: Mapping[str, float]) -> None:
        """A trial has reached an epoch."""
        if trial.id not in self.running:
            self.start(trial)
        row, now = self.running[trial.id], time.monotonic()
        if row.epoch is None:
            row.is_whole = epoch == 1
        elif epoch > row.epoch:
            seconds = (now - row.reported_at) / (epoch - row.epoch)
            self._times.setdefault(_kind(trial), _Times()).epochs.append(seconds)
        row.epoch, row.reported_at, row.metrics = epoch, now, dict(metrics)

    def finish(self, trial: TrialInfo, failed: bool) -> Running | None:
        """A trial has ended; what was known of it while it ran."""
        row = self.running.pop(trial.id, None)
        self._known.add(trial.id)
        self._waiting.pop(trial.id, None)
        self.failed += failed
        self.done += not failed
        if not failed and row is not None and row.is_whole:
            seconds = time.monotonic() - row.started_at
            self._times.setdefault(_kind(trial), _Times()).trials.append(seconds)
        return row

    def seconds_left(self) -> float | None:
        """Until all known trials have ended; None before anything is known of their time."""
        if not self._times:
            return None
        now = time.monotonic()
        rest = [self._rest(row, now) for row in self.running.values()]
        waiting = [self._whole(trial) for trial in self._waiting.values()]
        share = max(0, len(waiting) - self._done_before) / len(waiting) if waiting else 0.0
        return max((sum(rest) + share * sum(waiting)) / self._width, *rest, 0.0)

    def _rest(self, row: Running, now: float) -> float:
        times = self._times.get(_kind(row.trial))
        if times is not None and times.trials:
            return max(0.0, fmean(times.trials) - (now - row.started_at))
        return self._epoch(row.trial) * max(0, row.trial.epochs - (row.epoch or 0))

    def _whole(self, trial: TrialInfo) -> float:
        times = self._times.get(_kind(trial))
        if times is not None and times.trials:
            return fmean(times.trials)
        return self._epoch(trial) * trial.epochs

    def _epoch(self, trial: TrialInfo) -> float:
        """Seconds that an epoch takes, of the trial's kind or else of all kinds."""
        own = self._times.get(_kind(trial), _Times()).epochs
        known = own or [each for times in self._times.values() for each in times.epochs]
        return fmean(known) if known else 0.0


def _kind(trial: TrialInfo) -> Kind:
    return trial.stage, None if trial.stage == "evaluation" else trial.method
