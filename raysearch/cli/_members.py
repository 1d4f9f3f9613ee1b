"""The runs of a comparison, carried out together: one Ray, one pool of trials."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from raysearch.cli._compose import Configuration
from raysearch.cli._dry_run import groups
from raysearch.cli._execute import Run, shown, stored_bytes, tracked
from raysearch.cli._folder import CONFIG, RunFolder, check_space, create, resume
from raysearch.cli._plan import Place, Plan, make_plan, place_trials, rehearse
from raysearch.cli._quiet import quiet
from raysearch.cli._results import Found, report, settle
from raysearch.cli._signals import stop_on_sigterm
from raysearch.cli._stages import search
from raysearch.console import Display
from raysearch.data import Dataset
from raysearch.errors import RaysearchError
from raysearch.policy import Policy
from raysearch.tracking import Observer, Tracker, TrialInfo
from raysearch.tune import (
    Capacity,
    Interrupted,
    Job,
    Outcome,
    Wish,
    cluster,
    forget_trials,
    local_capacity,
    run_stage,
    unfinished,
)

LOG, TRIALS = "raysearch.log", "trials"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Member:
    """A run of the comparison that has been checked and can begin, or begin again.

    Attributes:
        name: its method's.
        plan: its trials and their data, which all members share.
        bytes_needed: free space that it needs.
        sizes: epoch-equivalents of one trial of a stage, as far as they can be told beforehand.
    """

    name: str
    plan: Plan
    bytes_needed: int
    sizes: Mapping[str, float]

    @property
    def in_one_trial(self) -> bool:
        """Whether each of its searches is one trial, which can run beside those of others."""
        plan = self.plan
        return bool(plan.search) and plan.trial_search is None and plan.members is None


@dataclass(frozen=True)
class Waiting:
    """A trial that can run.

    Attributes:
        member: whose it is.
        trial: as the pool knows it.
        job: what it works on.
        size: epoch-equivalents.
    """

    member: Member
    trial: TrialInfo
    job: Job
    size: float


def make_members(configurations: Mapping[str, Configuration], wish: Wish) -> list[Member]:
    """Load the data once, and lay out and check what every run does.

    Raises:
        RaysearchError: what one of them cannot do, with its name.
    """
    members: list[Member] = []
    for name, configuration in configurations.items():
        try:
            dataset = members[0].plan.dataset if members else None
            members.append(_make_member(name, configuration, wish, dataset))
        except RaysearchError as error:
            raise RaysearchError(f"{name}: {error}") from error
    return members


def _make_member(
    name: str, configuration: Configuration, wish: Wish, dataset: Dataset | None
) -> Member:
    places = None if wish.address else place_trials(configuration, local_capacity(wish))
    plan = make_plan(configuration, None, dataset)
    needed = rehearse(plan, places)
    sizes = {
        group.stage: group.cost.equivalents * group.epochs
        for group in groups(plan, places)
        if group.cost is not None
    }
    return Member(name, plan, needed, sizes)


def describe(configurations: Mapping[str, Configuration], wish: Wish) -> str:
    """The trials of every run and what they cost."""
    lines, total = [], 0.0
    for member in make_members(configurations, wish):
        places = (
            None if wish.address else place_trials(member.plan.configuration, local_capacity(wish))
        )
        for group in groups(member.plan, places):
            cost = "not known before it runs"
            if group.cost is not None:
                equivalents = group.cost.equivalents * group.epochs * group.count
                total += equivalents
                cost = f"{equivalents:.0f} epoch-equivalents"
            trials = f"{group.count} trial{'s' if group.count != 1 else ''}"
            lines.append(f"{member.name}: {group.stage}, {trials} of {group.epochs} epochs, {cost}")
    return "\n".join([*lines, f"{total:.0f} epoch-equivalents in all"])


def compute(folder: Path, members: Sequence[Member], wish: Wish, quietly: bool) -> None:
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

    Raises:
        RaysearchError: it cannot start, or a trial cannot go on.
        Interrupted, KeyboardInterrupt: it was asked to stop, and can be continued.
    """
    check_space(folder, sum(member.bytes_needed for member in members))
    with (
        quiet(folder / LOG) as terminal,
        shown(terminal, quietly) as display,
        contextlib.ExitStack() as held,
    ):
        runs = {m.name: _open(folder, m, wish, quietly, held) for m in members}
        try:
            with contextlib.ExitStack() as trackers:
                told = {
                    name: trackers.enter_context(tracked(run, display))
                    for name, run in runs.items()
                }
                _carry_out(folder, members, runs, told, display)
        except BaseException as error:
            _log.exception("the comparison ended early")
            stopped = isinstance(error, Interrupted) or not isinstance(error, Exception)
            for run in runs.values():
                with contextlib.suppress(OSError):
                    run.folder.save_state(status="interrupted" if stopped else "failed")
                if not run.folder.begun:
                    run.folder.discard()
            raise
    forget_trials(folder / TRIALS)


def _open(
    folder: Path, member: Member, wish: Wish, quietly: bool, held: contextlib.ExitStack
) -> Run:
    """The member's own folder, new or as it was left."""
    path = folder / member.name
    known = (path / CONFIG).is_file()
    own = resume(str(path), str(folder)) if known else create(member.plan.configuration)
    held.callback(own.release)
    return Run(own, member.plan, wish, member.bytes_needed, quietly)


def _carry_out(
    folder: Path,
    members: Sequence[Member],
    runs: Mapping[str, Run],
    trackers: Mapping[str, Tracker | None],
    display: Display,
) -> None:
    first = runs[members[0].name]
    needed = sum(member.bytes_needed for member in members)
    stages = 2 + 2 * sum(not member.in_one_trial for member in members)
    with cluster(first.wish, stored_bytes(members[0].plan, needed, stages)) as capacity:
        stop_on_sigterm()
        (folder / TRIALS).mkdir(exist_ok=True)
        for run in runs.values():
            run.folder.save_state(status="running", device=capacity.device)
            run.folder.trials.mkdir(exist_ok=True)
        pool = Pool(folder / TRIALS, runs, trackers, display, capacity)
        found: dict[str, Found] = {}
        for member in members:
            if not member.in_one_trial:
                found[member.name] = _found(member, runs, trackers, display, capacity)
        alone = [member for member in members if member.in_one_trial]
        known = [member for member in members if member.name in found]
        ended = pool.run(
            "searches" if alone else "evaluations",
            [
                *(waiting for member in alone for waiting in pool.searches(member)),
                *(
                    waiting
                    for member in known
                    for waiting in pool.evaluations(member, found[member.name].learned)
                ),
            ],
        )
        for member in alone:
            own = runs[member.name]
            found[member.name] = settle(own.folder, own.plan, ended.pop(member.name))
        ended |= pool.run(
            "evaluations",
            [
                waiting
                for member in alone
                for waiting in pool.evaluations(member, found[member.name].learned)
            ],
        )
    for member in members:
        own, tracker = runs[member.name], trackers[member.name]
        evaluated = ended.get(member.name, [])
        summary = report(own.folder, own.plan, found[member.name], evaluated, tracker)
        if tracker is not None:
            tracker.finish(summary, own.folder.path)
        own.folder.save_state(status="complete")
        forget_trials(own.folder.trials)


def _found(
    member: Member,
    runs: Mapping[str, Run],
    trackers: Mapping[str, Tracker | None],
    display: Display,
    capacity: Capacity,
) -> Found:
    """What searches of many trials or by populations find; or the policy that is known."""
    run, tracker = runs[member.name], trackers[member.name]
    places = place_trials(member.plan.configuration, capacity)
    observers: list[Observer] = [display, *([tracker] if tracker else [])]
    trials = search(run.folder, run.plan, capacity.device, places, observers)
    return settle(run.folder, run.plan, trials)


class Pool:
    """Trials of several runs that share what there is.

    Args:
        folder: of their checkpoints.
        runs, trackers: by the members' names.
        display: shows all of them.
        capacity: what there is.
    """

    def __init__(
        self,
        folder: Path,
        runs: Mapping[str, Run],
        trackers: Mapping[str, Tracker | None],
        display: Display,
        capacity: Capacity,
    ) -> None:
        self._folder, self._runs, self._trackers = folder, runs, trackers
        self._display, self._capacity = display, capacity

    def searches(self, member: Member) -> Iterator[Waiting]:
        """The member's searches."""
        place = self._place(member, "search")
        job = Job(member.plan.search_job(self._capacity.device), place.share)
        for trial in member.plan.search:
            yield self._waiting(member, trial, job)

    def evaluations(self, member: Member, learned: Policy) -> Iterator[Waiting]:
        """The trainings with the member's policy."""
        place = self._place(member, "evaluation")
        job = Job(member.plan.evaluation_job(self._capacity.device, learned), place.share)
        for trial in member.plan.evaluation:
            yield self._waiting(member, trial, job)

    def run(self, stage: str, waiting: list[Waiting]) -> dict[str, list[Outcome[TrialInfo]]]:
        """Run what has not finished, the largest first; all outcomes by the members' names."""
        if not waiting:
            return {}
        ordered = sorted(waiting, key=lambda one: -one.size)
        trials = [one.trial for one in ordered]
        left = {trial.id for trial in unfinished(stage, trials, self._folder)}
        told = Owners(self._display)
        for name in dict.fromkeys(one.member.name for one in ordered):
            own = [one.trial for one in ordered if one.member.name == name]
            kind = own[0].stage
            count = sum(trial.id in left for trial in own)
            told.add(own, [Clock(self._runs[name].folder, kind, count), *self._tracker(name)])
        with told:
            outcomes = run_stage(
                stage,
                trials,
                {one.trial.id: one.job for one in ordered},
                folder=self._folder,
                epochs=max(trial.epochs for trial in trials),
                max_failures=max(
                    one.member.plan.configuration.settings.search.max_failures for one in ordered
                ),
                at_once=self._at_once(ordered),
                watchers=[told],
            )
        by_id = {outcome.trial.id: outcome for outcome in outcomes}
        ended: dict[str, list[Outcome[TrialInfo]]] = {}
        for one in waiting:
            ended.setdefault(one.member.name, []).append(by_id[one.trial.id])
        return ended

    def _tracker(self, name: str) -> list[Observer]:
        tracker = self._trackers[name]
        return [] if tracker is None else [tracker]

    def _place(self, member: Member, stage: str) -> Place:
        return place_trials(member.plan.configuration, self._capacity)[stage]

    def _at_once(self, waiting: Sequence[Waiting]) -> int:
        """So many as fit if all were like the most modest."""
        return max(self._place(one.member, one.trial.stage).at_once for one in waiting)

    def _waiting(self, member: Member, trial: TrialInfo, job: Job) -> Waiting:
        """A trial of a run as one of the pool: by an id and a name of its own."""
        settings = member.plan.configuration.settings
        is_search = trial.stage == "search"
        epochs = (settings.search if is_search else settings.evaluation).epochs
        name = f"{member.name}{' search' if is_search else ''} seed {trial.seed}"
        known = replace(trial, id=f"{member.name}-{trial.id}", name=name, epochs=epochs)
        return Waiting(member, known, job, member.sizes.get(trial.stage, float(epochs)))


class Clock:
    """Counts the time from a run's first trial in the pool to its last; an `Observer`.

    Args:
        folder: the run's.
        stage: of its trials.
        count: its trials that are left.
    """

    def __init__(self, folder: RunFolder, stage: str, count: int) -> None:
        self._folder, self._stage, self._count = folder, stage, count
        self._running = False

    def trial_started(self, trial: TrialInfo) -> None:
        """Start, with the first."""
        if not self._running:
            self._folder.begin_stage(self._stage)
            self._running = True

    def trial_finished(
        self, trial: TrialInfo, error: str | None, metrics: Mapping[str, float]
    ) -> None:
        """Stop, with the last."""
        self._count -= 1
        if self._count == 0:
            self.stop()

    def stop(self) -> None:
        """Count the time so far."""
        if self._running:
            self._running = False
            self._folder.end_stage(self._stage)

    def stage_started(self, stage: str, trials: int, epochs: int, resumed: int = 0) -> None:
        """Its trials have not begun yet."""

    def trial_progress(self, trial: TrialInfo, epoch: int, metrics: Mapping[str, float]) -> None:
        """Nothing to count."""

    def message(self, text: str) -> None:
        """Nothing to count."""

    def stage_finished(self, stage: str) -> None:
        """Stop, whatever has been counted."""
        self.stop()


class Owners:
    """Tells each run's observers about its own trials, and the display about all; an `Observer`."""

    def __init__(self, display: Observer) -> None:
        self._display = display
        self._owners: dict[str, Sequence[Observer]] = {}
        self._groups: list[tuple[Sequence[TrialInfo], Sequence[Observer]]] = []

    def add(self, trials: Sequence[TrialInfo], observers: Sequence[Observer]) -> None:
        """Let observers know what happens to some of the trials."""
        self._owners |= dict.fromkeys((trial.id for trial in trials), observers)
        self._groups.append((trials, observers))

    def __enter__(self) -> Owners:
        return self

    def __exit__(self, *error: object) -> None:
        for _, observers in self._groups:
            for observer in observers:
                if isinstance(observer, Clock):
                    with contextlib.suppress(OSError):
                        observer.stop()

    def stage_started(self, stage: str, trials: int, epochs: int, resumed: int = 0) -> None:
        """Each run hears of its own trials."""
        self._display.stage_started(stage, trials, epochs, resumed)
        for of, observers in self._groups:
            for observer in observers:
                observer.stage_started(of[0].stage, len(of), of[0].epochs)

    def trial_started(self, trial: TrialInfo) -> None:
        """The trial's run hears of it, and the display."""
        for observer in self._of(trial):
            observer.trial_started(trial)

    def trial_progress(self, trial: TrialInfo, epoch: int, metrics: Mapping[str, float]) -> None:
        """The trial's run hears of it, and the display."""
        for observer in self._of(trial):
            observer.trial_progress(trial, epoch, metrics)

    def trial_finished(
        self, trial: TrialInfo, error: str | None, metrics: Mapping[str, float]
    ) -> None:
        """The trial's run hears of it, and the display."""
        for observer in self._of(trial):
            observer.trial_finished(trial, error, metrics)

    def message(self, text: str) -> None:
        """For the display."""
        self._display.message(text)

    def stage_finished(self, stage: str) -> None:
        """All hear of it."""
        self._display.stage_finished(stage)
        for of, observers in self._groups:
            for observer in observers:
                observer.stage_finished(of[0].stage)

    def _of(self, trial: TrialInfo) -> list[Observer]:
        return [self._display, *self._owners[trial.id]]
