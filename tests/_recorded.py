"""Searches carried out with made-up answers, or with real work answered in any order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from conftest import through_a_file

from benchmarks._local import answer_to
from raysearch.protocol import Answer, Build, Failed, Metrics, Proposal, Search, Values

Answers = Callable[[Proposal], Answer | Failed]


@dataclass
class Carried:
    """What came of it.

    Attributes:
        history: the search's rows.
        asked: the proposals, in the order of their answers.
        files: what was left when it stopped.
    """

    history: list[Metrics] = field(default_factory=list)
    asked: list[Proposal] = field(default_factory=list)
    files: dict[str, Values] = field(default_factory=dict)


def carry_out(
    search: Search,
    answers: Answers | None = None,
    *,
    build: Build | None = None,
    order: int = 1,
    most: int | None = None,
    files: Mapping[str, Values] | None = None,
) -> Carried:
    """Ask for whole rounds and tell the answers, in the order of asking or in reverse.

    Args:
        search: is asked until it has finished.
        answers: by which rule proposals are answered; no work is done.
        build: makes the work, where there is no rule.
        order: 1, or -1 for the reverse.
        most: answers after which to stop.
        files: of earlier proposals.
    """
    found = Carried(files=dict(files or {}))
    while not search.finished and len(found.asked) != most:
        round_: list[Proposal] = []
        while (proposal := search.ask()) is not None:
            round_.append(proposal)
        assert round_
        for proposal in round_[::order]:
            if len(found.asked) == most:
                break
            if answers is not None:
                answer = answers(proposal)
            else:
                assert build is not None
                answer = answer_to(proposal, build, found.files)
            if isinstance(answer, Answer) and answer.file is not None:
                found.files[proposal.id] = through_a_file(dict(answer.file))
            found.asked.append(proposal)
            found.history += search.tell(proposal.id, answer)
            needed = set(search.needed())
            found.files = {id: file for id, file in found.files.items() if id in needed}
    return found


def pair_answer(proposal: Proposal) -> Answer:
    """To a trial of AWS or OHL: the reward is how often it drew the first pair."""
    shown = dict.fromkeys(("train_loss", "val_loss", "val_error", "lr"), 1.0)
    if proposal.id == "shared":
        return Answer({**shown, "epoch_equivalents": 10.0}, file={"weights": 1.0})
    p = np.exp(proposal.values["log_probabilities"].astype(np.float64)).flatten()
    generator = np.random.default_rng(proposal.values["seed"])
    counts = generator.multinomial(8, p / p.sum()).astype(np.int32)
    values: dict[str, Any] = {"counts": counts, "reward": float(counts[0])}
    costs = {"epoch_equivalents": 2.0, "shared_equivalents": 10.0}
    return Answer({**shown, **values, **costs}, file={"weights": 1.0})


def failing(answers: Answers, *ids: str) -> Answers:
    """The same rule, but for some proposals that fail."""

    def answer(proposal: Proposal) -> Answer | Failed:
        return Failed("the loss is not finite") if proposal.id in ids else answers(proposal)

    return answer
