"""The stages of a run: what is searched, and what is evaluated."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from raysearch.cli._folder import RunFolder
from raysearch.cli._plan import Place, Plan
from raysearch.files import write_whole
from raysearch.states import load, save_whole
from raysearch.tracking import Observer, TrialInfo
from raysearch.tune import (
    Job,
    MembersJob,
    Outcome,
    Progress,
    RoundsJob,
    run_populations,
    run_rounds,
    run_stage,
)

Outcomes = list[Outcome[TrialInfo]]


@dataclass(frozen=True)
class Searched:
    """The trials that have searched.

    Attributes:
        trials: one for each seed, also where a search is made of many.
        shared: what trained the checkpoints with which they begin, where that is the run's.
    """

    trials: Outcomes
    shared: Outcomes = field(default_factory=list)


def search(
    folder: RunFolder,
    plan: Plan,
    device: str,
    places: Mapping[str, Place],
    observers: Sequence[Observer],
) -> Searched:
    """The search of every seed, by a trial each, by many or by a population; what it found.

    Raises:
        RaysearchError: a trial cannot go on, or what was kept of a search is damaged.
        Interrupted: on SIGUSR1; another call goes on.
    """
    if plan.members is not None:
        return Searched(_populations(folder, plan, device, places["search"], observers))
    cls, place = plan.trial_search, places["search"]
    job = Job(plan.search_job(device), place.share)
    if cls is None or not plan.search:
        return Searched(run_trials(folder, plan, "search", job, place.at_once, observers))
    shared = run_trials(folder, plan, "shared", job, place.at_once, observers)
    prepared, costs = _prepare(folder, plan, shared)
    place, method = places[plan.trials_group], plan.configuration.values["method"]
    training = plan.training(_parallel(folder, plan, place))
    stored = {seed: ray.put(checkpoint) for seed, checkpoint in prepared.items()}
    searches = {trial.id: cls(trial.seed, method, training) for trial in plan.search}
    for one in searches.values():
        one.keep_record(folder.path)
    with _clock(folder, "search"):
        trials = run_rounds(
            "search",
            searches,
            plan.search,
            RoundsJob(plan.worker_job(device, training, stored), place.share),
            folder=folder.trials,
            before=costs,
            max_failures=plan.configuration.settings.search.max_failures,
            at_once=place.at_once,
            watchers=observers,
        )
    return Searched(trials, shared)


def _populations(
    folder: RunFolder,
    plan: Plan,
    device: str,
    place: Place,
    observers: Sequence[Observer],
) -> Outcomes:
    """Searches by populations."""
    with _clock(folder, "search"):
        return run_populations(
            "search",
            plan.populations,
            plan.search,
            MembersJob(plan.member_job(device), place.share),
            folder=folder.trials,
            max_failures=plan.configuration.settings.search.max_failures,
            at_once=place.at_once,
            watchers=observers,
        )


def run_trials(
    folder: RunFolder,
    plan: Plan,
    stage: str,
    job: Job,
    at_once: int,
    observers: Sequence[Observer],
) -> Outcomes:
    """A stage whose trials are known beforehand."""
    trials = {"shared": plan.shared, "search": plan.search, "evaluation": plan.evaluation}[stage]
    if not trials:
        return []
    settings = plan.configuration.settings
    with _clock(folder, stage):
        return run_stage(
            stage,
            trials,
            job,
            folder=folder.trials,
            epochs=(settings.evaluation if stage == "evaluation" else settings.search).epochs,
            max_failures=settings.search.max_failures,
            at_once=at_once,
            watchers=observers,
        )


def _prepare(
    folder: RunFolder, plan: Plan, found: Outcomes
) -> tuple[dict[int, Mapping[str, Any]], dict[str, Progress]]:
    """What the workers start from, by seed; what it cost, by the search trials' ids."""
    progress = {outcome.trial.seed: outcome.progress for outcome in found}
    prepared = dict(plan.given)
    kept = folder.path / "shared"
    if prepared or found:
        kept.mkdir(exist_ok=True)
    for seed, path in keep_networks(kept, found).items():
        prepared[seed] = load(path)
    for seed, checkpoint in plan.given.items():  # its arithmetic counts, its time was another's
        if not (path := kept / f"seed-{seed}.pt").exists():
            save_whole(path, checkpoint)
        metrics = {"epoch_equivalents": checkpoint["metrics"]["epoch_equivalents"]}
        progress[seed] = Progress(epochs=1, epoch=1, history=[metrics])
    nothing = Progress(epochs=1)
    return prepared, {trial.id: progress.get(trial.seed, nothing) for trial in plan.search}


def keep_networks(folder: Path, found: Outcomes) -> dict[int, Path]:
    """What the trials trained, where that is a result, as files by seed."""
    kept: dict[int, Path] = {}
    for outcome in found:
        if outcome.network is not None:
            folder.mkdir(exist_ok=True)
            kept[outcome.trial.seed] = path = folder / f"seed-{outcome.trial.seed}.pt"
            write_whole(path, outcome.network.read_bytes())
    return kept


def _parallel(folder: RunFolder, plan: Plan, place: Place) -> int:
    """Trials in a round; a resumed run keeps its own."""
    kept = folder.state.get("parallel")
    if kept is None:
        kept = plan.parallel(place.at_once)
        folder.save_state(parallel=kept)
    return int(kept)


class Ticks:
    """Keeps a run's time up to date while its trials report; an `Observer`.

    Args:
        folder: the run's.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def stage_started(self, stage: str, trials: int, epochs: int, resumed: int = 0) -> None:
        """Nothing: the stage's clock is running."""

    def trial_started(self, trial: TrialInfo) -> None:
        """See `RunFolder.tick`."""
        self._folder.tick()

    def trial_progress(self, trial: TrialInfo, epoch: int, metrics: Mapping[str, float]) -> None:
        """See `RunFolder.tick`."""
        self._folder.tick()

    def trial_finished(
        self, trial: TrialInfo, error: str | None, metrics: Mapping[str, float]
    ) -> None:
        """See `RunFolder.tick`."""
        self._folder.tick()

    def message(self, text: str) -> None:
        """Nothing to count."""

    def stage_finished(self, stage: str) -> None:
        """Nothing: whoever started the clock stops it."""


@contextlib.contextmanager
def _clock(folder: RunFolder, stage: str) -> Iterator[None]:
    """Count the stage's time, whatever its end."""
    folder.begin_stage(stage)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            folder.end_stage()
        raise
    folder.end_stage()
