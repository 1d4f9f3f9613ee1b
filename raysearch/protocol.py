"""What methods and the engine say to each other: work, and searches that propose it.

A `Search` asks for work and is told the answers; a `Work` is a resumable computation that answers
one proposal. A training, a single-pass search, a fine-tuning, a member's interval and a policy
tried on held-out images are work. AWS, OHL, PBA, Fast AutoAugment and what Optuna drives ask in
rounds; a single-pass method and the evaluation of a policy ask once. Neither side knows where work
is done.

    while (proposal := search.ask()) is not None:
        work = build(proposal, files)
        while work.epoch < work.epochs:
            work.step()
        search.tell(proposal.id, work.answer())
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from raysearch.policy import Policy

Values = Mapping[str, Any]
"""Numbers, strings, bytes, NumPy arrays, tensors on the CPU, and lists and dictionaries of them."""

Metrics = dict[str, float]
"""Figures of an epoch or a round, by name."""


@dataclass(frozen=True)
class Proposal:
    """Work that a search wants to be done.

    Attributes:
        id: unique within the search, fit as a file's name, and the same when it is asked for again.
        round: which of the search's rounds it belongs to, counted from 0.
        values: what the work has to know.
        needs: earlier proposals of the search whose files the work goes on from.
        stage: whose settings it follows and whose resources it holds: "search", "finetune" or
            "evaluation".
    """

    id: str
    round: int
    values: Values = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    stage: str = "search"


@dataclass(frozen=True)
class Answer:
    """What work leaves when it is done; the same for the same proposal, whoever did it.

    Attributes:
        values: what the search is told; `epoch_equivalents`, the work's whole arithmetic, is always
            there.
        policy: what was found, where the work is a whole search.
        network: a trained network that is a result; see `raysearch.load_network`.
        file: what later proposals may go on from; stays on disk, the search is not told.
    """

    values: Values
    policy: Policy | None = None
    network: Values | None = None
    file: Values | None = None


@dataclass(frozen=True)
class Failed:
    """The answer of work that cannot end, as its loss became NaN or infinite, say.

    Attributes:
        reason: why, in one line.
    """

    reason: str


class Work(Protocol):
    """A resumable computation. Restored, it goes on bit for bit on the CPU.

    Attributes:
        epochs: how many steps it has.
        epoch: how many are done.
    """

    @property
    def epochs(self) -> int: ...
    @property
    def epoch(self) -> int: ...

    def step(self) -> Metrics:
        """One epoch.

        Raises:
            DivergedError: it cannot go on; that is an answer, see `Failed`.
        """

    def answer(self) -> Answer:
        """What came of it, after the last epoch."""

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on after the last finished epoch."""

    def load_state_dict(self, state: Values) -> None:
        """Go on from there."""


class Build(Protocol):
    """Makes a search's work from its proposals, in a process that has the data.

    One is made for each search in each process and kept there, so it may keep what is costly.
    """

    def __call__(self, proposal: Proposal, files: Mapping[str, Values]) -> Work:
        """The work of a proposal, at its beginning.

        Args:
            proposal: what to do.
            files: the `Answer.file` of each proposal in `proposal.needs`, by its id. Not to be
                changed.
        """


class Search(Protocol):
    """Proposes work and is told the answers.

    A round's work may be done in parallel and end in any order. What a search does depends on its
    arguments and on the answers alone, so neither the number of workers nor an interruption changes
    what it finds.

    Attributes:
        rounds: how many it has.
        round: how many are done.
        rows: how many its history will have.
    """

    @property
    def rounds(self) -> int: ...
    @property
    def round(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def finished(self) -> bool:
        """Whether nothing is left to ask for."""

    def ask(self) -> Proposal | None:
        """The next proposal; None while answers are awaited, and when the search has finished."""

    def tell(self, id: str, answer: Answer | Failed) -> Sequence[Metrics]:
        """Take an answer.

        Args:
            id: the proposal's.
            answer: of its work.

        Returns:
            What the search's history gains: a row for each round, or epoch, that has ended with
            this answer; `epoch` counts from 1, `epoch_equivalents` those of the search so far.

        Raises:
            KeyError: it was not asked for.
            SearchFailedError: everything that was tried has failed; the search cannot go on.
        """

    def retract(self, id: str) -> None:
        """The work's process has died: it will be asked for again."""

    def needed(self) -> Collection[str]:
        """The proposals whose files those to come may go on from."""

    def policy(self) -> Policy:
        """The policy as it stands."""

    def state_dict(self) -> dict[str, Any]:
        """All that a restored search needs; what was asked for and not told is asked for again."""

    def load_state_dict(self, state: Values) -> None:
        """Go on from the `state_dict` of a search with the same arguments."""
