"""All searches of an experiment in one run of Ray Tune."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from raysearch.engine._causes import cause_of, first_line, for_the_user, is_disk_full
from raysearch.engine._entries import (
    Ended,
    Entry,
    Interrupted,
    Outcome,
    Place,
    Share,
    TrialError,
)
from raysearch.engine._pool import Pool
from raysearch.engine._ray import (
    IdleProcesses,
    controller_of,
    waiting_trials,
    waits_for_a_process,
)
from raysearch.engine._worker import WorkerTrainable, process_trial, stored
from raysearch.trials import Watcher

PATIENCE = 60.0  # seconds that started processes wait for others
RUN = "tune"  # folder of Tune's own files
_log = logging.getLogger(__name__)


def run(
    entries: Sequence[Entry],
    shared: Any,
    *,
    folder: Path,
    max_failures: int,
    watchers: Sequence[Watcher] = (),
    ended: Callable[[Outcome], Sequence[Entry]] = lambda outcome: (),
) -> Ended:
    """Carry out what is left of some searches, and of those that their outcomes make possible.

    Ray has to be running. Nothing that is found depends on how many proposals are worked on at the
    same time, or on interruptions.

    Args:
        entries: the searches.
        shared: what all of them build their work from, i.e. the data set; put into Ray's object
            store once, of which all processes of a node read one copy.
        folder: where states and proposals' files go, on storage that all nodes see.
        max_failures: how often a proposal whose process died is handed out again.
        watchers: told what happens, on the driver.
        ended: is told each outcome, and returns searches that are to be carried out too; where it
            raises a RaysearchError, the outcome's method cannot go on.

    Raises:
        RaysearchError: nothing can go on, because the disk is full, say.
        Interrupted: on SIGUSR1; another call goes on.
    """
    pool = Pool(folder, watchers, ended)
    pool.add(entries)
    if not pool.finished:
        _fit(pool, shared, entries, folder, _Events(pool, max_failures))
    for watcher in watchers:
        watcher.ended()
    if not pool.finished:
        raise Interrupted
    return pool.result()


def _fit(pool: Pool, shared: Any, entries: Sequence[Entry], folder: Path, events: _Events) -> None:
    """Let Tune hand out proposals until there are no more."""
    # It misses the result files whose writing is disabled; histories are with the answers.
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
    searcher = AskAndTell(pool, _processes(entries))
    events.searcher = searcher
    attempt = 1 + len(list((folder / RUN).glob("*")))
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(WorkerTrainable, shared=shared), _resources),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=Workers(searcher),
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=_trial_id,
            trial_dirname_creator=_trial_id,
        ),
        run_config=tune.RunConfig(
            name=f"{RUN}-{attempt}",
            storage_path=str((folder / RUN).resolve()),
            verbose=0,
            progress_reporter=_Silent(),
            callbacks=[events],
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_frequency=0, checkpoint_at_end=False
            ),
        ),
    )
    try:
        tuner.fit()
    except Exception:
        if events.error is None:
            raise
    if events.error is not None:
        raise events.error


def _processes(entries: Sequence[Entry]) -> list[Share]:
    """What the processes hold that are of use from the beginning."""
    place = next(iter(entries[0].places.values()))
    alone = sum(entry.asks_once for entry in entries)
    count = place.at_once if alone < len(entries) else min(place.at_once, alone)
    return [place.share] * count


def _resources(config: Mapping[str, Any]) -> tune.PlacementGroupFactory:
    """What Tune is to reserve for a trial."""
    return holding(config["trial"]["share"])


def holding(share: Share) -> tune.PlacementGroupFactory:
    """A trial's share in Tune's terms."""
    return tune.PlacementGroupFactory([{"CPU": share.cpus, "GPU": share.gpus}])


def _trial_id(trial: Any) -> str:
    """What a trial, and its folder, are called in Tune."""
    return f"{trial.config['trial']['id']}-{trial.trial_id}"


@dataclass(frozen=True)
class _Asked:
    """A proposal that has been handed out."""

    entry: str
    proposal: str
    place: Place


class AskAndTell(Searcher):
    """Hands the searches' proposals to Tune, and Tune's results to the searches.

    Args:
        pool: the searches.
        processes: what processes hold that start before the first proposal is handed out.

    Attributes:
        error: why nothing can go on; Tune would take it for a trial's and repeat that.
    """

    def __init__(self, pool: Pool, processes: Sequence[Share]) -> None:
        super().__init__(metric="done", mode="max")
        self.pool = pool
        self.error: Exception | None = None
        self.processes = len(processes)
        self._to_start = list(processes)
        self._starting: dict[str, Share] = {}  # by Tune's trial
        self._asked: dict[str, _Asked] = {}  # by Tune's trial
        self._builds: dict[str, ray.ObjectRef[Any]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """A proposal, where there is one and room for it; first of all, processes."""
        if self._to_start:
            share = self._starting[trial_id] = self._to_start.pop()
            return {"trial": {**process_trial(len(self._to_start)), "share": share}}
        try:
            found = self.pool.ask(self._room)
        except Exception as problem:
            self.error = problem
            return None
        if found is None:
            return Searcher.FINISHED if self.pool.finished else None  # type: ignore[return-value]
        entry, proposal = found
        place = entry.places[proposal.stage]
        self._asked[trial_id] = _Asked(entry.id, proposal.id, place)
        if entry.id not in self._builds:
            self._builds[entry.id] = ray.put(entry.build)
        return {
            "trial": {
                "id": f"{entry.id}-{proposal.id}",
                "name": self.pool.name(entry.id, proposal.id),
                "entry": entry.id,
                "folder": str(self.pool.folder(entry.id)),
                "proposal": stored(proposal),
                "needs": list(proposal.needs),
                "build": self._builds[entry.id],
                "share": place.share,
            }
        }

    def _room(self, entry: Entry, stage: str) -> bool:
        """Whether another proposal fits beside those that are worked on."""
        taken = sum(1 / asked.place.at_once for asked in self._asked.values())
        return taken + 1 / entry.places[stage].at_once <= 1 + 1e-6

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Epochs have ended."""
        asked = self._asked.get(trial_id)
        if asked is not None:
            self.pool.progress(asked.entry, asked.proposal, result["rows"])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A proposal has its answer, or its process has died."""
        share = self._starting.pop(trial_id, None)
        if share is not None and error:  # it died before the first proposal
            self._to_start.append(share)
        asked = self._asked.pop(trial_id, None)
        if asked is None:
            return
        try:
            if error or result is None or not result.get("done"):
                self.pool.retract(asked.entry, asked.proposal)
                return
            self.pool.progress(asked.entry, asked.proposal, result["rows"])
            self.pool.tell(asked.entry, asked.proposal)
        except Exception as problem:  # e.g. a full disk
            self.error = problem

    def at_once(self, trial: Trial) -> int | None:
        """How many like it fit at the same time; None of a trial that only starts a process."""
        asked = self._asked.get(trial.trial_id)
        return asked.place.at_once if asked is not None else None

    def has_failed(self, trial: Trial) -> bool:
        """Whether the trial's method cannot go on."""
        name = trial.config["trial"].get("entry")
        return name is not None and self.pool.is_failed(name)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: Tune's copy of the experiment is not used to continue a run."""
        Path(checkpoint_path).write_bytes(b"")

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""

    def __getstate__(self) -> dict[str, Any]:
        """See `save`."""
        return {}


class Workers(FIFOScheduler):
    """First in, first out; processes that are free are kept for later trials.

    A process that is free takes a trial for which none is starting. Tune would hand it the first
    trial that waits for its process to start, end that process, and start another for the next
    trial: with trials shorter than a process takes to start, one process does all the work beside a
    row of others that are ended before they have begun. So no process begins to work before all
    have started.
    """

    def __init__(self, searcher: AskAndTell) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._searcher = searcher
        self._idle = IdleProcesses()
        self._holdings: set[Any] = set()
        self._ready: set[str] = set()  # trials that have started their process
        self._since = 0.0  # the first of them, on the monotonic clock

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Keep as many processes of the trial's kind as may run at once."""
        super().on_trial_add(tune_controller, trial)
        holding, count = trial.placement_group_factory, self._searcher.processes
        self._holdings.add(holding)
        if (at_once := self._searcher.at_once(trial)) is not None:
            count = at_once
        self._idle.keep(controller_of(tune_controller), holding, count)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The first waiting trial for which no process has been asked; None if all have one."""
        controller = controller_of(tune_controller)
        waiting = waiting_trials(controller)
        if len(self._holdings) > 1:
            for trial in waiting:
                self._idle.let_go(controller, trial.placement_group_factory)
        return next((one for one in waiting if not waits_for_a_process(controller, one)), None)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """End the trials of a method that cannot go on; see the class for processes."""
        if not result.get("ready"):
            return self.STOP if self._searcher.has_failed(trial) else self.CONTINUE
        self._since = self._since or time.monotonic()
        self._ready.add(trial.trial_id)
        late = time.monotonic() - self._since > PATIENCE
        return self.STOP if late or len(self._ready) >= self._searcher.processes else self.CONTINUE


class _Silent(tune.ProgressReporter):
    """Says nothing: Tune's own clears what a notebook's cell has shown so far."""

    def should_report(self, trials: list[Any], done: bool = False) -> bool:
        """Never."""
        return False


class _Events(tune.Callback):
    """What becomes of a proposal whose process died, or that cannot go on.

    It is handed out again, and goes on from its checkpoint, as often as is allowed. Tune's own way
    to retry is not used: it gives up on a trial whose kept process died before the trial came to
    it. An error that a person has to mend would come again, so it ends the method at once; a full
    disk ends everything.

    Attributes:
        error: why the run has to end, or None.
    """

    searcher: AskAndTell

    def __init__(self, pool: Pool, retries: int) -> None:
        self._pool, self._retries = pool, retries
        self._died: dict[str, int] = {}
        self.error: Exception | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles callbacks for a restore of its own, which is not used."""
        return {}

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """See the class; the searcher, which was told before, has retracted the proposal."""
        given, cause = trial.config["trial"], cause_of(trial)
        if given.get("process"):
            _log.warning("a process could not start: %s", cause)
            if self._died.setdefault("", 0) >= self._retries:
                self.error = TrialError(first_line(cause), "its start", for_the_user(cause))
                raise self.error
            self._died[""] += 1
            return
        name, died = given["name"], self._died.get(given["name"], 0)
        last = self._pool.last_checkpoint(given["entry"], given["proposal"]["id"])
        if for_the_user(cause) or died >= self._retries:
            _log.error("%s failed: %s", name, cause)
            again = "" if for_the_user(cause) else f" after {died} retries"
            error = TrialError(
                f"{name} failed{again}: {first_line(cause)}",
                last,
                for_the_user(cause),
                is_disk_full(cause),
            )
            if error.disk_full:
                self.error = error
                raise error
            self._pool.fail(self._pool.entry(given["entry"]).method, error)
            return
        self._died[name] = died + 1
        _log.warning("%s failed: %s", name, cause)
        self._pool.say(
            f"{name} died ({first_line(cause)}); it goes on from {last} "
            f"(retry {died + 1} of {self._retries})"
        )

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """See `AskAndTell.error`."""
        self.error = self.error or self.searcher.error
        if self.error is not None:
            raise self.error
