"""How far the trials of an experiment are, and how long they still take."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from raysearch.trials import TrialInfo

Kind = tuple[str, str | None]  # trials of one kind take about as long as each other


@dataclass
class Running:
    """A running trial; `is_whole` says that it began with its first epoch and was not restored."""

    trial: TrialInfo
    started_at: float = field(default_factory=lambda: time.monotonic())
    epoch: int | None = None
    reported_at: float = 0.0
    is_whole: bool = True
    metrics: Mapping[str, float] = field(default_factory=dict)


class Progress:
    """Counts trials and the time that they take.

    Attributes:
        done, failed: trials that have ended so far.
        known: ids of all trials that are known.
        running: trials that run, by their ids.
        started_at: when the first became known, on the monotonic clock.
    """

    def __init__(self) -> None:
        self.done = self.failed = 0
        self.known: set[str] = set()
        self.running: dict[str, Running] = {}
        self.started_at = time.monotonic()
        self._waiting: dict[str, TrialInfo] = {}
        self._done_before = 0  # of those that seem to wait
        self._width = 1  # most trials that have run at once
        self._epochs: dict[Kind, list[float]] = defaultdict(list)  # seconds that each took
        self._trials: dict[Kind, list[float]] = defaultdict(list)  # the same of whole trials

    def plan(self, trials: Sequence[TrialInfo], done: int) -> list[TrialInfo]:
        """Take note of trials, `done` of which were finished before; those that are new."""
        if not self.known:
            self.started_at = time.monotonic()
        new = [trial for trial in trials if trial.id not in self.known]
        self._waiting |= {trial.id: trial for trial in new}
        self.known |= self._waiting.keys()
        self.done += done
        self._done_before += done
        return new

    def start(self, trial: TrialInfo) -> Running:
        """A trial begins, or begins again."""
        self.known.add(trial.id)
        self._waiting.pop(trial.id, None)
        row = self.running[trial.id] = Running(trial)
        self._width = max(self._width, len(self.running))
        return row

    def move(self, trial: TrialInfo, epoch: int, metrics: Mapping[str, float]) -> None:
        """A trial has reached an epoch."""
        row, now = self.running.get(trial.id) or self.start(trial), time.monotonic()
        if row.epoch is None:
            row.is_whole = epoch == 1
        elif epoch > row.epoch:
            self._epochs[_kind(trial)].append((now - row.reported_at) / (epoch - row.epoch))
        row.epoch, row.reported_at, row.metrics = epoch, now, dict(metrics)

    def finish(self, trial: TrialInfo, failed: bool) -> Running:
        """A trial has ended; what was known of it while it ran."""
        row = self.running.get(trial.id)
        if row is not None and row.is_whole and not failed:
            self._trials[_kind(trial)].append(time.monotonic() - row.started_at)
        row = row or self.start(trial)
        del self.running[trial.id]
        self.failed += failed
        self.done += not failed
        return row

    def seconds_left(self) -> float | None:
        """Until all known trials have ended; None before anything is known of their time."""
        if not self._epochs and not self._trials:
            return None
        rest = [self._rest(row) for row in self.running.values()]
        waiting = [self._rest(Running(trial)) for trial in self._waiting.values()]
        share = max(0, len(waiting) - self._done_before) / len(waiting) if waiting else 0.0
        return max((sum(rest) + share * sum(waiting)) / self._width, *rest, 0.0)

    def _rest(self, row: Running) -> float:
        """Seconds that a trial still takes, as trials or else epochs of its kind, or of all."""
        kind = _kind(row.trial)
        if kind in self._trials:
            return max(0.0, fmean(self._trials[kind]) - (time.monotonic() - row.started_at))
        known = self._epochs.get(kind) or [each for own in self._epochs.values() for each in own]
        left = max(0, row.trial.epochs - (row.epoch or 0))
        return fmean(known) * left if known else 0.0


def _kind(trial: TrialInfo) -> Kind:
    return trial.stage, None if trial.stage == "evaluation" else trial.method
