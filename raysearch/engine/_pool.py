"""The searches of an experiment, as far as they are: whom to ask next, and what was answered."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from raysearch.engine._entries import Ended, Entry, Outcome, Place
from raysearch.engine._files import Progress, ProposalFolder, keep_state, read_state
from raysearch.errors import RaysearchError, SearchFailedError
from raysearch.protocol import Answer, Failed, Metrics, Proposal, Values
from raysearch.trials import COSTS, TrialInfo, TrialResult, Watcher


@dataclass(frozen=True)
class Assignment:
    """A proposal of an entry, and its files."""

    entry: Entry
    proposal: Proposal
    folder: ProposalFolder

    @property
    def trial(self) -> TrialInfo | None:
        """What watchers know it as, where they do."""
        return self.entry.shown.get(self.proposal.id)

    @property
    def place(self) -> Place:
        """What its work holds."""
        return self.entry.places[self.proposal.stage]

    @property
    def name(self) -> str:
        """What people call it."""
        own = self.trial
        return own.name if own is not None else f"{self.entry.trial.name} trial {self.proposal.id}"


@dataclass
class _Running:
    """A search, and how far it is."""

    entry: Entry
    folder: Path
    progress: Progress  # its history, in rounds, and its seconds
    unneeded: set[str] = field(default_factory=set)  # proposals, at the end of the last round
    active: set[str] = field(default_factory=set)  # proposals that are worked on
    since: float = 0.0  # when the first of them was handed out, on the monotonic clock
    begun: dict[str, TrialInfo] = field(default_factory=dict)  # trials that watchers see running
    before: set[str] = field(default_factory=set)  # ids of trials that ended in earlier attempts
    outcome: Outcome | None = None

    def proposal(self, id_: str) -> ProposalFolder:
        return ProposalFolder(self.folder / id_)

    def state(self) -> dict[str, Any]:
        return {
            "search": self.entry.search.state_dict(),
            "progress": asdict(self.progress),
            "unneeded": sorted(self.unneeded),
        }

    def take(self, state: Values) -> None:
        self.entry.search.load_state_dict(state["search"])
        self.progress = Progress(**state["progress"])
        self.unneeded = set(state["unneeded"])


class Pool:
    """Hands out the proposals of all searches, and tells these what was answered.

    A search's state is on disk after every round, its answers as soon as there are any, so that a
    driver killed at any moment goes on from there. Nothing here knows of Ray.

    Args:
        folder: where the entries' folders are, on storage that all workers see.
        watchers: told what happens.
        ended: is told each outcome, and returns entries that this makes possible; where it raises
            a RaysearchError, the method cannot go on.
    """

    def __init__(
        self,
        folder: Path,
        watchers: Sequence[Watcher],
        ended: Callable[[Outcome], Sequence[Entry]],
    ) -> None:
        self._folder, self._watchers, self._ended = folder.resolve(), list(watchers), ended
        self._running: dict[str, _Running] = {}
        self.failed: dict[str, RaysearchError] = {}

    @property
    def finished(self) -> bool:
        """Whether nothing is left to ask for."""
        return all(self._is_over(one) for one in self._running.values())

    def _is_over(self, one: _Running) -> bool:
        return one.outcome is not None or one.entry.method in self.failed

    def result(self) -> Ended:
        """All outcomes, and the methods that could not go on."""
        found = {name: one.outcome for name, one in self._running.items() if one.outcome}
        return Ended(found, dict(self.failed))

    def add(self, entries: Sequence[Entry]) -> None:
        """Take entries in, each as far as its files say that it is.

        Raises:
            RaysearchError: an id is taken, or neither of a search's states can be read.
        """
        new = []
        for entry in entries:
            if entry.id in self._running:
                raise RaysearchError(f"two searches are called {entry.id}")
            one = _Running(entry, self._folder / entry.id, Progress())
            one.folder.mkdir(parents=True, exist_ok=True)
            self._running[entry.id] = one
            self._load(one)
            for id_, file in entry.given.items():
                if not one.proposal(id_).answered:
                    one.proposal(id_).write_answer(Answer({}, file=file), Progress())
            new.append(one)
            one.before = _ended_before(one)
        trials = [trial for one in new for trial in _trials(one.entry)]
        for watcher in self._watchers if trials else ():
            watcher.planned(trials, sum(len(one.before) for one in new))
        for one in new:
            self._catch_up(one)

    def _load(self, one: _Running) -> None:
        """Go on from the newest of the search's states that is whole."""
        state, damaged = read_state(one.folder)
        if state is not None:
            one.take(state)
        if damaged is None:
            return
        said = f"{one.entry.trial.name}: {damaged} is damaged"
        if state is None:
            raise RaysearchError(
                f"{said}, and there is none before it; "
                f"remove {one.folder} to begin this search again"
            )
        self.say(f"{said}; it goes on from the round before")

    def _catch_up(self, one: _Running) -> None:
        """Tell the search what was answered before the driver died, until something is left."""
        search, answered = one.entry.search, True
        while answered and not self._is_over(one):
            answered = False
            for asked in self._asked(one):
                if asked.folder.answered:
                    answered = True
                    self.tell(asked)
                else:
                    search.retract(asked.proposal.id)
                    self._say_what_is_damaged(asked)
        if search.finished and not self._is_over(one):
            self._end(one, Answer({}, search.policy()), one.progress)

    def _asked(self, one: _Running) -> list[Assignment]:
        """All that the search asks for now."""
        proposals = iter(one.entry.search.ask, None)
        return [Assignment(one.entry, each, one.proposal(each.id)) for each in proposals]

    def _say_what_is_damaged(self, asked: Assignment) -> None:
        newest = asked.folder.newest()
        for path in asked.folder.damaged():
            self.say(f"{asked.name}: {path} is damaged; it goes on from {newest or 'its start'}")

    def ask(self, room: Callable[[Entry, str], bool]) -> Assignment | None:
        """The next proposal: of the largest search that has one for which there is room.

        Args:
            room: whether a proposal of an entry's stage can run now.
        """
        for one in sorted(self._running.values(), key=_order):
            if self._is_over(one) or not any(room(one.entry, stage) for stage in one.entry.places):
                continue
            proposal = one.entry.search.ask()
            if proposal is None:
                continue
            if not room(one.entry, proposal.stage):
                one.entry.search.retract(proposal.id)
                continue
            asked = Assignment(one.entry, proposal, one.proposal(proposal.id))
            self._started(one, asked)
            return asked
        return None

    def _started(self, one: _Running, asked: Assignment) -> None:
        one.since = one.since or time.monotonic()
        one.active.add(asked.proposal.id)
        begun = [] if asked.trial is None else [asked.trial]
        if not one.entry.asks_once and one.entry.trial.id not in one.begun:
            begun.insert(0, one.entry.trial)
        for trial in begun:
            one.begun[trial.id] = trial
            for watcher in self._watchers:
                watcher.trial_started(trial)

    def progress(self, asked: Assignment, rows: Iterable[Metrics]) -> None:
        """Epochs of a proposal's work have ended."""
        if asked.trial is not None:
            self._tell_progress(asked.trial, rows)

    def _tell_progress(self, trial: TrialInfo, rows: Iterable[Metrics]) -> None:
        for row in rows:
            for watcher in self._watchers:
                watcher.trial_progress(trial, int(row["epoch"]), row)

    def retract(self, asked: Assignment) -> None:
        """The process that worked on a proposal has died."""
        one = self._running[asked.entry.id]
        self._stopped(one, asked)
        if not self._is_over(one):
            one.entry.search.retract(asked.proposal.id)

    def _stopped(self, one: _Running, asked: Assignment) -> None:
        one.active.discard(asked.proposal.id)
        now = time.monotonic()
        if one.since:
            one.progress.wall_seconds += now - one.since
        one.since = now if one.active else 0.0

    def tell(self, asked: Assignment) -> None:
        """A proposal has its answer, on disk."""
        entry, one = asked.entry, self._running[asked.entry.id]
        self._stopped(one, asked)
        if self._is_over(one):
            return
        answer, progress = asked.folder.read_answer()
        one.progress.device_seconds += progress.device_seconds
        if asked.trial is not None and asked.trial != entry.trial:
            self._finished(one, _result(asked.trial, answer, progress))
        try:
            rows = entry.search.tell(asked.proposal.id, answer)
        except SearchFailedError as error:
            self._end(one, Failed(str(error)), one.progress)
            return
        one.progress.history += rows
        self._tell_progress(entry.trial, rows)
        if entry.asks_once:
            self._end(one, answer, progress)
        elif rows:
            self._keep(one)
            if entry.search.finished:
                self._end(one, Answer({}, entry.search.policy()), one.progress)

    def _finished(self, one: _Running, result: TrialResult) -> None:
        """Tell watchers that a trial has ended, unless they were told so as it became known."""
        one.begun.pop(result.trial.id, None)
        if result.trial.id in one.before:
            return
        costs = {cost: getattr(result, cost) for cost in COSTS}
        for watcher in self._watchers:
            watcher.trial_finished(result.trial, result.error, {**result.metrics, **costs})

    def _keep(self, one: _Running) -> None:
        """Keep the state at a round's end, and remove the files that no round will need.

        Those of the round that has just ended stay, and those that it needed: should the state be
        damaged, the search goes on from the one before.
        """
        there = {path.name for path in one.folder.iterdir() if path.is_dir()}
        unneeded = there - set(one.entry.search.needed()) - one.entry.shown.keys()
        gone = unneeded & one.unneeded
        one.unneeded = unneeded - gone
        keep_state(one.folder, one.state())
        for id_ in gone:
            shutil.rmtree(one.folder / id_, ignore_errors=True)

    def _end(self, one: _Running, answer: Answer | Failed, progress: Progress) -> None:
        """The search has ended: make its outcome, and take in what that makes possible."""
        entry = one.entry
        shown = {id_: one.proposal(id_) for id_ in entry.shown}
        beside = [
            _result(entry.shown[id_], *folder.read_answer())
            for id_, folder in shown.items()
            if entry.shown[id_] != entry.trial and folder.answered
        ]
        networks = [folder.network for folder in shown.values() if folder.network is not None]
        one.outcome = Outcome(
            entry,
            _result(entry.trial, answer, progress),
            tuple(beside),
            answer.policy if isinstance(answer, Answer) else None,
            networks[0] if networks else None,
            one.folder,
        )
        self._finished(one, one.outcome.result)
        try:
            more = self._ended(one.outcome)
        except RaysearchError as error:
            self.fail(entry.method, error)
            return
        self.add(more)

    def fail(self, method: str, error: RaysearchError) -> None:
        """A method cannot go on."""
        if method in self.failed:
            return
        self.failed[method] = error
        reason = getattr(error, "reason", str(error))
        for one in self._running.values():
            begun = list(one.begun.values()) if one.entry.method == method else []
            for trial in begun:
                for watcher in self._watchers:
                    watcher.trial_finished(trial, reason, {})

    def say(self, text: str) -> None:
        """A remark for those who watch."""
        for watcher in self._watchers:
            watcher.message(text)


def _order(one: _Running) -> tuple[float, int]:
    """The largest first; of alike ones that which is least far, so that its round is in one piece.

    A process then seldom changes from one search to another.
    """
    return -one.entry.size, 0 if one.entry.asks_once else one.entry.search.round


def _trials(entry: Entry) -> list[TrialInfo]:
    """What watchers know of an entry, its own trial last."""
    return [*(trial for trial in entry.shown.values() if trial != entry.trial), entry.trial]


def _ended_before(one: _Running) -> set[str]:
    """The ids of an entry's trials that ended well in an earlier attempt."""
    ended = {one.entry.trial.id} if one.entry.search.finished else set()
    for id_, trial in one.entry.shown.items():
        folder = one.proposal(id_)
        if folder.answered and isinstance(folder.read_answer()[0], Answer):
            ended.add(trial.id)
    return ended


def _result(trial: TrialInfo, answer: Answer | Failed, progress: Progress) -> TrialResult:
    """A trial that is one proposal; what failed has the cost of the epochs that ended."""
    last = progress.history[-1] if progress.history else {}
    failed = answer.reason if isinstance(answer, Failed) else None
    values = {} if isinstance(answer, Failed) else answer.values
    final = {key: float(value) for key, value in values.items() if isinstance(value, int | float)}
    metrics = {**last, **final}
    return TrialResult(
        trial,
        progress.history,
        metrics,
        progress.wall_seconds,
        progress.device_seconds,
        metrics.get("epoch_equivalents", 0.0),
        failed,
    )
