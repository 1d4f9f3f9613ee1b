"""The runs of a comparison, carried out together: one Ray, one pool of trials."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from raysearch.cli._compose import Configuration
from raysearch.cli._execute import Run, cautions, described, shown, stored_bytes, tracked
from raysearch.cli._folder import CONFIG, LOCK, LOG, TRIALS, check_space, create, resume
from raysearch.cli._forecast import Forecast
from raysearch.cli._plan import make_plan, place_trials
from raysearch.cli._pool import Member, Pool
from raysearch.cli._quiet import quiet
from raysearch.cli._rehearse import rehearse
from raysearch.cli._results import Found, report, settle
from raysearch.cli._signals import ending_in_peace, stop_on_sigterm
from raysearch.cli._stages import Searched
from raysearch.cli._words import plural
from raysearch.console import Display
from raysearch.data import Dataset
from raysearch.errors import RaysearchError
from raysearch.tracking import Tracker
from raysearch.tune import (
    Interrupted,
    Wish,
    cluster,
    forget_trials,
    local_capacity,
)

POOL = "comparison"  # the stage of trials that share what there is
_log = logging.getLogger(__name__)


def make_members(
    folder: Path, configurations: Mapping[str, Configuration], wish: Wish
) -> list[Member]:
    """Load the data once, and lay out and check what every run does.

    Args:
        folder: the comparison's.
        configurations: of its runs, by their methods; of the same data.
        wish: what of the machine or cluster to use.

    Raises:
        RaysearchError: what one of them cannot do, with its name.
    """
    members: list[Member] = []
    for name, configuration in configurations.items():
        try:
            dataset = members[0].plan.dataset if members else None
            members.append(_make_member(folder / name, configuration, wish, dataset))
        except RaysearchError as error:
            raise RaysearchError(f"method {name}: {error}") from error
    return members


def _make_member(
    folder: Path, configuration: Configuration, wish: Wish, dataset: Dataset | None
) -> Member:
    places = None if wish.address else place_trials(configuration, local_capacity(wish))
    plan = make_plan(configuration, folder if folder.exists() else None, dataset)
    needed = rehearse(plan, places)
    return Member(folder.name, plan, needed, list(Forecast(plan, places, patience=0.0).groups()))


def describe(members: Sequence[Member]) -> str:
    """The trials of every run and what they cost."""
    lines, total = [], 0.0
    for member in members:
        for group in member.groups:
            cost = "not known before it runs"
            if group.cost is not None:
                trainings = member.size(group.stage) * group.count
                total += trainings
                cost = f"as much as {trainings:.1f} trainings"
            trials = f"{plural(group.count, 'trial')} of {plural(group.epochs, 'epoch')}"
            lines.append(f"{member.name}: {group.stage}, {trials}, {cost}")
    return "\n".join([*lines, f"as much as {total:.1f} trainings in all (arithmetic)"])


def compute(
    folder: Path, members: Sequence[Member], wish: Wish, quietly: bool
) -> dict[str, RaysearchError]:
    """Do what is left of the runs: search, evaluate, report.

    Searches of many trials and by populations, which fill a machine by themselves, come first,
    one after the other. Then all searches that are one trial each share what there is, the
    largest first, with the evaluations of every policy that is known by then; then the
    evaluations of what they found.

    Args:
        folder: the comparison's; each run has its own in it.
        members: the runs.
        wish: what of the machine or cluster to use.
        quietly: show nothing.

    Returns:
        Why runs that are not complete could not go on, by their names.

    Raises:
        RaysearchError: it cannot start, or no run can go on because the disk is full.
        Interrupted, KeyboardInterrupt: it was asked to stop, and can be continued.
    """
    check_space(folder, sum(member.bytes_needed for member in members))
    with (
        quiet(folder / LOG) as terminal,
        shown(terminal, quietly) as display,
        contextlib.ExitStack() as held,
    ):
        runs: dict[str, Run] = {}
        try:
            for member in members:
                runs[member.name] = _open(folder, member, wish, quietly, held)
            with contextlib.ExitStack() as trackers:
                told = {
                    name: trackers.enter_context(tracked(run, display))
                    for name, run in runs.items()
                }
                failed = _carry_out(folder, members, runs, told, display)
        except BaseException as error:
            _log.exception("the comparison ended early")
            stopped = isinstance(error, Interrupted) or not isinstance(error, Exception)
            for run in runs.values():
                if run.folder.state.get("status") not in ("complete", "failed"):
                    with contextlib.suppress(OSError):
                        run.folder.save_state(status="interrupted" if stopped else "failed")
                if not run.folder.begun:
                    run.folder.discard()
            raise
    for member in members:
        if member.name not in failed:  # which go on from theirs, as others of an earlier call may
            _forget(folder, member)
    if not any((folder / TRIALS).glob("*/*/checkpoint_*")):
        forget_trials(folder / TRIALS)
    return failed


def _forget(folder: Path, member: Member) -> None:
    """Remove a member's checkpoints in the pool."""
    for trial in (folder / TRIALS).glob(f"*/{member.name}-*"):
        forget_trials(trial)


def _open(
    folder: Path, member: Member, wish: Wish, quietly: bool, held: contextlib.ExitStack
) -> Run:
    """The member's own folder, new or as it was left."""
    path = folder / member.name
    if (path / CONFIG).is_file():
        own = resume(str(path), str(folder))
        held.callback(own.release)
        own.configure(member.plan.configuration)
    else:
        if path.is_dir() and {file.name for file in path.iterdir()} <= {LOCK}:
            shutil.rmtree(path)  # of a process killed before it was begun
        _forget(folder, member)  # of a run whose folder has been removed
        own = create(member.plan.configuration)
        held.callback(own.release)
    own.keep_data(member.plan.dataset)
    return Run(own, member.plan, wish, member.bytes_needed, quietly)


def _carry_out(
    folder: Path,
    members: Sequence[Member],
    runs: Mapping[str, Run],
    trackers: Mapping[str, Tracker | None],
    display: Display,
) -> dict[str, RaysearchError]:
    first = runs[members[0].name]
    needed = sum(member.bytes_needed for member in members)
    stages = 2 + 2 * sum(not member.in_one_trial for member in members)
    store = stored_bytes(members[0].plan, needed, stages)
    with cluster(first.wish, store, folder) as capacity, ending_in_peace():
        stop_on_sigterm()
        display.message(described(members[0].plan, capacity.device))
        for said in cautions(members[0].plan):
            display.warning(said)
        (folder / TRIALS).mkdir(exist_ok=True)
        for run in runs.values():
            run.folder.save_state(status="running", device=capacity.device)
            run.folder.trials.mkdir(exist_ok=True)
        pool = Pool(folder / TRIALS, runs, trackers, display, capacity)
        found: dict[str, Found] = {}
        for member in members:
            if not member.in_one_trial and (policies := pool.search(member)) is not None:
                found[member.name] = policies
        alone = [member for member in members if member.in_one_trial]
        known = [member for member in members if member.name in found]
        ended = pool.run(
            POOL,
            [
                *(waiting for member in alone for waiting in pool.searches(member)),
                *(
                    waiting
                    for member in known
                    for waiting in pool.evaluations(member, found[member.name].learned)
                ),
            ],
        )
        searched = [member for member in alone if member.name not in pool.failed]
        for member in searched:
            own = runs[member.name]
            found[member.name] = settle(own.folder, own.plan, Searched(ended.pop(member.name)))
        ended |= pool.run(
            POOL,
            [
                waiting
                for member in searched
                for waiting in pool.evaluations(member, found[member.name].learned)
            ],
        )
    completed = [member for member in members if member.name not in pool.failed]
    for member in completed:
        own, tracker = runs[member.name], trackers[member.name]
        evaluated = ended.get(member.name, [])
        summary = report(own.folder, own.plan, found[member.name], evaluated, tracker)
        if tracker is not None:
            tracker.finish(summary, own.folder.path)
        own.folder.save_state(status="complete")
        forget_trials(own.folder.trials)
    return pool.failed
