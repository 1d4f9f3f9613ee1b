"""PBA's population: who copies whom, whatever fails, in whatever order members end."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from _recorded import carry_out, failing
from conftest import through_a_file
from ray.tune.schedulers import PopulationBasedTraining
from test_pba import METHOD

from benchmarks._local import Configured
from raysearch.errors import SearchFailedError
from raysearch.methods._population import Levels, exploit
from raysearch.methods._rounds import operation_figures
from raysearch.methods.pba import choose, explore
from raysearch.policy import Schedule
from raysearch.protocol import Answer, Proposal
from raysearch.training import derive_seed

SIZE, EPOCHS, INTERVAL = 6, 8, 3
GROUPS = Configured.of(
    {**METHOD, "population": SIZE, "interval": INTERVAL, "quantile": 0.34}, {"epochs": EPOCHS}
)


def rays_quantiles(scores: list[float], quantile: float) -> tuple[list[int], list[int]]:
    """Members that copy, and members that are copied, by Ray's own scheduler."""
    scheduler = PopulationBasedTraining(
        "epoch", "score", "max", quantile_fraction=quantile, custom_explore_fn=lambda config: config
    )
    trials = [mock.Mock(**{"is_finished.return_value": False}) for _ in scores]
    scheduler._trial_state = {
        trial: mock.Mock(last_score=score) for trial, score in zip(trials, scores, strict=True)
    }
    lower, upper = scheduler._quantiles()
    return [trials.index(trial) for trial in lower], [trials.index(trial) for trial in upper]


@pytest.mark.parametrize("size", range(2, 10))
@pytest.mark.parametrize("quantile", [0.01, 0.2, 0.25, 0.34, 0.5])
def test_the_quantiles_are_those_of_ray(size: int, quantile: float) -> None:
    generator = torch.Generator().manual_seed(size)
    for _ in range(20):
        scores = torch.randint(4, (size,), generator=generator).double().tolist()  # with ties
        lower, upper = rays_quantiles(scores, quantile)
        order, copies = exploit(scores, quantile)
        assert list(copies) == lower
        assert all(best == upper for best in copies.values())
        assert order[-1] == upper[-1] == max(range(size), key=lambda i: (scores[i], i))


@pytest.mark.parametrize("size", range(2, 6))
def test_all_that_failed_copy_and_none_copies_them(size: int) -> None:
    for failed in itertools.product((True, False), repeat=size):
        if all(failed):
            continue
        scores = [None if one else float(i % 2) for i, one in enumerate(failed)]
        order, copies = exploit(scores, 0.5)
        assert sorted(order) == list(range(size))
        assert {i for i, one in enumerate(failed) if one} <= set(copies)
        best = {i for several in copies.values() for i in several}
        assert not best & set(copies)
        assert all(scores[i] is not None for i in best)
        if any(failed):
            assert best


class Fake:
    """A member whose weight goes with its policies in a way that no two orders share."""

    def __init__(self, member: int) -> None:
        self.member, self.epoch, self.weight = member, 0, member
        self.lineage: list[Levels] = []

    def train(self, levels: Levels) -> list[dict[str, float]]:
        """An interval."""
        rows = []
        number = sum(map(sum, levels))
        for i in range(min(INTERVAL, EPOCHS - self.epoch)):
            self.epoch += 1
            self.weight = (31 * self.weight + 17 * number + self.epoch + self.member) % 1009
            self.lineage.append(levels)
            loss, cost = self.weight / 1009, 1.5 * (i + 1)
            rows.append({"train_loss": loss, "epoch_equivalents": cost})
        score = self.weight % 5  # with ties
        rows[-1] |= {"score": score, "val_loss": -score, "val_error": 100.0 - score}
        return rows


class Fakes:
    """Answers intervals by `Fake`, whatever order they come in."""

    def __init__(self) -> None:
        self.ended: dict[str, Fake] = {}

    def __call__(self, proposal: Proposal) -> Answer:
        member = proposal.values["member"]
        fake = Fake(member)
        for id in proposal.needs:
            fake = copy.deepcopy(self.ended[id])
            fake.member = member
        rows = fake.train(proposal.values["levels"])
        self.ended[proposal.id] = fake
        values: dict[str, Any] = {"score": rows[-1]["score"], "rows": rows}
        cost = {"epoch_equivalents": 1.5 * len(rows)}
        return Answer({**values, **cost}, file={"weight": fake.weight})


def expected(seed: int = 0) -> tuple[Schedule, list[dict[str, float]]]:
    """The policy and the history, by the algorithm written down once more."""
    settings = GROUPS.method
    members = [Fake(i) for i in range(SIZE)]
    policies = [settings.start] * SIZE
    history: list[dict[str, float]] = []
    while True:
        rows = [member.train(policy) for member, policy in zip(members, policies, strict=True)]
        epoch = members[0].epoch
        order = sorted(range(SIZE), key=lambda i: (rows[i][-1]["score"], i))
        best = order[-1]
        found = {key: rows[best][-1][key] for key in ("score", "val_loss", "val_error")}
        policy = settings.policy(policies[best])
        found |= operation_figures(policy, settings.operations)
        found["operations_per_image"] = policy.operations_per_image()
        for row in rows[best]:
            number = len(history) + 1
            cost = {"epoch": number, "epoch_equivalents": SIZE * 1.5 * number}
            history.append({**row, **found, **cost})
        if epoch == EPOCHS:
            return Schedule([settings.policy(one) for one in members[best].lineage]), history
        old, old_policies = copy.deepcopy(members), list(policies)
        for i in order[:3]:
            parent = choose(seed, order[-3:], i, epoch)
            members[i] = copy.deepcopy(old[parent])
            members[i].member = i
            generator = torch.Generator().manual_seed(derive_seed(seed, "explore", epoch, i))
            explored = explore(torch.tensor(old_policies[parent]), settings, generator)
            policies[i] = explored.tolist()


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_worst_copy_weights_and_policy_of_the_best_and_explore(seed: int, order: int) -> None:
    search = GROUPS.search(seed)
    found = carry_out(search, Fakes(), order=order)
    policy, history = expected(seed)
    assert search.policy() == policy
    assert found.history == history
    assert len(found.asked) == 3 * SIZE
    assert not found.files


@pytest.mark.parametrize("stop", [0, 1, 5, 6, 8, 12, 17])
def test_a_stopped_search_goes_on(stop: int) -> None:
    search, fakes = GROUPS.search(0), Fakes()
    first = carry_out(search, fakes, most=stop)
    if stop in (6, 12):  # what no member goes on from is removed
        assert set(first.files) == set(search.needed())
        assert len(first.files) < SIZE
    again = GROUPS.search(0)
    again.load_state_dict(through_a_file(search.state_dict()))
    second = carry_out(again, fakes, files=first.files)
    policy, history = expected()
    assert again.policy() == policy
    assert first.history + second.history == history


def test_a_member_that_failed_copies() -> None:
    search = GROUPS.search(0)
    found = carry_out(search, failing(Fakes(), "0001-06", "0002-02", "0003-01"))
    needs = {proposal.id: proposal.needs for proposal in found.asked}
    assert needs["0002-06"] != ("0001-06",)
    assert needs["0003-02"] != ("0002-02",)
    assert not {("0001-06",), ("0002-02",)} & set(needs.values())
    assert len(search.policy()) == EPOCHS
    assert [row["epoch"] for row in found.history] == list(range(1, EPOCHS + 1))
    total = found.history[-1]["epoch_equivalents"]
    assert total == SIZE * EPOCHS * 1.5  # it counts like the others


def test_a_round_that_fails_altogether_ends_the_search() -> None:
    every = [f"0002-{member + 1:02d}" for member in range(SIZE)]
    with pytest.raises(SearchFailedError, match="all 6 trials of a round failed"):
        carry_out(GROUPS.search(0), failing(Fakes(), *every))


def test_hundreds_of_members() -> None:
    method = replace(GROUPS.method, population=50)  # type: ignore[call-arg]
    search = replace(GROUPS, method=method).search(0)
    assert len(carry_out(search, Fakes()).asked) == 50 * math.ceil(EPOCHS / INTERVAL)
