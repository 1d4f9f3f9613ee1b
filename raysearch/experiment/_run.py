"""Carries an experiment out, from its start or from where it was, to its end."""

from __future__ import annotations

import contextlib
import logging
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from raysearch import engine, results
from raysearch.engine import Capacity, Interrupted, TrialError
from raysearch.errors import RaysearchError, SearchFailedError
from raysearch.experiment._clock import Clock
from raysearch.experiment._describe import cautions, described
from raysearch.experiment._entries import Entries
from raysearch.experiment._first_picture import draw_first
from raysearch.experiment._folder import LOG, Folder, check_space, create
from raysearch.experiment._forecast import Forecast
from raysearch.experiment._measured import ended_trials, measured, reason
from raysearch.experiment._plan import Plan
from raysearch.experiment._quiet import quiet
from raysearch.experiment._result import Result
from raysearch.experiment._signals import stop_on_signal
from raysearch.experiment._storage import copied, warning
from raysearch.results import Display, Tracker

if TYPE_CHECKING:
    from raysearch.experiment._session import Session

_log = logging.getLogger(__name__)


class LeftOutError(RaysearchError):
    """Methods could not go on, and the experiment is without them.

    Attributes:
        expected: whether the user can mend all of it; see `engine.TrialError`.
    """

    def __init__(self, failed: Mapping[str, RaysearchError], folder: Path) -> None:
        whose = "; ".join(f"{method}: {error}" for method, error in failed.items())
        diverged = [name for name, error in failed.items() if isinstance(error, SearchFailedError)]
        super().__init__(
            f"left out of {folder}: {whose}; the same command tries again"
            + (f" ({', '.join(diverged)}: only other settings help)" if diverged else "")
        )
        self.expected = all(getattr(error, "expected", True) for error in failed.values())


def begin(session: Session, *, again: str | None = None, quietly: bool = False) -> Result:
    """Do what is left of an experiment: search, evaluate, and write what was found.

    A method that cannot go on by itself is left out of a comparison; of a run it is the error.

    Args:
        session: what is to be done; its folder is let go of.
        again: what continues it when it was stopped; None is what does so on the command line.
        quietly: show nothing but the result.

    Raises:
        RaysearchError: it cannot start, a run's trial cannot go on, nothing is left of a
            comparison, or a person has to mend something first; see `engine.run`.
        KeyboardInterrupt: it was stopped; the message says how to continue.
    """
    experiment = session.plan.experiment
    folder = session.folder or create(experiment)
    if session.folder is None:  # whose name has been chosen
        experiment = folder.experiment
    plan = replace(session.plan, experiment=experiment)
    try:
        return _carry_out(replace(session, plan=plan), folder, quietly)
    except (Interrupted, KeyboardInterrupt) as error:
        if not folder.begun:
            raise KeyboardInterrupt("interrupted before anything was computed") from error
        how = again or ("the same command" if experiment.compared else f"--resume {folder.path}")
        raise KeyboardInterrupt(
            f"stopped; {folder.path} keeps what was done, {how} continues it"
        ) from error
    finally:
        if session.folder is None and not folder.begun:
            folder.discard()
        folder.release()


def _carry_out(session: Session, folder: Folder, quietly: bool) -> Result:
    """The work, with a log, a display, MLflow, and a copy of the folder at its end."""
    plan = session.plan
    check_space(folder.path, session.forecast.bytes_needed)
    folder.keep_data(plan.dataset)
    folder.configure(plan.experiment)  # all has been checked: now methods may be forgotten
    with (
        quiet(folder.path / LOG) as terminal,
        contextlib.closing(Display(console := Console(file=terminal), quiet=quietly)) as display,
        copied(folder, display),
    ):
        _log.info("experiment %s, settings: %s", folder.path, plan.experiment.document())
        if said := warning(plan.experiment):
            display.warning(said)
        try:
            with _tracked(plan, folder, display) as trackers, stop_on_signal():
                result = _compute(session, folder, display, trackers)
        except BaseException as error:
            _log.exception("the experiment ended early")
            with contextlib.suppress(OSError):  # a full disk must not hide the error
                if isinstance(error, TrialError) and error.method is not None:
                    folder.mark([error.method], "failed")  # other settings of it may mend that
                folder.save(status="interrupted" if _was_stopped(error) else "failed")
            raise
        results.show(console, result.summary, quietly)
    return result


def _was_stopped(error: BaseException) -> bool:
    """Whether a person or the machine's manager ended it, and no error."""
    return isinstance(error, Interrupted) or not isinstance(error, Exception)


def _compute(
    session: Session, folder: Folder, display: Display, trackers: Mapping[str, Tracker]
) -> Result:
    plan, forecast = session.plan, session.forecast
    complete = [name for name in folder.complete if name in plan.parts]
    earlier = results.read(folder.path) if complete else None
    with (
        engine.cluster(session.wish, _stored_bytes(plan), folder.path) as capacity,
        stop_on_signal(),
    ):
        display.metric = plan.task.metric
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
        raise next(iter(failed.values())) if len(failed) == 1 else LeftOutError(failed, folder.path)
    for name, error in failed.items():
        display.warning(f"{name} is left out: {reason(error)}")
    places = {name: tracker.location() for name, tracker in trackers.items()}
    found = measured(plan, folder, entries, ended, earlier, places)
    for tracker in trackers.values():
        tracker.complete(ended_trials(ended, entries))
    if session.others:
        found = results.join(found.name, found.folder, [found, *session.others])
    summary = results.write(folder.path, found)
    _finish(plan, folder, trackers, failed, summary, display)
    folder.mark((name for name in plan.parts if name not in failed), "complete")
    folder.mark(failed, "failed")
    folder.save(status="failed" if failed else "complete")
    folder.forget_trials(id for id, o in ended.outcomes.items() if o.entry.method not in failed)
    return Result(folder.path, found, summary, failed)


def _say_what_is_to_come(
    plan: Plan, forecast: Forecast, capacity: Capacity, display: Display
) -> None:
    display.message(described(plan, capacity.device))
    for note in plan.notes:
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
        view = results.log_comparison(summary, folder.path, uri, warn=display.warning)
        if view is not None:
            display.message(f"in MLflow, by {summary['metric']['name']} and cost: {view}")


@contextlib.contextmanager
def _tracked(plan: Plan, folder: Folder, display: Display) -> Iterator[dict[str, Tracker]]:
    """A run of MLflow for each method, checked before anything is computed.

    They are told when the experiment does not end well.
    """
    experiment = plan.experiment
    settings = experiment.settings.tracking
    kept: dict[str, str] = folder.state["mlflow"]
    trackers: dict[str, Tracker] = {}
    try:
        for name, part in plan.parts.items():
            if name in folder.complete or settings.name == "none":
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
            tracker.finish(None, None, "KILLED" if _was_stopped(error) else "FAILED")
        raise


def _stored_bytes(plan: Plan) -> int:
    """What goes into Ray's object store: the data set."""
    buffers: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(plan.dataset, protocol=5, buffer_callback=buffers.append)
    return len(stream) + sum(buffer.raw().nbytes for buffer in buffers)
