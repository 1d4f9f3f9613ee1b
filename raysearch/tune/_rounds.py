"""A stage whose trials are proposed as it goes: a `TrialSearch` on Tune's Searcher interface."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import ConcurrencyLimiter, Searcher

from raysearch.files import write_whole
from raysearch.methods import TrialSearch, unneeded
from raysearch.states import load, save_whole
from raysearch.tune._checkpoints import POLICY, Progress
from raysearch.tune._kept import go_back, keep, kept
from raysearch.tune._observe import (
    Failures,
    T,
    Watcher,
    cause_of,
    for_the_user,
)
from raysearch.tune._processes import KeepWorkers, process_trial
from raysearch.tune._proposals import ProposalTrainable, RoundsJob, stored
from raysearch.tune._stage import Interrupted, Outcome, fit
from raysearch.tune._trainable import Share

ROUNDS = "rounds"  # folder of the searches' states
WORK = "work"  # folder of a search's proposals' files


@dataclass
class Running:
    """A search and how far it is.

    Attributes:
        search: asks and is told.
        trial: what it is to the watchers.
        folder: where its state goes.
        before: epoch-equivalents spent before its first round.
        share: of a device that a trial holds.
        progress: a round counts as an epoch; seconds of the trials include those before.
        marked: when its time was last counted, on the monotonic clock.
        done_with: files of a round gone by that the state before the present one may still need.
    """

    search: TrialSearch
    trial: Any
    folder: Path
    before: float
    share: Share
    progress: Progress
    marked: float = field(default_factory=time.monotonic)
    done_with: list[Path] = field(default_factory=list)

    @property
    def work(self) -> Path:
        """Where its workers keep what they go on from."""
        return (self.folder / WORK).resolve()

    def save(self) -> None:
        """Write the state; a search killed at any moment goes on from its last answer."""
        keep(self.folder, self.state())

    def load(self, watchers: Sequence[Watcher[Any]]) -> None:
        """Go on from the state, if there is one; see `kept`."""
        found = kept(self.folder, self.trial.name, "the answer before the last", watchers)
        if found is not None:
            state, newest = found
            self.take(state)
            if not newest:
                go_back(self.folder)

    def tidy(self, ended_round: bool) -> None:
        """Remove the files of rounds gone by, one answer late: see `keep`."""
        for path in self.done_with:
            path.unlink(missing_ok=True)
        self.done_with = list(unneeded(self.search, self.work)) if ended_round else []

    def state(self) -> dict[str, Any]:
        """What `take` goes on from."""
        return {"search": self.search.state_dict(), "progress": asdict(self.progress)}

    def take(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.search.load_state_dict(state["search"])
        self.progress = Progress(**state["progress"])

    def tell(self, proposal: str, answer: Mapping[str, Any], seconds: float) -> bool:
        """Take an answer; whether it ended a round."""
        metrics = self.search.tell(proposal, answer)
        now = time.monotonic()
        progress = self.progress
        progress.wall_seconds += now - self.marked
        progress.device_seconds += seconds * self.share.of_device
        self.marked = now
        if metrics is not None:
            progress.epoch = self.search.round
            equivalents = self.before + metrics["epoch_equivalents"]
            row = {"epoch": progress.epoch, **metrics, "epoch_equivalents": equivalents}
            progress.history.append(row)
        return metrics is not None


Answered = Callable[[str, Mapping[str, Any]], None]


class AskAndTell(Searcher):
    """Hands the searches' proposals to Tune, and Tune's results to the searches.

    While one search awaits the last answers of its round, another's trials may run.

    Args:
        searches: by their trials' ids.
        watchers: told about rounds as epochs.
        answered: given every result of a trial, with its proposal's id; for measurements.
        processes: trials that only start a process, before the first proposal.

    Attributes:
        error: why no search can go on; Tune would take it for a trial's and repeat that.
    """

    def __init__(
        self,
        searches: Mapping[str, Running],
        watchers: Sequence[Watcher[Any]],
        answered: Answered | None = None,
        processes: int = 0,
    ) -> None:
        super().__init__(metric="seconds", mode="min")
        self._searches = dict(searches)
        self._watchers, self._answered = list(watchers), answered
        self._processes = processes
        self.error: Exception | None = None
        self._asked: dict[str, tuple[str, str]] = {}  # Tune's trial: search, proposal

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """A proposal of the search that is least far, of those that have one.

        So a search's rounds are in one piece, and a process seldom changes from one to another.
        """
        if self._processes:
            self._processes -= 1
            return {"trial": process_trial(self._processes)}
        for name, running in sorted(self._searches.items(), key=lambda item: item[1].search.round):
            proposal = running.search.ask()
            if proposal is not None:
                self._asked[trial_id] = name, proposal.id
                return {
                    "trial": {
                        "name": f"{running.trial.name} trial {proposal.id}",
                        "search": name,
                        "seed": running.trial.seed,
                        "folder": str(running.work),
                        "proposal": stored(proposal),
                    }
                }
        if all(running.search.finished for running in self._searches.values()):
            return Searcher.FINISHED  # type: ignore[return-value]
        return None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell a search what its trial answered, and keep its state."""
        if trial_id not in self._asked:
            self._processes += error  # a process that died before the first proposal
            return
        name, proposal = self._asked.pop(trial_id)
        if error or result is None:
            self._searches[name].search.retract(proposal)
            return
        try:
            self._take(name, proposal, result)
        except Exception as problem:  # e.g. a full disk
            self.error = problem

    def _take(self, name: str, proposal: str, result: Mapping[str, Any]) -> None:
        running = self._searches[name]
        answer = {
            key.removeprefix("answer/"): value
            for key, value in result.items()
            if key.startswith("answer/")
        }
        ended_round = running.tell(proposal, answer, result["seconds"])
        running.save()
        running.tidy(ended_round)
        if self._answered is not None:
            self._answered(proposal, result)
        if ended_round:
            self._round_ended(running)

    def _round_ended(self, running: Running) -> None:
        progress = running.progress
        for watcher in self._watchers:
            watcher.trial_progress(running.trial, progress.epoch, progress.metrics)
            if progress.finished:
                costs = {
                    "wall_seconds": progress.wall_seconds,
                    "device_seconds": progress.device_seconds,
                }
                watcher.trial_finished(running.trial, None, {**progress.metrics, **costs})

    def trial(self, name: str) -> Any:
        """What the watchers know a search as; None for a trial that only starts a process."""
        return self._searches[name].trial if name else None

    def save(self, checkpoint_path: str) -> None:
        """All searches' states; see `Searcher.save`."""
        states = {name: running.state() for name, running in self._searches.items()}
        save_whole(Path(checkpoint_path), states)

    def restore(self, checkpoint_path: str) -> None:
        """Go on from what `save` wrote."""
        for name, state in load(Path(checkpoint_path)).items():
            self._searches[name].take(state)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune's copy of the experiment is not used to continue a run."""
        return {}


class RoundEvents(Failures):
    """A trial that died is proposed again; the stage ends when one has too often.

    Tune's own way to retry is not used: it gives up on a trial whose kept process died before the
    trial came to it.
    """

    def __init__(self, searcher: AskAndTell, watchers: Sequence[Watcher[T]], retries: int) -> None:
        super().__init__(watchers, retries)
        self._searcher = searcher

    def ended(self, trial: Any, reason: str) -> None:
        """The trial's search has failed with it."""
        known = self._searcher.trial(trial.config["trial"].get("search", ""))
        for watcher in self._watchers if known else ():
            watcher.trial_finished(known, reason, {})

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The searcher, which was told before, proposes it again."""
        cause = cause_of(trial)
        if for_the_user(cause) or self.deaths(trial) >= self._retries:
            self.end(trial, cause)
        self.retried(trial, cause, "it is repeated")

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """See `AskAndTell.error`."""
        self.error = self.error or self._searcher.error
        if self.error is not None:
            raise self.error


def run_rounds(
    stage: str,
    searches: Mapping[str, TrialSearch],
    trials: Sequence[T],
    job: RoundsJob,
    *,
    folder: Path,
    before: Mapping[str, Progress],
    max_failures: int,
    at_once: int,
    watchers: Sequence[Watcher[T]] = (),
    answered: Answered | None = None,
) -> list[Outcome[T]]:
    """Run what is left of searches that are made of many trials; the outcomes as given.

    Ray has to be running. Each search's state is in `folder` after every trial, so that a run
    that was killed goes on with the answers that it had.

    Args:
        stage: its name, for the watchers.
        searches: by the ids of `trials`.
        trials: what each search is to the watchers; a round counts as an epoch.
        job: what their trials have in common, put into Ray's object store once.
        folder: where states go, on storage that all nodes see.
        before: what each search's preparation cost, by the same ids.
        max_failures: how often a trial that died is repeated.
        at_once: trials that may run at the same time.
        watchers: told what happens, on the driver.
        answered: see `AskAndTell`.

    Raises:
        TrialError: a trial cannot be carried out.
        Interrupted: on SIGUSR1; the stage can be continued by calling this again.
    """
    running = {
        t.id: _running(t, searches[t.id], job.share, folder, before[t.id], watchers) for t in trials
    }
    done = sum(one.search.finished for one in running.values())
    for watcher in watchers:
        watcher.stage_started(stage, len(trials), max(s.rounds for s in searches.values()), done)
        for one in running.values():
            if not one.search.finished:
                watcher.trial_started(one.trial)
    if done < len(running):
        searcher = AskAndTell(running, watchers, answered, processes=at_once)
        fit(
            stage,
            folder,
            ProposalTrainable,
            {"job": job},
            job.share,
            tune.TuneConfig(
                search_alg=ConcurrencyLimiter(searcher, max_concurrent=at_once),
                scheduler=KeepWorkers(at_once),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=_folder_name,
                trial_dirname_creator=_folder_name,
            ),
            RoundEvents(searcher, watchers, max_failures),
            retries=0,
            checkpoints=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        )
    if not all(one.search.finished for one in running.values()):
        raise Interrupted
    for watcher in watchers:
        watcher.stage_finished(stage)
    return [_outcome(running[trial.id]) for trial in trials]


def _running(
    trial: T,
    search: TrialSearch,
    share: Share,
    folder: Path,
    before: Progress,
    watchers: Sequence[Watcher[T]] = (),
) -> Running:
    progress = Progress(
        epochs=search.rounds,
        wall_seconds=before.wall_seconds,
        device_seconds=before.device_seconds,
    )
    equivalents = before.metrics.get("epoch_equivalents", 0.0)
    running = Running(search, trial, folder / ROUNDS / trial.id, equivalents, share, progress)
    running.work.mkdir(parents=True, exist_ok=True)
    running.load(watchers)
    return running


def _folder_name(trial: Any) -> str:
    given = trial.config["trial"]
    what = f"{given['search']}-{given['proposal']['id']}" if given.get("proposal") else "process"
    return f"{what}-{trial.trial_id}"


def _outcome(running: Running) -> Outcome[Any]:
    path = running.folder / POLICY
    write_whole(path, json.dumps(running.search.policy().to_json()).encode())
    return Outcome(running.trial, running.progress, path, None)
