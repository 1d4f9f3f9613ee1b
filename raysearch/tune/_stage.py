"""One stage of a run on Ray Tune: its trials, packed on what the cluster has."""

from __future__ import annotations

import logging
import shutil
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from ray import tune

from raysearch.tune._checkpoints import NETWORK, POLICY, Progress, newest_checkpoint
from raysearch.tune._observe import Events, Failures, T, Watcher
from raysearch.tune._processes import StartAll
from raysearch.tune._trainable import EvaluationTrainable, Job, SearchTrainable, SharesJob

TRAINABLES = {
    "shared": SearchTrainable,
    "search": SearchTrainable,
    "evaluation": EvaluationTrainable,
}


class Interrupted(Exception):
    """The stage was asked to stop (Ctrl-C) and has kept its state."""


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
    job: Job,
    *,
    folder: Path,
    epochs: int,
    max_failures: int,
    at_once: int | None = None,
    watchers: Sequence[Watcher[T]] = (),
    trainable: type[tune.Trainable] | None = None,
) -> list[Outcome[T]]:
    """Run what is left of a stage's trials and return all of them in the order given.

    Ray has to be running. Trials whose checkpoints in `folder` say that they have finished are
    not run again, others go on from their newest one.

    Args:
        stage: "shared" (what a search of many trials begins with), "search" or "evaluation".
        trials: what to run; ids are unique and fit as names of folders.
        job: what they have in common, put into Ray's object store once.
        folder: where checkpoints go, on storage that all nodes see.
        epochs: epochs of each trial, for the watchers.
        max_failures: how often a trial that died is retried from its last checkpoint.
        at_once: trials that may run at the same time, where the cluster has room for more than
            the run may take; None is as many as fit.
        watchers: told what happens, on the driver.
        trainable: instead of the stage's own.

    Raises:
        TrialError: a trial cannot go on; the message names it and its last good checkpoint.
        Interrupted: on SIGINT; the stage can be continued by calling this again.
    """
    found = {trial.id: newest_checkpoint(folder, stage, trial.id) for trial in trials}
    left = [t for t in trials if not ((kept := found[t.id]) and kept[1].finished)]
    for watcher in watchers:
        watcher.stage_started(stage, len(trials), epochs, len(trials) - len(left))
    if left:
        starts = {t.id: str(kept[0]) if (kept := found[t.id]) else None for t in left}
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
            trainable or TRAINABLES[stage],
            job,
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


def fit(
    stage: str,
    folder: Path,
    trainable: type[tune.Trainable],
    job: SharesJob,
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
        trainable: what a trial is; its `setup` is given the job.
        job: put into Ray's object store once.
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
        tune.with_resources(
            tune.with_parameters(trainable, job=job),
            {"cpu": job.share.cpus, "gpu": job.share.gpus},
        ),
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
    handler = signal.getsignal(signal.SIGINT)
    try:
        tuner.fit()
    except Exception:
        if events.error is None:
            raise
    finally:  # Tune leaves its own behind, which swallows the next Ctrl-C
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
    if events.error is not None:
        raise events.error


def trial_id(trial: Any) -> str:
    """What a trial, and its folder, are called in Tune."""
    return str(trial.config["trial"]["id"])


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
