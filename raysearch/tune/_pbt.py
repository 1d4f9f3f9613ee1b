"""A stage of searches by populations, on Ray's Population Based Training."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.train._internal.session import _TrainingResult
from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler
from ray.tune.search import BasicVariantGenerator

from raysearch.methods import Population
from raysearch.tune._checkpoints import POLICY
from raysearch.tune._members import MembersJob, MemberTrainable
from raysearch.tune._observe import Failures, T, Watcher, cause_of, for_the_user
from raysearch.tune._population import Search, Start
from raysearch.tune._processes import KeepWorkers, process_trial
from raysearch.tune._stage import Interrupted, Outcome, fit, trial_id

POPULATIONS = "populations"  # folder of the searches' states and their members' checkpoints


class Synchronous(KeepWorkers, PopulationBasedTraining):
    """Ray's Population Based Training in its synchronous mode, repeatable.

    Who copies whom and how it goes on then are the population's rules, which depend on the seed,
    the epoch and the scores, and of equal scores that of the later member counts as higher. A
    result comes with a checkpoint on disk, from which the member, or one that copies it, goes on:
    nothing is saved while others wait, and a member that has ended an interval leaves its process
    at once to another.

    Args:
        search: the population.
        at_once: members that may train at the same time.

    Attributes:
        error: why the search cannot go on; Tune would take it for a trial's.
    """

    def __init__(self, search: Search, at_once: int) -> None:
        rules = search.rules
        super().__init__(
            at_once,
            time_attr="epoch",
            metric=MemberTrainable.metric,
            mode="max",
            perturbation_interval=rules.interval,
            quantile_fraction=rules.quantile,
            custom_explore_fn=self._explored,
            log_config=False,
            synch=True,
        )
        self._search, self._at_once = search, at_once
        self._next_perturbation_sync = search.progress.epoch + rules.interval
        self._members: dict[int, Trial] = {}
        self._copying = 0  # the member that copies just now
        self._epoch = 0  # after which it does
        self.error: Exception | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune's copy of the experiment is not used to continue a run."""
        return {}

    @property
    def room(self) -> int:
        """How many more trials may run now."""
        active = (Trial.PENDING, Trial.RUNNING)
        return self._at_once - sum(trial.status in active for trial in self._trial_state)

    @property
    def finished(self) -> bool:
        """Whether the search has ended."""
        return self._search.progress.finished

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """A member begins where it is; nobody waits for a trial that only starts a process."""
        super().on_trial_add(tune_controller, trial)
        state, member = self._trial_state[trial], _member(trial)
        if member is None:
            state.last_train_time = math.inf  # type: ignore[assignment]
        else:
            self._members[member] = trial
            state.last_train_time = state.last_perturbation_time = self._search.progress.epoch

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The next member, where there is room for one."""
        if self.room <= 0:
            return None
        chosen: Trial | None = super().choose_trial_to_run(tune_controller)
        return chosen

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Let the process go; after the interval's last result, exploit and explore."""
        if _member(trial) is None:
            return super().on_trial_result(tune_controller, trial, result)
        try:
            return self._ended_interval(tune_controller, trial, result)
        except Exception as problem:  # e.g. a full disk
            self.error = problem
            return str(TrialScheduler.NOOP)

    def _ended_interval(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        self._take(trial, result)
        checkpoint = tune.Checkpoint.from_directory(result["folder"])
        kept = trial.run_metadata.checkpoint_manager
        assert kept is not None
        kept.register_checkpoint(_TrainingResult(checkpoint, result))
        tune_controller.pause_trial(trial, should_checkpoint=False)
        if len(self._members) < self._search.rules.size:  # others have not begun
            self._save_trial_state(self._trial_state[trial], result["epoch"], result, trial)
            return str(TrialScheduler.NOOP)
        self._epoch = result["epoch"]
        decision = super().on_trial_result(tune_controller, trial, result)
        if self._search.synchronised:
            self._next_perturbation_sync = self._epoch + self._search.rules.interval
            self._search.synchronise([self._start(member) for member in sorted(self._members)])
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """After the last member's last interval, end the search."""
        super().on_trial_complete(tune_controller, trial, result)
        if _member(trial) is None:
            return
        try:
            self._take(trial, result)
            if self._search.synchronised:
                self._search.synchronise([])
        except Exception as problem:
            self.error = problem

    def _take(self, trial: Trial, result: dict[str, Any]) -> None:
        self._search.results[trial.config["trial"]["member"]] = result

    def _start(self, member: int) -> Start:
        """From where a member goes on, whether it was its own or has been copied."""
        trial = self._members[member]
        assert trial.checkpoint is not None
        checkpoint = Path(trial.checkpoint.path).relative_to(self._search.folder)
        return Start(trial.config["trial"]["policy"], str(checkpoint))

    def _checkpoint_or_exploit(
        self, trial: Trial, tune_controller: Any, upper_quantile: Any, lower_quantile: Any
    ) -> None:
        """Ray draws whom to copy from all processes' random numbers: leave it one."""
        if trial in lower_quantile:
            self._copying = trial.config["trial"]["member"]
            best = [one.config["trial"]["member"] for one in upper_quantile]
            chosen = self._search.rules.choose(best, self._copying, self._epoch)
            upper_quantile = [self._members[chosen]]
        super()._checkpoint_or_exploit(trial, tune_controller, upper_quantile, lower_quantile)

    def _get_new_config(self, trial: Trial, trial_to_clone: Trial) -> tuple[dict[str, Any], Any]:
        """What is copied is the policy, explored; the member stays who it is."""
        config, operations = super()._get_new_config(trial, trial_to_clone)
        own = {**trial.config["trial"], "policy": config["trial"]["policy"]}
        return {"trial": own}, operations

    def _explored(self, config: dict[str, Any]) -> dict[str, Any]:
        given = config["trial"]
        policy = self._search.rules.explore(given["policy"], self._copying, self._epoch)
        return {"trial": {**given, "policy": policy}}


def _member(trial: Trial) -> int | None:
    """A trial's member; None where it only starts a process."""
    member: int | None = trial.config["trial"].get("member")
    return member


class MemberTrials(BasicVariantGenerator):
    """Hands Tune the members one by one, as room is made for them.

    Tune keeps processes for later trials only as long as more may come, so more may until the
    search has ended.

    Args:
        scheduler: knows how much room there is.
    """

    def __init__(self, scheduler: Synchronous) -> None:
        super().__init__()
        self._scheduler = scheduler

    def next_trial(self) -> Trial | None:
        """The next member, where there is room for one."""
        if self._scheduler.room <= 0:
            return None
        trial: Trial | None = super().next_trial()  # type: ignore[no-untyped-call]
        return trial

    def is_finished(self) -> bool:
        """Whether the search has ended."""
        return super().is_finished() and self._scheduler.finished

    def save_to_dir(self, dirpath: str, session_str: str = "", **kwargs: Any) -> None:
        """Nothing: Tune's copy of the experiment is not used to continue a run."""


class Again(Exception):
    """A member died: the population goes on from where it last synchronised."""


class MemberEvents(Failures):
    """A member that died ends Tune's experiment; another goes on from the last synchronisation.

    Tune's own way to retry is not used: it gives up on a member whose kept process died before
    the member came to it, and members that died would be compared too early.
    """

    scheduler: Synchronous

    def __init__(self, search: Search, watchers: Sequence[Watcher[T]], retries: int) -> None:
        super().__init__(watchers, retries)
        self._search = search

    def ended(self, trial: Any, reason: str) -> None:
        """The search has failed with its member."""
        for watcher in self._watchers:
            watcher.trial_finished(self._search.trial, reason, {})

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """See `Again`."""
        cause = cause_of(trial)
        if for_the_user(cause) or self.deaths(trial) >= self._retries:
            self.end(trial, cause)
        epoch = self._search.progress.epoch
        self.retried(trial, cause, f"the population goes on from epoch {epoch}")
        self.error = Again()
        raise self.error

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """See `Synchronous.error`."""
        self.error = self.error or self.scheduler.error
        if self.error is not None:
            raise self.error


def run_populations(
    stage: str,
    populations: Mapping[str, Population],
    trials: Sequence[T],
    job: MembersJob,
    *,
    folder: Path,
    max_failures: int,
    at_once: int,
    watchers: Sequence[Watcher[T]] = (),
) -> list[Outcome[T]]:
    """Run what is left of searches by populations, one after the other; the outcomes as given.

    Ray has to be running. The result does not depend on how many members train at once, nor on
    interruptions.

    Args:
        stage: its name, for the watchers.
        populations: the rules, by the ids of `trials`.
        trials: what each search is to the watchers.
        job: what the members have in common, put into Ray's object store once.
        folder: where states and checkpoints go, on storage that all nodes see.
        max_failures: how often a member that died is repeated.
        at_once: members that may train at the same time.
        watchers: told what happens, on the driver.

    Raises:
        TrialError: a member cannot go on.
        Interrupted: on SIGUSR1; the stage can be continued by calling this again.
    """
    base = folder.resolve() / POPULATIONS
    searches = [Search(populations[t.id], t, base / t.id, watchers) for t in trials]
    for search in searches:
        search.load()
    done = sum(search.progress.finished for search in searches)
    for watcher in watchers:
        epochs = max(rules.epochs for rules in populations.values())
        watcher.stage_started(stage, len(trials), epochs, done)
    if done < len(searches) and not isinstance(job.build, ray.ObjectRef):
        job = replace(job, build=ray.put(job.build))
    for search in searches:
        if not search.progress.finished:
            for watcher in watchers:
                watcher.trial_started(search.trial)
            events = MemberEvents(search, watchers, max_failures)
            _run(stage, search, job, folder, min(at_once, search.rules.size), events)
    for watcher in watchers:
        watcher.stage_finished(stage)
    return [Outcome(s.trial, s.progress, s.folder / POLICY, None) for s in searches]


def _run(
    stage: str, search: Search, job: MembersJob, folder: Path, at_once: int, events: MemberEvents
) -> None:
    """One search, to its end."""
    search.marked = time.monotonic()
    while not search.progress.finished:
        scheduler = events.scheduler = Synchronous(search, at_once)
        events.error = None
        todo = [*map(process_trial, range(at_once)), *search.trials()]
        try:
            fit(
                stage,
                folder,
                MemberTrainable,
                {"job": job},
                job.share,
                tune.TuneConfig(
                    search_alg=MemberTrials(scheduler),
                    scheduler=scheduler,
                    reuse_actors=True,
                    trial_name_creator=trial_id,
                    trial_dirname_creator=trial_id,
                ),
                events,
                retries=0,
                checkpoints=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                space={"trial": tune.grid_search(todo)},
            )
        except Again:
            search.load()
            continue
        if not search.progress.finished:
            raise Interrupted
