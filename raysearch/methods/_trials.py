"""Searches that are made of many short trainings: what proposes them, and what carries them out."""

from __future__ import annotations

import math
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from raysearch.errors import RaysearchError
from raysearch.methods._base import Method, SearchMethod
from raysearch.policy import Policy
from raysearch.training import Setup

Values = Mapping[str, Any]
SMALLEST_GROUP = 8


@dataclass(frozen=True)
class Proposal:
    """A training that a search wants to be carried out.

    Attributes:
        id: unique within the search; the same when it is proposed again.
        round: which of the search's rounds it belongs to, counted from 0.
        values: what the worker has to know: numbers, strings, bytes and NumPy arrays.
    """

    id: str
    round: int
    values: Values


class Worker(Protocol):
    """Carries proposals out, in a process that has the data and keeps them."""

    def __call__(self, proposal: Proposal, folder: Path) -> dict[str, Any]:
        """What the search is told: numbers and NumPy arrays; `epoch_equivalents` among them.

        The same proposal has the same answer, whoever carries it out.

        Args:
            proposal: what to do.
            folder: seen by all workers of the search. Where one may keep, in the proposal's file
                (see `file_of`), how far it is, so that it need not begin anew, or what later
                proposals go on from.

        Raises:
            NonFiniteLossError: the loss became NaN or infinite.
        """


def file_of(folder: Path, proposal: str) -> Path:
    """A proposal's file in the folder of its search.

    Args:
        folder: see `Worker`.
        proposal: its id.
    """
    return folder / f"{proposal}.pt"


class TrialSearch(Method, ABC):
    """A policy search that asks for trainings and is told how they went.

    A round's trainings may run in parallel and end in any order: the search is told about each,
    and the policy moves when it has been told about all. What it does depends on the answers
    alone, so the number of workers changes nothing but, where `parallel` is left open, that.

    Args:
        seed: everything random follows from it.
        method: the `method` group of the configuration.
        training: how its trials train: the `finetune` group of the configuration where there is
            one, else `search`; and `parallel`, the number of trials in a round.

    Attributes:
        rounds: how many the search has.
        round: how many are done.
        metrics: of the round that was done last; see `SearchMethod.step`.
    """

    rounds: int
    round: int = 0
    metrics: dict[str, float]

    @abstractmethod
    def __init__(self, seed: int, method: Values, training: Values) -> None: ...

    @classmethod
    def group(cls, at_once: int, method: Values) -> int:
        """Trials in a round where nothing is asked for: so many that no worker has one less.

        Args:
            at_once: how many run at the same time.
            method: the `method` group.
        """
        return at_once * math.ceil(SMALLEST_GROUP / at_once)

    @classmethod
    @abstractmethod
    def worker(cls, setup: Setup, method: Values, training: Values, prepared: Values) -> Worker:
        """Carries out the proposals of the search of the setup's seed.

        Args:
            setup: data, network, device and seed.
            method, training: see the class.
            prepared: what the preparation left, of a `PreparedTrialSearch`; else empty.
        """

    @property
    @abstractmethod
    def trainings(self) -> int:
        """Trainings of all the epochs in `training` that it will ask for, or as many in parts."""

    @property
    def proposals(self) -> int:
        """How often it will ask."""
        return self.trainings

    @property
    def files(self) -> int:
        """Most files (see `file_of`) that there are at a time."""
        return 0

    @abstractmethod
    def equivalents(self, setup: Setup) -> float:
        """Arithmetic of all that it will ask for, in epoch-equivalents; at most, of trials that
        may be given up.
        """

    @abstractmethod
    def describe(self) -> str:
        """What it will ask for, in a few words."""

    @property
    def finished(self) -> bool:
        """Whether nothing is left to ask for."""
        return self.round >= self.rounds

    @abstractmethod
    def ask(self) -> Proposal | None:
        """The next training, or None while the round's last answers are awaited."""

    @abstractmethod
    def tell(self, proposal: str, answer: Values) -> dict[str, float] | None:
        """Take an answer; the round's metrics where it was the round's last.

        Args:
            proposal: its id.
            answer: what the worker returned.

        Raises:
            KeyError: it was not asked for.
        """

    @abstractmethod
    def policy(self) -> Policy:
        """The policy as it stands."""

    @abstractmethod
    def retract(self, proposal: str) -> None:
        """It will not be told about a training that it asked for, and has to ask again."""

    def needed(self) -> Collection[str]:
        """The proposals of rounds gone by whose files those to come go on from."""
        return ()

    def keep_record(self, folder: Path) -> None:
        """Keep a record for people, where the search has one, in the run's folder; told first."""
        return

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that a restored search needs; what was asked for and not told is asked for again."""

    @abstractmethod
    def load_state_dict(self, state: Values) -> None:
        """Continue from the `state_dict` of a search with the same arguments."""


class RoundSearch(TrialSearch):
    """A search in whose rounds it is known from the beginning what will be asked for.

    Args:
        seed: see `TrialSearch`.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.metrics: dict[str, float] = {}
        self._asked: set[str] = set()  # of this round, and not told yet
        self._answers: dict[str, Values] = {}  # of this round
        self._equivalents = 0.0

    @abstractmethod
    def size(self) -> int:
        """Trainings in the round that is going on."""

    @abstractmethod
    def values(self, index: int, id_: str) -> Values:
        """What the round's training with this index, counted from 0, is proposed with."""

    @abstractmethod
    def end_round(self, answers: Sequence[Values]) -> dict[str, float]:
        """Learn from a round; its metrics, without `epoch_equivalents`.

        Args:
            answers: in the order of asking.
        """

    @property
    def trainings(self) -> int:
        """See `TrialSearch.trainings`."""
        return self.rounds * self.size()

    def describe(self) -> str:
        """See `TrialSearch.describe`."""
        return f"{self.trainings} trials, {self.size()} between two proposals"

    def _ids(self) -> list[str]:
        return [f"{self.round + 1:04d}-{index + 1:02d}" for index in range(self.size())]

    def ask(self) -> Proposal | None:
        """The first of the round's trainings that is neither asked for nor told about."""
        if self.finished:
            return None
        taken = self._asked | set(self._answers)
        for index, id_ in enumerate(self._ids()):
            if id_ not in taken:
                self._asked.add(id_)
                return Proposal(id_, self.round, self.values(index, id_))
        return None

    def tell(self, proposal: str, answer: Values) -> dict[str, float] | None:
        """After a round's last answer the search moves on."""
        self._asked.remove(proposal)
        # copies: what comes through Ray's object store cannot be written to
        self._answers[proposal] = {
            key: torch.tensor(value) if isinstance(value, np.ndarray) else value
            for key, value in answer.items()
        }
        if len(self._answers) < self.size():
            return None
        answers = [self._answers[id_] for id_ in self._ids()]
        self._equivalents += sum(float(answer["epoch_equivalents"]) for answer in answers)
        metrics = self.end_round(answers)
        self.metrics = {**metrics, "epoch_equivalents": self._equivalents}
        self.round += 1
        self._answers = {}
        return self.metrics

    def retract(self, proposal: str) -> None:
        """See `TrialSearch.retract`."""
        self._asked.remove(proposal)

    def state_dict(self) -> dict[str, Any]:
        """How far the search is, and the answers of the round; a subclass adds what it learned."""
        return {
            "round": self.round,
            "metrics": dict(self.metrics),
            "answers": dict(self._answers),
            "equivalents": self._equivalents,
        }

    def load_state_dict(self, state: Values) -> None:
        """Continue from `state_dict`; what was asked for and not told is asked for again."""
        self.round, self.metrics = state["round"], dict(state["metrics"])
        self._asked, self._equivalents = set(), state["equivalents"]
        self._answers = dict(state["answers"])


def mean_of(answers: Sequence[Values], *keys: str) -> dict[str, float]:
    """The means of numbers that all answers of a round have."""
    return {key: sum(float(one[key]) for one in answers) / len(answers) for key in keys}


class PreparedTrialSearch(TrialSearch):
    """A search whose workers start from what one training before its first round has left."""

    @classmethod
    @abstractmethod
    def preparation(cls, setup: Setup, search: Values, method: Values) -> SearchMethod:
        """That training, whose `trained()` goes to every worker."""

    @classmethod
    @abstractmethod
    def fits(cls, prepared: Values, setup: Setup, search: Values, method: Values) -> None:
        """That what another run's preparation left can be used here.

        Raises:
            RaysearchError: it cannot; the message says why.
        """


def unneeded(search: TrialSearch, folder: Path) -> Iterator[Path]:
    """Between two rounds, the files that no proposal to come goes on from."""
    needed = {file_of(folder, proposal) for proposal in search.needed()}
    return (path for path in folder.glob("*.pt") if path not in needed)


def tidy(search: TrialSearch, folder: Path) -> None:
    """Between two rounds, remove `unneeded` files."""
    for path in unneeded(search, folder):
        path.unlink(missing_ok=True)


def carry_out(
    search: TrialSearch, worker: Worker, each: Callable[[dict[str, float]], None] | None = None
) -> None:
    """A whole search in this process, one training after the other.

    Args:
        search: is asked until it has finished.
        worker: carries out what it asks for.
        each: given the metrics of every round.
    """
    with tempfile.TemporaryDirectory() as folder:
        while (proposal := search.ask()) is not None:
            metrics = search.tell(proposal.id, worker(proposal, Path(folder)))
            if metrics is not None:
                tidy(search, Path(folder))
                if each is not None:
                    each(metrics)
    if not search.finished:
        raise RaysearchError("the search asks for nothing and has not finished")
