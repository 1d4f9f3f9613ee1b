"""A run from start to end, and from where it was to its end."""

from __future__ import annotations

import contextlib
import logging
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from rich.console import Console
from torch import Tensor

from raysearch.cli._compose import Configuration
from raysearch.cli._folder import RunFolder, check_space
from raysearch.cli._plan import Plan, merge, place_trials
from raysearch.cli._quiet import quiet
from raysearch.cli._signals import ending_in_peace, stop_on_sigterm
from raysearch.cli._stages import Ticks, keep_networks, run_trials, search
from raysearch.console import Display
from raysearch.data import Dataset, Split
from raysearch.policy import Policy, read_policy
from raysearch.report import write_report
from raysearch.tracking import Observer, Tracker, TrialInfo, TrialResult
from raysearch.tune import Interrupted, Job, Outcome, Wish, cluster, forget_trials

SAMPLES = 64  # images handed to the report, to show before and after
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A run that has been checked and can begin, or begin again.

    Attributes:
        folder: where everything goes.
        plan: its trials and their data.
        wish: what of the machine or cluster to use.
        bytes_needed: free space that it needs.
        quiet: show nothing but the result.
    """

    folder: RunFolder
    plan: Plan
    wish: Wish
    bytes_needed: int
    quiet: bool

    @property
    def configuration(self) -> Configuration:
        """The run's configuration."""
        return self.folder.configuration


def execute(run: Run) -> None:
    """Do what is left of a run: search, merge, evaluate, report.

    Raises:
        RaysearchError: it cannot start, or a trial cannot go on.
        Interrupted, KeyboardInterrupt: it was asked to stop, and can be continued.
    """
    folder = run.folder
    check_space(folder.path, run.bytes_needed)
    with quiet(folder.log) as terminal, _display(terminal, run.quiet) as display:
        _log.info("run %s, configuration: %s", folder.path, run.configuration.values)
        try:
            with _tracker(run, display) as tracker, ending_in_peace():
                summary = _stages(run, display, tracker)
                if tracker is not None:
                    tracker.finish(summary, folder.path)
        except BaseException as error:
            _log.exception("the run ended early")
            stopped = isinstance(error, Interrupted) or not isinstance(error, Exception)
            with contextlib.suppress(OSError):  # a full disk must not hide the error
                folder.save_state(status="interrupted" if stopped else "failed")
            raise
        folder.save_state(status="complete")
        forget_trials(folder.trials)
        display.result(summary)


@contextlib.contextmanager
def _display(terminal: TextIO, quietly: bool) -> Iterator[Display]:
    display = Display(Console(file=terminal), quiet=quietly)
    try:
        yield display
    finally:
        display.close()


@contextlib.contextmanager
def _tracker(run: Run, display: Display) -> Iterator[Tracker | None]:
    """MLflow, checked before anything is computed, and told when the run does not end well."""
    settings = run.configuration.settings.tracking
    if not settings.enabled:
        yield None
        return
    tracker = Tracker(
        settings.uri,
        settings.experiment,
        run.folder.path.name,
        run.configuration.values,
        run.folder.state.get("mlflow_run_id"),
        warn=display.warning,
    )
    run.folder.save_state(mlflow_run_id=tracker.run_id)
    try:
        yield tracker
    except BaseException as error:
        stopped = not isinstance(error, Exception)
        tracker.finish(None, None, "KILLED" if stopped else "FAILED")
        raise


def _stages(run: Run, display: Display, tracker: Tracker | None) -> dict[str, Any]:
    folder, plan = run.folder, run.plan
    observers: list[Observer] = [display, *([tracker] if tracker else []), Ticks(folder)]
    with cluster(run.wish, _store_bytes(run)) as capacity, ending_in_peace():
        stop_on_sigterm()
        places = place_trials(run.configuration, capacity)
        folder.save_state(status="running", device=capacity.device)
        folder.trials.mkdir(exist_ok=True)
        found = search(folder, plan, capacity.device, places, observers)
        policies = _keep_policies(folder.path, found)
        keep_networks(folder.path / "networks", found)
        learned = plan.known() or merge(policies)
        learned.save(folder.path / "policy.json")
        place = places["evaluation"]
        job = Job(plan.evaluation_job(capacity.device, learned), place.share)
        evaluated = run_trials(folder, plan, "evaluation", job, place.at_once, observers)
    return write_report(
        folder.path,
        name=folder.path.name,
        config=run.configuration.values,
        policy=learned,
        seed_policies=policies,
        search=[_result(outcome) for outcome in found],
        evaluations=[_result(outcome) for outcome in evaluated],
        samples=_samples(plan.dataset.train),
        classes=plan.dataset.classes,
        wall_seconds=_seconds(folder),
        tracking=tracker.location() if tracker else None,
        images=_counts(plan.dataset),
        predefined=asdict(plan.accompanying()),
        uniform=uniform.marginals() if (uniform := plan.uniform()) else None,
        row=plan.row(),
    )


def _keep_policies(folder: Path, found: Sequence[Outcome[TrialInfo]]) -> dict[int, Policy]:
    """Each search seed's own policy, by its seed; also as files."""
    policies: dict[int, Policy] = {}
    (folder / "policies").mkdir(exist_ok=True)
    for outcome in found:
        assert outcome.policy is not None
        policy = read_policy(outcome.policy)
        policy.save(folder / "policies" / f"seed-{outcome.trial.seed}.json")
        policies[outcome.trial.seed] = policy
    return policies


def _seconds(folder: RunFolder) -> dict[str, float]:
    """Wall time by stage; what a search begins with is a part of it."""
    seconds = dict(folder.state["seconds"])
    shared = seconds.pop("shared", 0.0)
    return {**seconds, "search": seconds.get("search", 0.0) + shared}


def _counts(data: Dataset) -> dict[str, int]:
    """How many images there are of each split, and how many could not be read."""
    return {
        "train": len(data.train),
        "val": 0 if data.val is None else len(data.val),
        "test": len(data.test),
        "skipped": data.skipped,
    }


def _samples(split: Split) -> Tensor:
    """Some images of the train split, uint8 [N, C, H, W]."""
    images, _ = next(split.batches(SAMPLES, device=torch.device("cpu"), generator=None))
    return images


def _store_bytes(run: Run) -> int:
    """What goes into Ray's object store: the data set for every stage, and shared checkpoints."""
    return 3 * _data_bytes(run.plan) + run.bytes_needed


def _data_bytes(plan: Plan) -> int:
    """What the data set takes there."""
    buffers: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(plan.dataset, protocol=5, buffer_callback=buffers.append)
    return len(stream) + sum(buffer.raw().nbytes for buffer in buffers)


def _result(outcome: Outcome[TrialInfo]) -> TrialResult:
    progress = outcome.progress
    return TrialResult(
        trial=outcome.trial,
        history=progress.history,
        metrics=progress.metrics,
        wall_seconds=progress.wall_seconds,
        device_seconds=progress.device_seconds,
        epoch_equivalents=progress.metrics.get("epoch_equivalents", 0.0),
    )
