"""The searches of an experiment, as far as they are: whom to ask next, and what was answered."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysearch.engine._entries import Ended, Entry, Outcome
from raysearch.engine._files import Progress, ProposalFolder, keep_state, states
from raysearch.errors import RaysearchError, SearchFailedError
from raysearch.policy import Policy
from raysearch.protocol import Answer, Failed, Metrics, Proposal, Values
from raysearch.trials import TrialInfo, TrialResult, Watcher


@dataclass
class _Running:
    """A search, and what it has cost."""

    entry: Entry
    folder: Path
    history: list[Metrics] = field(default_factory=list)
    wall_seconds: float = 0.0
    device_seconds: float = 0.0
    beside: list[TrialResult] = field(default_factory=list)
    needed_before: tuple[str, ...] = ()  # by the state before the newest one
    rounds: dict[str, int] = field(default_factory=dict)  # of the proposals whose files are there
    active: set[str] = field(default_factory=set)  # proposals that are worked on
    since: float = 0.0  # when the first of them was handed out, on the monotonic clock
    announced: bool = False
    outcome: Outcome | None = None

    def proposal(self, id_: str) -> ProposalFolder:
        return ProposalFolder(self.folder / id_)

    def state(self) -> dict[str, Any]:
        return {
            "search": self.entry.search.state_dict(),
            "history": self.history,
            "wall_seconds": self.wall_seconds,
            "device_seconds": self.device_seconds,
            "needed_before": list(self.needed_before),
            "rounds": dict(self.rounds),
        }

    def take(self, state: Values) -> None:
        self.entry.search.load_state_dict(state["search"])
        self.history = list(state["history"])
        self.wall_seconds, self.device_seconds = state["wall_seconds"], state["device_seconds"]
        self.needed_before = tuple(state["needed_before"])
        self.rounds = dict(state["rounds"])


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

    def entry(self, name: str) -> Entry:
        """The entry of that id."""
        return self._running[name].entry

    def folder(self, name: str) -> Path:
        """The entry's folder."""
        return self._running[name].folder

    def add(self, entries: Sequence[Entry]) -> None:
        """Take entries in, each as far as its files say that it is.

        Raises:
            RaysearchError: an id is taken, or neither of a search's states can be read.
        """
        new = []
        for entry in entries:
            if entry.id in self._running:
                raise RaysearchError(f"two searches are called {entry.id}")
            one = _Running(entry, self._folder / entry.id)
            one.folder.mkdir(parents=True, exist_ok=True)
            self._running[entry.id] = one
            self._load(one)
            for id_, file in entry.given.items():
                one.proposal(id_).give_file(file)
            new.append(one)
        done = [one for one in new if self._already_over(one)]
        trials = [trial for one in new for trial in _trials(one.entry)]
        for watcher in self._watchers if trials else ():
            watcher.planned(trials, sum(len(_trials(one.entry)) for one in done))
        for one in new:
            self._replay(one)

    def _already_over(self, one: _Running) -> bool:
        """Whether the search had ended in an earlier attempt."""
        if one.entry.asks_once:
            return all(one.proposal(id_).answered for id_ in one.entry.shown)
        return one.entry.search.finished

    def _load(self, one: _Running) -> None:
        """Go on from the newest of the search's states that is whole."""
        damaged: Path | None = None
        for path, state in states(one.folder):
            if state is None:
                damaged = damaged or path
                continue
            one.take(state)
            if damaged is not None:
                self.say(
                    f"{one.entry.trial.name}: {damaged} is damaged; it goes on from the round "
                    "before"
                )
                path.replace(damaged)
            return
        if damaged is not None:
            raise RaysearchError(
                f"{one.entry.trial.name}: {damaged} is damaged, and there is none before it; "
                f"remove {one.folder} to begin this search again"
            )

    def _replay(self, one: _Running) -> None:
        """Tell the search what was answered before the driver died, until something is left."""
        search = one.entry.search
        while not self._is_over(one):
            asked: list[Proposal] = []
            answered = 0
            while (proposal := search.ask()) is not None:
                if one.proposal(proposal.id).answered:
                    answered += 1
                    one.rounds[proposal.id] = proposal.round
                    self.tell(one.entry.id, proposal.id)
                    if self._is_over(one):
                        break
                else:
                    asked.append(proposal)
            for proposal in asked:
                search.retract(proposal.id)
                self._say_what_is_damaged(one, proposal)
            if not answered:
                if search.finished and one.outcome is None:
                    self._end(one, None)
                return

    def _say_what_is_damaged(self, one: _Running, proposal: Proposal) -> None:
        folder = one.proposal(proposal.id)
        newest = folder.newest()
        for path in folder.damaged():
            self.say(
                f"{self.name(one.entry.id, proposal.id)}: {path} is damaged; it goes on from "
                f"{newest or 'its start'}"
            )

    def ask(self, room: Callable[[Entry, str], bool]) -> tuple[Entry, Proposal] | None:
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
            one.rounds[proposal.id] = proposal.round
            self._started(one, proposal.id)
            return one.entry, proposal
        return None

    def _started(self, one: _Running, id_: str) -> None:
        if not one.active:
            one.since = time.monotonic()
        one.active.add(id_)
        told = one.entry.shown.get(id_)
        if not one.announced and not one.entry.asks_once:
            one.announced = True
            self._tell_started(one.entry.trial)
        if told is not None:
            self._tell_started(told)

    def _tell_started(self, trial: TrialInfo) -> None:
        for watcher in self._watchers:
            watcher.trial_started(trial)

    def progress(self, name: str, id_: str, rows: Iterable[Metrics]) -> None:
        """Epochs of a proposal's work have ended."""
        told = self._running[name].entry.shown.get(id_)
        for row in rows if told is not None else ():
            assert told is not None
            for watcher in self._watchers:
                watcher.trial_progress(told, int(row["epoch"]), row)

    def retract(self, name: str, id_: str) -> None:
        """The process that worked on a proposal has died."""
        one = self._running[name]
        self._stopped(one, id_)
        if not self._is_over(one):
            one.entry.search.retract(id_)

    def _stopped(self, one: _Running, id_: str) -> None:
        one.active.discard(id_)
        now = time.monotonic()
        if one.since:
            one.wall_seconds += now - one.since
        one.since = now if one.active else 0.0

    def tell(self, name: str, id_: str) -> None:
        """A proposal has its answer, on disk."""
        one = self._running[name]
        self._stopped(one, id_)
        if self._is_over(one):
            return
        entry = one.entry
        answer, progress = one.proposal(id_).read_answer()
        one.device_seconds += progress.device_seconds
        told = entry.shown.get(id_)
        if told is not None and told != entry.trial:
            one.beside.append(_result(told, answer, progress))
            self._finished(one.beside[-1])
        try:
            rows = entry.search.tell(id_, answer)
        except SearchFailedError as error:
            self.fail(entry.method, error)
            return
        one.history += rows
        for row in rows:
            for watcher in self._watchers:
                watcher.trial_progress(entry.trial, int(row["epoch"]), row)
        if entry.asks_once:
            self._end(one, (answer, progress))
        elif rows:
            self._keep(one)
            if entry.search.finished:
                self._end(one, None)

    def _finished(self, result: TrialResult) -> None:
        costs = {
            "wall_seconds": result.wall_seconds,
            "device_seconds": result.device_seconds,
            "epoch_equivalents": result.epoch_equivalents,
        }
        for watcher in self._watchers:
            watcher.trial_finished(result.trial, result.error, {**result.metrics, **costs})

    def _keep(self, one: _Running) -> None:
        """Keep the state at a round's end, and remove the files that no round will need.

        Those of the round that has just ended stay, and those that it needed: should the state be
        damaged, the search goes on from the one before.
        """
        search = one.entry.search
        needed = tuple(search.needed())
        keep = {*needed, *one.needed_before, *one.entry.shown}
        one.needed_before = needed
        gone = [
            id_
            for id_, round_ in one.rounds.items()
            if round_ < search.round - 1 and id_ not in keep
        ]
        for id_ in gone:
            del one.rounds[id_]
        keep_state(one.folder, one.state())
        for id_ in gone:
            shutil.rmtree(one.folder / id_, ignore_errors=True)

    def _end(self, one: _Running, last: tuple[Answer | Failed, Progress] | None) -> None:
        """The search has ended: make its outcome, and take in what that makes possible."""
        entry = one.entry
        policy: Policy | None = None
        network: Path | None = None
        if last is not None:
            answer, progress = last
            result = _result(entry.trial, answer, progress)
            policy = answer.policy if isinstance(answer, Answer) else None
            network = one.proposal(next(iter(entry.shown))).network
        else:
            metrics = dict(one.history[-1]) if one.history else {}
            result = TrialResult(
                entry.trial,
                one.history,
                metrics,
                one.wall_seconds,
                one.device_seconds,
                metrics.get("epoch_equivalents", 0.0),
            )
            policy = entry.search.policy()
        one.outcome = Outcome(entry, result, tuple(one.beside), policy, network, one.folder)
        self._finished(result)
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
            if one.entry.method == method and one.outcome is None and (one.announced or one.active):
                for watcher in self._watchers:
                    watcher.trial_finished(one.entry.trial, reason, {})

    def is_failed(self, name: str) -> bool:
        """Whether the entry's method cannot go on."""
        return self._running[name].entry.method in self.failed

    def name(self, name: str, id_: str) -> str:
        """What people call a proposal's trial."""
        entry = self._running[name].entry
        told = entry.shown.get(id_)
        return told.name if told is not None else f"{entry.trial.name} trial {id_}"

    def last_checkpoint(self, name: str, id_: str) -> str:
        """Where a proposal's work goes on from, for people."""
        return str(self._running[name].proposal(id_).newest() or "its start")

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
