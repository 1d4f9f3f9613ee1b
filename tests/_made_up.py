"""Searches and work that compute nothing, to test the engine with."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysearch.engine import Entry, Place, Share
from raysearch.errors import DivergedError, RaysearchError
from raysearch.methods import Once
from raysearch.policy import Policy, trivial_augment
from raysearch.protocol import Answer, Failed, Metrics, Proposal, Values
from raysearch.trials import TrialInfo

CPU = Share(1.0, 0.0, "cpu")
PLACE = Place(CPU, 2)


class MadeUpWork:
    """Adds up numbers, one an epoch."""

    def __init__(self, values: Values, start: float) -> None:
        self.values, self.total = values, start
        self.epochs, self.epoch = int(values.get("epochs", 1)), 0

    def step(self) -> Metrics:
        time.sleep(self.values.get("seconds", 0.0))
        if self.values.get("diverges") == self.epoch + 1:
            raise DivergedError("it came to nothing")
        if self.values.get("wrong"):
            raise RaysearchError("a person has to mend this")
        die = self.values.get("dies")
        if die and self.epoch + 1 == self.values["epochs"] and not Path(die).exists():
            Path(die).touch()
            os._exit(1)
        self.epoch += 1
        self.total += self.values.get("add", 1.0)
        worker = {"worker": float(os.getpid())} if self.values.get("pid") else {}
        return {"total": self.total, "epoch_equivalents": float(self.epoch), **worker}

    def answer(self) -> Answer:
        values = {"total": self.total, "epoch_equivalents": float(self.epochs)}
        return Answer(values, trivial_augment(), file={"total": self.total})

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "total": self.total}

    def load_state_dict(self, state: Values) -> None:
        self.epoch, self.total = state["epoch"], state["total"]


@dataclass(frozen=True)
class MadeUpBuild:
    """Builds that work; what it goes on from is added up."""

    shared: float

    def __call__(self, proposal: Proposal, files: Mapping[str, Values]) -> MadeUpWork:
        start = sum(file["total"] for file in files.values())
        return MadeUpWork(proposal.values, self.shared + start)


class MadeUpRounds:
    """A search in rounds of three, each of which goes on from the best one of the round before."""

    def __init__(self, rounds: int, **values: Any) -> None:
        self.values, self.rounds, self.round = values, rounds, 0
        self.best = ""
        self.totals: dict[str, float] = {}
        self.asked: set[str] = set()

    @property
    def finished(self) -> bool:
        return self.round == self.rounds

    @property
    def rows(self) -> int:
        return self.rounds

    def _ids(self) -> list[str]:
        return [f"{self.round + 1:04d}-{i}" for i in range(3)]

    def ask(self) -> Proposal | None:
        for i, id_ in enumerate(self._ids() if not self.finished else []):
            if id_ not in self.asked and id_ not in self.totals:
                self.asked.add(id_)
                needs = (self.best,) if self.best else ()
                values = {**self.values, "add": float(i)}
                if i:
                    values.pop("diverges", None)  # of a round only the first does
                return Proposal(id_, self.round, values, needs)
        return None

    def tell(self, id: str, answer: Answer | Failed) -> Sequence[Metrics]:
        self.asked.remove(id)
        self.totals[id] = -1.0 if isinstance(answer, Failed) else answer.values["total"]
        if len(self.totals) < 3:
            return ()
        self.best = max(self._ids(), key=lambda one: self.totals[one])
        total = self.totals[self.best]
        self.totals = {}
        self.round += 1
        return (
            {"epoch": float(self.round), "total": total, "epoch_equivalents": self.round * 3.0},
        )

    def retract(self, id: str) -> None:
        self.asked.remove(id)

    def needed(self) -> Collection[str]:
        return () if self.finished else (self.best,)

    def policy(self) -> Policy:
        return trivial_augment()

    def state_dict(self) -> dict[str, Any]:
        return {"round": self.round, "best": self.best, "totals": dict(self.totals)}

    def load_state_dict(self, state: Values) -> None:
        self.round, self.best, self.totals = state["round"], state["best"], dict(state["totals"])
        self.asked = set()


def trial(name: str, method: str = "made_up", stage: str = "search", epochs: int = 1) -> TrialInfo:
    return TrialInfo(name, method, stage, name, None, 0, epochs)


def once(name: str, method: str = "made_up", **values: Any) -> Entry:
    info = trial(name, method, epochs=values.get("epochs", 1))
    search, shown = Once("search", values=values), {"search": info}
    return Entry(name, method, info, search, MadeUpBuild, {"search": PLACE}, shown=shown)


def in_rounds(name: str, rounds: int, method: str = "made_up", **values: Any) -> Entry:
    info = trial(name, method, epochs=rounds)
    return Entry(name, method, info, MadeUpRounds(rounds, **values), MadeUpBuild, {"search": PLACE})


@dataclass
class Told:
    """A watcher that remembers."""

    events: list[str] = field(default_factory=list)

    def planned(self, trials: Sequence[TrialInfo], done: int) -> None:
        self.events.append(f"planned {[one.id for one in trials]} {done}")

    def trial_started(self, trial: TrialInfo) -> None:
        self.events.append(f"started {trial.id}")

    def trial_progress(self, trial: TrialInfo, epoch: int, metrics: Mapping[str, float]) -> None:
        self.events.append(f"progress {trial.id} {epoch}")

    def trial_finished(
        self, trial: TrialInfo, error: str | None, metrics: Mapping[str, float]
    ) -> None:
        self.events.append(f"finished {trial.id} {error}")

    def message(self, text: str) -> None:
        self.events.append(text)

    def ended(self) -> None:
        self.events.append("ended")
