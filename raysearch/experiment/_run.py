"""Carries an experiment out, from its start or from where it was, to its end."""

from __future__ import annotations

import contextlib
import logging
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from raysearch import engine, results
from raysearch.engine import Capacity, Interrupted, Wish
from raysearch.errors import RaysearchError
from raysearch.experiment._clock import Clock
from raysearch.experiment._describe import cautions, described
from raysearch.experiment._entries import Entries
from raysearch.experiment._first_picture import draw_first
from raysearch.experiment._folder import Folder, check_space
from raysearch.experiment._forecast import Forecast
from raysearch.experiment._measured import ended_trials, measured, reason
from raysearch.experiment._plan import Plan
from raysearch.experiment._quiet import quiet
from raysearch.experiment._signals import stop_on_signal
from raysearch.experiment._storage import AGAIN, copied, warning
from raysearch.results import Display, Measured, Tracker

SAME_COMMAND = "the same command copies again"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Done:
    """What an experiment has come to.

    Attributes:
        measured: all that was measured.
        summary: its figures, as `summary.json` holds them.
        failed: methods that could not go on; without them in the experiment.
    """

    measured: Measured
    summary: Mapping[str, Any]
    failed: Mapping[str, RaysearchError] = field(default_factory=dict)


class LeftOutError(RaysearchError):
    """Methods could not go on, and the experiment is without them.

    Attributes:
        expected: whether the user can mend all of it; see `engine.TrialError`.
    """

    def __init__(self, failed: Mapping[str, RaysearchError], folder: Folder) -> None:
        whose = "; ".join(f"{method}: {error}" for method, error in failed.items())
        super().__init__(
            f"left out of {folder.path}: {whose}; the same command tries again, with the same "
            "settings of these methods or with others"
        )
        self.expected = all(getattr(error, "expected", True) for error in failed.values())


def carry_out(
    plan: Plan,
    folder: Folder,
    wish: Wish,
    forecast: Forecast,
    *,
    quietly: bool = False,
    console: Console | None = None,
    others: Sequence[Measured] = (),
) -> Done:
    """Do what is left of an experiment: search, evaluate, and write what was found.

    A method that cannot go on is left out of a comparison; of a run it is the error.

    Args:
        plan: what is to be done.
        folder: where everything goes.
        wish: what of the machine or cluster to use.
        forecast: what it costs.
        quietly: show nothing but the result.
        console: where to show it; None is the terminal.
        others: other experiments that go on the same page.

    Raises:
        RaysearchError: it cannot start, a run's trial cannot go on, nothing is left of a
            comparison, or no trial can go on as the disk is full.
        Interrupted, KeyboardInterrupt: it was asked to stop, and can be continued.
    """
    experiment = plan.experiment
    check_space(folder.path, forecast.bytes_needed)
    folder.keep_data(plan.dataset)
    again = SAME_COMMAND if experiment.compared else AGAIN
    with (
        quiet(folder.log) as terminal,
        _shown(console := console or Console(file=terminal), quietly) as display,
        copied(
            experiment,
            folder.path,
            lambda: folder.begun,
            say=display.message,
            warn=display.warning,
            again=again,
        ),
    ):
        _log.info("experiment %s, settings: %s", folder.path, experiment.document())
        if said := warning(experiment):
            display.warning(said)
        try:
            with _tracked(plan, folder, display) as trackers, stop_on_signal():
                done = _compute(plan, folder, wish, forecast, display, trackers, others)
        except BaseException as error:
            _log.exception("the experiment ended early")
            stopped = isinstance(error, Interrupted) or not isinstance(error, Exception)
            with contextlib.suppress(OSError):  # a full disk must not hide the error
                folder.save(status="interrupted" if stopped else "failed")
            raise
        results.show(console, done.summary, quietly)
    return done


def _compute(
    plan: Plan,
    folder: Folder,
    wish: Wish,
    forecast: Forecast,
    display: Display,
    trackers: Mapping[str, Tracker],
    others: Sequence[Measured],
) -> Done:
    complete = [name for name in folder.complete if name in plan.parts]
    earlier = results.read(folder.path) if complete else None
    with (
        engine.cluster(wish, _stored_bytes(plan, forecast), folder.path) as capacity,
        stop_on_signal(),
    ):
        display.metric = plan.metric
        _say_what_is_to_come(plan, forecast, capacity, display)
        folder.save(status="running", device=capacity.device)
        if pictures := draw_first(plan, folder.path):
            display.message(f"images as they were read, and augmented: {pictures[0]}")
        entries = Entries(plan, folder, capacity, forecast.sizes)
        ended = engine.run(
            entries.first(complete),
            plan.dataset,
            folder=folder.trials,
            max_failures=plan.experiment.settings.search.max_failures,
            watchers=[display, *trackers.values(), Clock(folder)],
            ended=entries.ended,
        )
    folder.save()  # the seconds so far
    failed = dict(ended.failed)
    if failed and (not plan.experiment.compared or len(failed) == len(plan.parts)):
        folder.mark(failed, "failed")
        raise next(iter(failed.values())) if len(failed) == 1 else LeftOutError(failed, folder)
    for name, error in failed.items():
        display.warning(f"{name} is left out: {reason(error)}")
    places = {name: tracker.location() for name, tracker in trackers.items()}
    found = measured(plan, folder, entries, ended, earlier, places)
    for tracker in trackers.values():
        tracker.complete(ended_trials(ended, entries))
    if others:
        found = results.join(found.name, found.folder, [found, *others])
    summary = results.write(folder.path, found)
    _finish(plan, folder, trackers, failed, summary, display)
    folder.mark((name for name in plan.parts if name not in failed), "complete")
    folder.mark(failed, "failed")
    folder.save(status="failed" if failed else "complete")
    if failed:
        outcomes = ended.outcomes.items()
        folder.forget_trials(name for name, each in outcomes if each.entry.method not in failed)
    else:
        folder.forget_trials()
    return Done(found, summary, failed)


def _say_what_is_to_come(
    plan: Plan, forecast: Forecast, capacity: Capacity, display: Display
) -> None:
    display.message(described(plan, capacity.device))
    for note in plan.notes[len(plan.dataset.notes) :]:
        display.message(note)
    for caution in cautions(plan):
        display.warning(caution)
    if capacity.device == "cpu" and (advice := forecast.advice(min(plan.dataset.size))):
        display.warning(advice)


def _finish(
    plan: Plan,
    folder: Folder,
    trackers: Mapping[str, Tracker],
    failed: Mapping[str, RaysearchError],
    summary: Mapping[str, Any],
    display: Display,
) -> None:
    """End the runs of MLflow, and add the comparison of several to their experiment."""
    for name, tracker in trackers.items():
        if name in failed:
            tracker.finish(None, None, "FAILED")
        else:
            tracker.finish(summary, folder.path)
    if trackers and plan.experiment.compared:
        uri = plan.experiment.settings.tracking.uri
        results.log_comparison(summary, folder.path, uri, warn=display.warning)


@contextlib.contextmanager
def _shown(console: Console, quietly: bool) -> Iterator[Display]:
    """The display, closed at the end."""
    display = Display(console, quiet=quietly)
    try:
        yield display
    finally:
        display.close()


@contextlib.contextmanager
def _tracked(plan: Plan, folder: Folder, display: Display) -> Iterator[dict[str, Tracker]]:
    """A run of MLflow for each method, checked before anything is computed.

    They are told when the experiment does not end well.
    """
    experiment = plan.experiment
    settings = experiment.settings.tracking
    if not settings.enabled:
        yield {}
        return
    kept: dict[str, str] = folder.state.setdefault("mlflow", {})
    trackers: dict[str, Tracker] = {}
    try:
        for name, part in plan.parts.items():
            if name in folder.complete:
                continue
            trackers[name] = Tracker(
                settings.uri,
                settings.experiment,
                name if experiment.compared else folder.path.name,
                part.configuration.values,
                kept.get(name),
                method=name if experiment.compared else None,
                warn=display.warning,
            )
            kept[name] = trackers[name].run_id
            folder.save()
        yield trackers
    except BaseException as error:
        for tracker in trackers.values():
            tracker.finish(None, None, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise


def _stored_bytes(plan: Plan, forecast: Forecast) -> int:
    """What goes into Ray's object store: the data set, and files that proposals go on from."""
    buffers: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(plan.dataset, protocol=5, buffer_callback=buffers.append)
    return len(stream) + sum(buffer.raw().nbytes for buffer in buffers) + forecast.bytes_needed
