"""Counts the time that an experiment takes, while its trials report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raysearch.experiment._folder import Folder
    from raysearch.trials import TrialInfo


class Clock:
    """Adds up seconds in which trials of a stage, or searches of a method, run; a `Watcher`.

    Args:
        folder: where they are kept.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._running: dict[str, TrialInfo] = {}
        self._counted = time.monotonic()

    def planned(self, trials: Sequence[TrialInfo], done: int) -> None:
        """Nothing to count."""

    def trial_started(self, trial: TrialInfo) -> None:
        """Start the stage's clock, with the first."""
        self._count()
        self._running[trial.id] = trial

    def trial_progress(self, trial: TrialInfo, epoch: int, metrics: Mapping[str, float]) -> None:
        """Count the time so far."""
        self._count()

    def trial_finished(
        self, trial: TrialInfo, error: str | None, metrics: Mapping[str, float]
    ) -> None:
        """Stop the stage's clock, with the last."""
        self._count()
        self._running.pop(trial.id, None)

    def message(self, text: str) -> None:
        """Nothing to count."""

    def ended(self) -> None:
        """Stop all clocks."""
        self._count()
        self._running.clear()

    def _count(self) -> None:
        now = time.monotonic()
        running = self._running.values()
        stages = {"evaluation" if t.stage == "evaluation" else "search" for t in running}
        methods = {t.method for t in running if t.stage != "evaluation"}
        if stages:
            self._folder.count(now - self._counted, stages, methods)
        self._counted = now
