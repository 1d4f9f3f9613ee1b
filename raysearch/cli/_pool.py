"""Trials of several runs that share what there is; a run that cannot go on is left out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from raysearch.cli._execute import Run
from raysearch.cli._folder import RunFolder
from raysearch.cli._forecast import Group
from raysearch.cli._plan import Place, Plan, place_trials
from raysearch.cli._results import Found, settle
from raysearch.cli._stages import Ticks, search
from raysearch.console import Display
from raysearch.errors import RaysearchError
from raysearch.policy import Policy
from raysearch.tracking import Observer, Tracker, TrialInfo
from raysearch.tune import Capacity, Job, Outcome, TrialError, run_stage, unfinished


@dataclass(frozen=True)
class Member:
    """A run of the comparison that has been checked and can begin, or begin again.

    Attributes:
        name: its method's.
        plan: its trials and their data, which all members share.
        bytes_needed: free space that it needs.
        groups: its trials, those that are alike together.
    """

    name: str
    plan: Plan
    bytes_needed: int
    groups: Sequence[Group]

    def size(self, stage: str) -> float:
        """The cost of a trial of a stage in trainings, as members' epoch-equivalents may differ."""
        known = {
            group.stage: group.cost.equivalents * group.epochs
            for group in self.groups
            if group.cost is not None
        }
        training = known.get("evaluation")
        return known.get(stage, training) / training if training else 1.0

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
        size: what it costs, in trainings; see `Member.size`.
    """

    member: Member
    trial: TrialInfo
    job: Job
    size: float


class Pool:
    """Trials of several runs that share what there is.

    Args:
        folder: of their checkpoints.
        runs, trackers: by the members' names.
        display: shows all of them.
        capacity: what there is.

    Attributes:
        failed: why runs cannot go on, by the members' names.
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
        self.failed: dict[str, RaysearchError] = {}

    def search(self, member: Member) -> Found | None:
        """What searches of many trials or by populations find; or the policy that is known.

        None where the member cannot go on.

        Raises:
            RaysearchError: nobody can, as the disk is full.
        """
        run, tracker = self._runs[member.name], self._trackers[member.name]
        places = place_trials(member.plan.configuration, self._capacity)
        observers: list[Observer] = [
            self._display,
            *([tracker] if tracker else []),
            Ticks(run.folder),
        ]
        try:
            searched = search(run.folder, run.plan, self._capacity.device, places, observers)
        except RaysearchError as error:
            self._fail(member.name, error)
            return None
        return settle(run.folder, run.plan, searched)

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
        """Run what has not finished, the largest first; all outcomes by the members' names.

        A member of which a trial cannot go on is left out, and the others' go on from where they
        were.

        Raises:
            TrialError: nobody can go on, as the disk is full.
        """
        owners = {one.trial.id: one.member.name for one in waiting}
        while waiting:
            try:
                return self._run(stage, waiting)
            except TrialError as error:
                owner = owners[error.trial or ""]
                self._fail(owner, error)
                waiting = [one for one in waiting if one.member.name != owner]
        return {}

    def _run(self, stage: str, waiting: list[Waiting]) -> dict[str, list[Outcome[TrialInfo]]]:
        ordered = sorted(waiting, key=lambda one: -one.size)
        trials = [one.trial for one in ordered]
        left = {trial.id for trial in unfinished(stage, trials, self._folder)}
        told, clocks = Owners(self._display), []
        for name in dict.fromkeys(one.member.name for one in ordered):
            own = [one.trial for one in ordered if one.member.name == name]
            clocks.append(
                Clock(self._runs[name].folder, own[0].stage, sum(t.id in left for t in own))
            )
            tracker = self._trackers[name]
            told.add(own, [clocks[-1], *([] if tracker is None else [tracker])])
        try:
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
        finally:
            for clock in clocks:
                with contextlib.suppress(OSError):  # a full disk must not hide the error
                    clock.stop()
        by_id = {outcome.trial.id: outcome for outcome in outcomes}
        ended: dict[str, list[Outcome[TrialInfo]]] = {}
        for one in waiting:
            ended.setdefault(one.member.name, []).append(by_id[one.trial.id])
        return ended

    def _fail(self, name: str, error: RaysearchError) -> None:
        """Leave a run out, as it can be continued later; raises where all others would fail too."""
        if isinstance(error, TrialError) and error.disk_full:
            raise error
        self.failed[name] = error.with_traceback(None)
        self._display.warning(f"{name} is left out: {error}")
        self._runs[name].folder.save_state(status="failed")
        if (tracker := self._trackers[name]) is not None:
            tracker.finish(None, None, "FAILED")

    def _place(self, member: Member, stage: str) -> Place:
        return place_trials(member.plan.configuration, self._capacity)[stage]

    def _at_once(self, waiting: Sequence[Waiting]) -> int:
        """So many as fit: of any kind on a machine of its own, where Ray knows; of all else."""
        fit = [self._place(one.member, one.trial.stage).at_once for one in waiting]
        return min(fit) if self._capacity.nodes else max(fit)

    def _waiting(self, member: Member, trial: TrialInfo, job: Job) -> Waiting:
        """A trial of a run as one of the pool: by an id and a name of its own."""
        settings = member.plan.configuration.settings
        is_search = trial.stage == "search"
        epochs = (settings.search if is_search else settings.evaluation).epochs
        name = f"{member.name}{' search' if is_search else ''} seed {trial.seed}"
        known = replace(trial, id=f"{member.name}-{trial.id}", name=name, epochs=epochs)
        return Waiting(member, known, job, member.size(trial.stage))


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
        self._folder.tick()

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
            self._folder.end_stage()

    def stage_started(self, stage: str, trials: int, epochs: int, resumed: int = 0) -> None:
        """Its trials have not begun yet."""

    def trial_progress(self, trial: TrialInfo, epoch: int, metrics: Mapping[str, float]) -> None:
        """See `RunFolder.tick`."""
        self._folder.tick()

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
