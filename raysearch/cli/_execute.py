"""A run from start to end, and from where it was to its end."""

from __future__ import annotations

import contextlib
import logging
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TextIO

from rich.console import Console

from raysearch.cli._compose import Configuration
from raysearch.cli._folder import RunFolder, check_space
from raysearch.cli._plan import Plan, place_trials
from raysearch.cli._quiet import quiet
from raysearch.cli._results import report, settle
from raysearch.cli._signals import ending_in_peace, stop_on_sigterm
from raysearch.cli._stages import Ticks, run_trials, search
from raysearch.cli._storage import copied, warning
from raysearch.console import Display
from raysearch.tracking import Observer, Tracker
from raysearch.tune import Interrupted, Job, Wish, cluster, forget_trials

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
    folder.keep_data(run.plan.dataset)
    with (
        quiet(folder.log) as terminal,
        shown(terminal, run.quiet) as display,
        copied(
            run.configuration,
            folder.path,
            lambda: folder.begun,
            say=display.message,
            warn=display.warning,
        ),
    ):
        _log.info("run %s, configuration: %s", folder.path, run.configuration.values)
        if said := warning(run.configuration):
            display.warning(said)
        try:
            with tracked(run, display) as tracker, ending_in_peace():
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
def shown(terminal: TextIO, quietly: bool) -> Iterator[Display]:
    """The display, closed at the end."""
    display = Display(Console(file=terminal), quiet=quietly)
    try:
        yield display
    finally:
        display.close()


@contextlib.contextmanager
def tracked(run: Run, display: Display) -> Iterator[Tracker | None]:
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
        tracker.finish(None, None, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise


def _stages(run: Run, display: Display, tracker: Tracker | None) -> dict[str, Any]:
    folder, plan = run.folder, run.plan
    observers: list[Observer] = [display, *([tracker] if tracker else []), Ticks(folder)]
    store = stored_bytes(plan, run.bytes_needed)
    with cluster(run.wish, store, folder.path) as capacity, ending_in_peace():
        stop_on_sigterm()
        display.message(described(plan, capacity.device))
        for said in cautions(plan):
            display.warning(said)
        places = place_trials(run.configuration, capacity)
        folder.save_state(status="running", device=capacity.device)
        folder.trials.mkdir(exist_ok=True)
        found = settle(folder, plan, search(folder, plan, capacity.device, places, observers))
        place = places["evaluation"]
        job = Job(plan.evaluation_job(capacity.device, found.learned), place.share)
        evaluated = run_trials(folder, plan, "evaluation", job, place.at_once, observers)
    return report(folder, plan, found, evaluated, tracker)


def described(plan: Plan, device: str) -> str:
    """What a run has to do with, in a line."""
    data, settings = plan.dataset, plan.configuration.settings
    images = data.counts
    return (
        f"{data.name}: {images['train'] + images['val']} images to train on, {images['test']} to "
        f"test, {len(data.classes)} classes; {settings.model.name} on {device}"
    )


def cautions(plan: Plan) -> list[str]:
    """What a run can do and should not, in words: trainings with a step or none an epoch."""
    settings, counts = plan.configuration.settings.evaluation, plan.dataset.counts
    images = counts["train"] + counts["val"]
    if images >= 2 * settings.batch_size:
        return []
    return [
        f"an epoch of {images} images is one step with evaluation.batch_size="
        f"{settings.batch_size}, {settings.epochs} in a training: smaller batches "
        f"(evaluation.batch_size={max(8, images // 8)} search.batch_size={max(8, images // 16)}) "
        "learn more from so few"
    ]


def stored_bytes(plan: Plan, files: int, stages: int = 3) -> int:
    """What goes into Ray's object store: the data set for every stage, and shared checkpoints.

    Args:
        plan: whose data set it is.
        files: bytes that the run needs on disk.
        stages: that it has at most.
    """
    buffers: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(plan.dataset, protocol=5, buffer_callback=buffers.append)
    return stages * (len(stream) + sum(buffer.raw().nbytes for buffer in buffers)) + files
