"""One stage of a run on Ray Tune: its trials, packed on what the cluster has."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from ray import tune

from raysearch.tune._checkpoints import (
    NETWORK,
    POLICY,
    Progress,
    damaged_checkpoints,
    newest_checkpoint,
)
from raysearch.tune._observe import Events, Failures, T, Watcher, say_damaged
from raysearch.tune._processes import StartAll
from raysearch.tune._trainable import Job, Share, WorkTrainable


class Interrupted(Exception):
    """Tune was asked to stop the stage, whose state is kept."""


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """A finished trial.

    Attributes:
        trial: which.
        progress: its history, its final metrics and its seconds.
        policy: what it found, as JSON; None for an evaluation.
        network: what it trained, where that is a result of a search or a shared checkpoint.
    """

    trial: T
    progress: Progress
    policy: Path | None
    network: Path | None


def run_stage(
    stage: str,
    trials: Sequence[T],
    job: Job | Mapping[str, Job],
    *,
    folder: Path,
    epochs: int,
    max_failures: int,
    at_once: int | None = None,
    watchers: Sequence[Watcher[T]] = (),
) -> list[Outcome[T]]:
    """Run what is left of a stage's trials and return all of them in the order given.

    Ray has to be running. Trials whose checkpoints in `folder` say that they have finished are
    not run again, others go on from their newest one.

    Args:
        stage: "shared" (what a search of many trials begins with), "search" or "evaluation".
        trials: what to run; ids are unique and fit as names of folders.
        job: what they have in common, or that of each by its id; put into Ray's object store once.
        folder: where checkpoints go, on storage that all nodes see.
        epochs: epochs of each trial, for the watchers.
        max_failures: how often a trial that died is retried from its last checkpoint.
        at_once: trials that may run at the same time, where the cluster has room for more than
            the run may take; None is as many as fit.
        watchers: told what happens, on the driver.

    Raises:
        TrialError: a trial cannot go on; the message names it and its last good checkpoint.
        Interrupted: on SIGUSR1; the stage can be continued by calling this again.
    """
    jobs = job if isinstance(job, Mapping) else dict.fromkeys((t.id for t in trials), job)
    found = _newest(stage, trials, folder)
    left = _left(trials, found)
    for watcher in watchers:
        watcher.stage_started(stage, len(trials), epochs, len(trials) - len(left))
    if left:
        starts = {t.id: str(kept[0]) if (kept := found[t.id]) else None for t in left}
        for trial in left:
            _say_what_is_damaged(stage, trial, folder, found[trial.id], watchers)
        todo = [
            {
                "id": t.id,
                "name": t.name,
                "policy": t.policy,
                "seed": t.seed,
                "checkpoint": starts[t.id],
            }
            for t in left
        ]
        fit(
            stage,
            folder,
            WorkTrainable,
            {"jobs": jobs},
            {t.id: jobs[t.id].share for t in left},
            tune.TuneConfig(
                reuse_actors=True,
                max_concurrent_trials=at_once,
                scheduler=StartAll(),  # type: ignore[no-untyped-call]
                trial_name_creator=trial_id,
                trial_dirname_creator=trial_id,
            ),
            Events(left, watchers, max_failures),
            retries=max_failures,
            checkpoints=tune.CheckpointConfig(
                num_to_keep=2, checkpoint_frequency=1, checkpoint_at_end=True
            ),
            space={"trial": tune.grid_search(todo)},
        )
    outcomes = [_outcome(stage, trial, folder) for trial in trials]
    for watcher in watchers:
        watcher.stage_finished(stage)
    return outcomes


def unfinished(stage: str, trials: Sequence[T], folder: Path) -> list[T]:
    """Those of a stage's trials whose checkpoints do not say that they have finished."""
    return _left(trials, _newest(stage, trials, folder))


Kept = tuple[Path, Progress]  # a checkpoint, and how far it is


def _newest(stage: str, trials: Sequence[T], folder: Path) -> dict[str, Kept | None]:
    return {trial.id: newest_checkpoint(folder, stage, trial.id) for trial in trials}


def _left(trials: Sequence[T], found: Mapping[str, Kept | None]) -> list[T]:
    return [t for t in trials if not ((kept := found[t.id]) and kept[1].finished)]


def fit(
    stage: str,
    folder: Path,
    trainable: type[tune.Trainable],
    parameters: Mapping[str, Any],
    share: Share | Mapping[str, Share],
    tune_config: tune.TuneConfig,
    events: Failures,
    *,
    retries: int,
    checkpoints: tune.CheckpointConfig,
    space: dict[str, Any] | None = None,
) -> None:
    """Let Tune run trials, in the order given as far as resources allow.

    Args:
        stage, folder: see `run_stage`.
        trainable: what a trial is.
        parameters: given to its `setup`; put into Ray's object store once.
        share: what each trial holds, or what each does by its id.
        tune_config, checkpoints, space: Tune's.
        events: told what happens to the trials.
        retries: of a trial, by Tune.

    Raises:
        TrialError, Exception: what `events` says of a trial that cannot go on, or of the driver.
    """
    # It misses the result files whose writing is disabled; histories are in the checkpoints.
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
    attempt = 1 + len(list(folder.glob(f"{stage}-*")))
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(trainable, **parameters), _resources(share)),
        param_space=space or {},
        tune_config=tune_config,
        run_config=tune.RunConfig(
            name=f"{stage}-{attempt}",
            storage_path=str(folder.resolve()),
            verbose=0,
            callbacks=[events],
            failure_config=tune.FailureConfig(max_failures=retries),
            checkpoint_config=checkpoints,
        ),
    )
    try:
        tuner.fit()
    except Exception:
        if events.error is None:
            raise
    if events.error is not None:
        raise events.error


def _resources(
    share: Share | Mapping[str, Share],
) -> tune.PlacementGroupFactory | Callable[[dict[str, Any]], tune.PlacementGroupFactory]:
    """What Tune is to reserve for a trial."""
    if not isinstance(share, Mapping):
        return _bundle(share)
    bundles = {trial: _bundle(each) for trial, each in share.items()}
    first = next(iter(bundles.values()))
    if all(bundle == first for bundle in bundles.values()):
        return first  # and nothing of ours for Ray's processes to import
    return lambda config: bundles[config["trial"]["id"]]


def _bundle(share: Share) -> tune.PlacementGroupFactory:
    return tune.PlacementGroupFactory([{"CPU": share.cpus, "GPU": share.gpus}])


def trial_id(trial: Any) -> str:
    """What a trial, and its folder, are called in Tune."""
    return str(trial.config["trial"]["id"])


def _say_what_is_damaged(
    stage: str,
    trial: T,
    folder: Path,
    kept: tuple[Path, Progress] | None,
    watchers: Sequence[Watcher[T]],
) -> None:
    """Tell the watchers what a continued trial cannot go on from, and what it does instead."""
    path = kept[0] if kept else None
    for damaged in damaged_checkpoints(folder, stage, trial.id, path):
        say_damaged(trial.name, damaged, str(path) if path else "its start", watchers)


def _outcome(stage: str, trial: T, folder: Path) -> Outcome[T]:
    kept = newest_checkpoint(folder, stage, trial.id)
    if kept is None or not kept[1].finished:
        raise Interrupted
    path, progress = kept
    policy, network = (
        file if (file := path / name).exists() else None for name in (POLICY, NETWORK)
    )
    return Outcome(trial, progress, policy, network)


def forget_trials(folder: Path) -> None:
    """Remove all checkpoints, once the results have been written elsewhere."""
    shutil.rmtree(folder, ignore_errors=True)
