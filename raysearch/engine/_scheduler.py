"""Which of Tune's trials runs where, and what becomes of those that die."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

from raysearch.engine._causes import cause_of, first_line, for_the_user
from raysearch.engine._entries import TrialError
from raysearch.engine._ray import (
    IdleProcesses,
    controller_of,
    waiting_trials,
    waits_for_a_process,
)
from raysearch.engine._searcher import AskAndTell

PATIENCE = 60.0  # seconds that started processes wait for others
_log = logging.getLogger(__name__)


class Workers(FIFOScheduler):
    """First in, first out; processes that are free are kept for later trials.

    A process that is free takes a trial for which none is starting. Tune would hand it the first
    trial that waits for its process to start, end that process, and start another for the next
    trial: with trials shorter than a process takes to start, one process does all the work beside a
    row of others that are ended before they have begun. So no process begins to work before all
    have started.

    A proposal whose process died is handed out again, and goes on from its checkpoint, as often as
    is allowed. Tune's own way to retry is not used: it gives up on a trial whose kept process died
    before the trial came to it. Work that dies too often ends its method. An error that a person
    has to mend would come again, and may come to others: it ends everything at once.

    Args:
        searcher: knows what the trials work on.
        retries: how often a proposal may be handed out again.
    """

    def __init__(self, searcher: AskAndTell, retries: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._searcher, self._retries = searcher, retries
        self._idle = IdleProcesses()
        self._holdings: set[Any] = set()
        self._ready: set[str] = set()  # trials that have started their process
        self._since = 0.0  # the first of them, on the monotonic clock
        self._died: Counter[str] = Counter()

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Keep as many processes of the trial's kind as may run at once."""
        super().on_trial_add(tune_controller, trial)
        asked, holding = self._searcher.asked.get(trial.trial_id), trial.placement_group_factory
        self._holdings.add(holding)
        count = self._searcher.processes if asked is None else asked.place.at_once
        self._idle.keep(controller_of(tune_controller), holding, count)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The first waiting trial for which no process has been asked; None if all have one.

        Raises:
            Exception: see `AskAndTell.error`.
        """
        if self._searcher.error is not None:
            raise self._searcher.error
        controller = controller_of(tune_controller)
        waiting = waiting_trials(controller)
        if len(self._holdings) > 1:
            for trial in waiting:
                self._idle.let_go(controller, trial.placement_group_factory)
        return next((one for one in waiting if not waits_for_a_process(controller, one)), None)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """End the trials of a method that cannot go on; see the class for processes."""
        asked = self._searcher.asked.get(trial.trial_id)
        if asked is not None:
            gone = asked.entry.method in self._searcher.pool.failed
            return self.STOP if gone else self.CONTINUE
        self._since = self._since or time.monotonic()
        self._ready.add(trial.trial_id)
        late = time.monotonic() - self._since > PATIENCE
        return self.STOP if late or len(self._ready) >= self._searcher.processes else self.CONTINUE

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """See the class; the searcher, which is told next, retracts the proposal."""
        asked, cause = self._searcher.asked.get(trial.trial_id), cause_of(trial)
        name = asked.name if asked is not None else "a process"
        last = str((asked and asked.folder.newest()) or "its start")
        died, mend = self._died[name], for_the_user(cause)
        self._died[name] += 1
        _log.warning("%s failed: %s", name, cause)
        if not mend and died < self._retries:
            if asked is not None:
                self._searcher.pool.say(
                    f"{name} died ({first_line(cause)}); it goes on from {last} "
                    f"(retry {died + 1} of {self._retries})"
                )
            return
        again = "" if mend else f" after {died} retries"
        method = asked.entry.method if asked is not None else None
        error = TrialError(f"{name} failed{again}: {first_line(cause)}", last, mend, method)
        if method is None or mend:
            self._searcher.error = error
            raise error
        self._searcher.pool.fail(method, error)
