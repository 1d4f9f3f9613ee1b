"""Searches that are made of many short trainings: what proposes them, and what carries them out."""

from __future__ import annotations

import math
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from raysearch.errors import RaysearchError
from raysearch.methods._base import Method, SearchMethod
from raysearch.policy import Policy
from raysearch.training import Task

Values = Mapping[str, Any]
SMALLEST_GROUP = 8


@dataclass(frozen=True)
class Proposal:
    """A training that a search wants to be carried out.

    Attributes:
        id: unique within the search; the same when it is proposed again.
        round: which of the search's rounds it belongs to, counted from 0.
        values: what the worker has to know: numbers, strings and NumPy arrays.
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

    @staticmethod
    def group(at_once: int) -> int:
        """Trials in a round where nothing is asked for: so many that no worker has one less.

        Args:
            at_once: how many run at the same time.
        """
        return at_once * math.ceil(SMALLEST_GROUP / at_once)

    @classmethod
    @abstractmethod
    def worker(cls, task: Task, method: Values, training: Values, prepared: Values) -> Worker:
        """Carries out the proposals of the search of the task's seed.

        Args:
            task: data, network, device and seed.
            method, training: see the class.
            prepared: what the preparation left, of a `PreparedTrialSearch`; else empty.
        """

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

    def keep_record(self, path: Path) -> None:
        """Where to keep a record of the search for people, if it has one; before it is asked.

        Args:
            path: of the record, without an ending.
        """
        return

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that a restored search needs; what was asked for and not told is asked for again."""

    @abstractmethod
    def load_state_dict(self, state: Values) -> None:
        """Continue from the `state_dict` of a search with the same arguments."""


class PreparedTrialSearch(TrialSearch):
    """A search whose workers start from what one training before its first round has left."""

    @classmethod
    @abstractmethod
    def preparation(cls, task: Task, search: Values, method: Values) -> SearchMethod:
        """That training, whose `trained()` goes to every worker."""

    @classmethod
    @abstractmethod
    def fits(cls, prepared: Values, task: Task, search: Values, method: Values) -> None:
        """That what another run's preparation left can be used here.

        Raises:
            RaysearchError: it cannot; the message says why.
        """


def tidy(search: TrialSearch, folder: Path) -> None:
    """Between two rounds, remove the files that no proposal to come goes on from."""
    needed = {file_of(folder, proposal) for proposal in search.needed()}
    for path in folder.glob("*.pt"):
        if path not in needed:
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
