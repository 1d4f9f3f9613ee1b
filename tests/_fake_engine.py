"""An engine without Ray and without training: every search and every evaluation has its answer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from raysearch import engine
from raysearch.engine import Capacity, Ended, Entry, Outcome, TrialError, Wish
from raysearch.errors import RaysearchError
from raysearch.policy import Policy, SubPolicies
from raysearch.trials import TrialInfo, TrialResult, Watcher

ERRORS = {"none": 9.0, "trivial_augment": 5.0}


def found_by(trial: TrialInfo) -> Policy:
    """The policy that a search finds: another for every seed."""
    operations = ["Rotate", "Invert", "Equalize", "Solarize"]
    first = trial.seed % (len(operations) - 1)
    return SubPolicies.pairs(operations[first : first + 2])


class Recorded:
    """Takes the place of `raysearch.engine`'s `run` and `cluster`.

    Attributes:
        entries: all that it was given, in the order in which they came.
        failing: by an entry's id, why it comes to nothing.
        broken: methods that cannot go on.
        to_mend: a method that meets what a person has to mend.
        stop_after: entries after which it is interrupted.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.failing: dict[str, str] = {}
        self.broken: set[str] = set()
        self.to_mend: str | None = None
        self.stop_after: int | None = None

    @classmethod
    def in_place(cls, patch: pytest.MonkeyPatch) -> Recorded:
        """One that has taken the engine's place."""
        fake = cls()
        patch.setattr(engine, "run", fake.run)
        patch.setattr(engine, "cluster", fake.cluster)
        return fake

    @contextlib.contextmanager
    def cluster(self, wish: Wish, *arguments: Any) -> Iterator[Capacity]:
        """Two CPUs."""
        yield Capacity(2, 0, "cpu")

    def run(
        self,
        entries: Sequence[Entry],
        shared: Any,
        *,
        folder: Path,
        max_failures: int,
        watchers: Sequence[Watcher],
        ended: Callable[[Outcome], Sequence[Entry]],
    ) -> Ended:
        """Answer all of them."""
        outcomes: dict[str, Outcome] = {}
        failed: dict[str, RaysearchError] = {}
        waiting = list(entries)
        while waiting:
            entry = waiting.pop(0)
            self.entries.append(entry)
            if self.stop_after is not None and len(self.entries) > self.stop_after:
                raise KeyboardInterrupt
            if entry.method == self.to_mend:
                raise TrialError("out of memory", "its start", True, entry.method)
            if entry.method in self.broken:
                failed[entry.method] = RaysearchError("it cannot go on")
                continue
            outcomes[entry.id] = outcome = self._outcome(entry, folder)
            for watcher in watchers:
                watcher.planned([entry.trial], 0)
                watcher.trial_started(entry.trial)
                watcher.trial_finished(entry.trial, outcome.failed, outcome.result.metrics)
            try:
                waiting += ended(outcome)
            except RaysearchError as error:
                failed[entry.method] = error
        for watcher in watchers:
            watcher.ended()
        return Ended(outcomes, failed)

    def _outcome(self, entry: Entry, folder: Path) -> Outcome:
        trial, error = entry.trial, self.failing.get(entry.id)
        searched = trial.stage == "search"
        metrics = {"epoch_equivalents": 4.0}
        if not searched and error is None:
            test_error = ERRORS.get(str(trial.policy), 4.0) + 0.1 * trial.seed
            metrics |= {"test_error": test_error, "test_loss": 0.1}
        history = [{"epoch": 1, "train_loss": 1.0, "epoch_equivalents": 4.0}]
        result = TrialResult(trial, history, metrics, 2.0, 2.0, 4.0, error)
        policy = found_by(trial) if searched and error is None else None
        return Outcome(entry, result, (), policy, None, folder / entry.id)
