"""What searches in rounds share: asking, waiting for a round's answers, failures, continuation."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from raysearch.errors import SearchFailedError
from raysearch.policy import Policy
from raysearch.protocol import Answer, Failed, Metrics, Proposal, Values

SHOWN = ("train_loss", "lr")


class RoundSearch(ABC):
    """A search in rounds, of each of which it is known what will be asked for.

    See `raysearch.protocol.Search`. A round's work may end in any order: the search moves when it
    has been told about all of it, and reads the answers in the order of asking.

    What failed has cost nobody knows how much; it counts as much as the dearest of its round, or
    of the last round in which any ended.

    Args:
        seed: everything random follows from it.
        rounds: how many it has.

    Attributes:
        round: how many are done.
        equivalents: epoch-equivalents of the rounds that are done.
    """

    def __init__(self, seed: int, rounds: int) -> None:
        self.seed, self.rounds = seed, rounds
        self.round = 0
        self.equivalents = 0.0
        self._dearest = 0.0  # of the last round in which any ended
        self._proposals: list[Proposal] = []  # of this round, once it has begun
        self._asked: set[str] = set()  # of them, and not told yet
        self._answers: dict[str, Values] = {}  # to them
        self._failed: dict[str, str] = {}  # and why others could not end

    @abstractmethod
    def propose(self) -> Sequence[Proposal]:
        """All of the round that is going on; the same from the same state."""

    @abstractmethod
    def end_round(self, answers: Sequence[Values | None]) -> Sequence[Metrics]:
        """Learn from a round, before `round` counts it.

        Args:
            answers: their values in the order of asking, arrays as tensors; None of what failed.

        Returns:
            Rows of the search's history; see `row`.
        """

    @abstractmethod
    def policy(self) -> Policy:
        """The policy as it stands."""

    def goes_on(self) -> bool:
        """Whether it can go on although all of the round that ends has failed."""
        return False

    @property
    def finished(self) -> bool:
        """Whether nothing is left to ask for."""
        return self.round >= self.rounds

    @property
    def rows(self) -> int:
        """How many its history will have: one for every round."""
        return self.rounds

    @property
    def proposals(self) -> list[Proposal]:
        """Of the round that is going on, made once."""
        self._proposals = self._proposals or list(self.propose())
        return self._proposals

    def row(self, metrics: Mapping[str, float]) -> Metrics:
        """A row for the round that ends."""
        return {"epoch": self.round + 1, **metrics, "epoch_equivalents": self.equivalents}

    def ask(self) -> Proposal | None:
        """The first of the round's that is neither asked for nor answered."""
        if self.finished:
            return None
        taken = self._asked | set(self._answers) | set(self._failed)
        for proposal in self.proposals:
            if proposal.id not in taken:
                self._asked.add(proposal.id)
                return proposal
        return None

    def tell(self, id: str, answer: Answer | Failed) -> Sequence[Metrics]:
        """Take an answer; after a round's last one the search moves on. See `Search.tell`."""
        self._asked.remove(id)
        if isinstance(answer, Failed):
            self._failed[id] = answer.reason
        else:
            # copies: what comes through Ray's object store cannot be written to
            self._answers[id] = {
                key: torch.tensor(value) if isinstance(value, np.ndarray) else value
                for key, value in answer.values.items()
            }
        if len(self._answers) + len(self._failed) < len(self.proposals):
            return ()
        answers = [self._answers.get(proposal.id) for proposal in self.proposals]
        reasons, self._answers, self._failed = list(self._failed.values()), {}, {}
        if all(one is None for one in answers) and not self.goes_on():
            several = f"all {len(answers)} trials of a round failed: " if len(answers) > 1 else ""
            raise SearchFailedError(several + reasons[0])
        costs = [None if one is None else float(one["epoch_equivalents"]) for one in answers]
        known = [cost for cost in costs if cost is not None]
        self._dearest = max(known, default=self._dearest)
        self.equivalents += sum(self._dearest if cost is None else cost for cost in costs)
        rows = self.end_round(answers)
        self.round, self._proposals = self.round + 1, []
        return rows

    def retract(self, id: str) -> None:
        """See `Search.retract`."""
        self._asked.remove(id)

    def needed(self) -> Collection[str]:
        """What this round goes on from, and what it has left so far."""
        if self.finished:
            return ()
        return {need for one in self.proposals for need in one.needs} | set(self._answers)

    def state_dict(self) -> dict[str, Any]:
        """How far the search is, and the round's answers; a subclass adds what it has learned."""
        return {
            "round": self.round,
            "equivalents": self.equivalents,
            "dearest": self._dearest,
            "answers": dict(self._answers),
            "failed": dict(self._failed),
        }

    def load_state_dict(self, state: Values) -> None:
        """Go on from `state_dict`."""
        self.round, self.equivalents = state["round"], state["equivalents"]
        self._dearest = state["dearest"]
        self._answers, self._failed = dict(state["answers"]), dict(state["failed"])
        self._asked, self._proposals = set(), []


def trial_id(round_: int, index: int) -> str:
    """The id of a round's proposal; random numbers of searches follow from it.

    Args:
        round_: counted from 1.
        index: in the round, counted from 0.
    """
    return f"{round_:04d}-{index + 1:02d}"


def operation_figures(policy: Policy, names: Sequence[str]) -> Metrics:
    """Entropy of the operations' shares, their divergence from uniform, and the shares.

    All are 0 where nothing is applied.
    """
    marginals = policy.marginals()
    shares = {name: marginals.get(name, 0.0) for name in names}
    entropy = math.fsum(-share * math.log(share) for share in shares.values() if share > 0)
    return {
        "entropy": entropy,
        "kl_uniform": max(0.0, math.fsum(shares.values()) * math.log(len(names)) - entropy),
        **{f"share/{name}": share for name, share in shares.items()},
    }


def means(answers: Sequence[Values | None]) -> Metrics:
    """Of a round's answers, the means of `train_loss`, `lr` and all `val_` figures that they have.

    What failed has none; nothing where all of it did.
    """
    known = [one for one in answers if one is not None]
    keys = [key for key in next(iter(known), {}) if key in SHOWN or key.startswith("val_")]
    return {key: sum(float(one[key]) for one in known) / len(known) for key in keys}
