"""PBA: its policy against enumeration, its explore rule, its members."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from _recorded import carry_out
from _settings import method_settings
from conftest import through_a_file

from benchmarks._local import Configured, answer_to
from raysearch import ops
from raysearch.data import load_dataset
from raysearch.errors import RaysearchError
from raysearch.methods._population import Levels
from raysearch.methods._rounds import operation_figures
from raysearch.methods._validated import ValidatedTraining
from raysearch.methods.pba import Pba, choose, explore
from raysearch.policy import Mixture, RandomOrder, Schedule, from_json, read_policy, trivial_augment
from raysearch.protocol import Answer, Build, Proposal, Values
from raysearch.training import Predefined, Setup, Training, derive_seed

SEARCH = {
    "epochs": 7,
    "batch_size": 50,
    "lr": 0.1,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 5e-4,
}
METHOD: dict[str, Any] = {
    "name": "pba",
    "operations": ["Rotate", "ShearX", "Invert"],
    "copies": 2,
    "counts": [0.2, 0.3, 0.5],
    "probability_levels": 10,
    "magnitude_levels": 9,
    "population": 4,
    "interval": 3,
    "quantile": 0.25,
    "resample": 0.2,
    "change": 3,
    "score": "loss",
}
LEVELS = [[10, 3, 5, 0, 7, 2], [9, 0, 4, 4, 1, 8]]
ZERO = [[0] * 6, [0] * 6]


def groups(
    method: Mapping[str, Any] | None = None, search: Mapping[str, Any] | None = None
) -> Configured:
    """The settings, some of them changed."""
    return Configured.of(METHOD | dict(method or {}), SEARCH | dict(search or {}))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def setup() -> Setup:
    data = load_dataset({"name": "digits", "limit": 200})
    return Setup(data, "small_cnn", torch.device("cpu"), 3, Predefined(padding=1))


# The policy.


def outcomes(p: list[float], counts: list[float]) -> dict[tuple[int, ...], float]:
    """Probability of every sequence of entries that an image may get, by enumeration."""
    found: Counter[tuple[int, ...]] = Counter()
    orders = list(itertools.permutations(range(len(p))))
    for order, hits in itertools.product(orders, itertools.product((0, 1), repeat=len(p))):
        weight = math.prod(q if hit else 1 - q for q, hit in zip(p, hits, strict=True))
        applied = [entry for entry in order if hits[entry]]
        for count, share in enumerate(counts):
            found[tuple(applied[:count])] += weight * share / len(orders)
    return {sequence: weight for sequence, weight in found.items() if weight > 0}


def policy_of(p: list[float], counts: list[float]) -> RandomOrder:
    names = ["Rotate", "Invert", "ShearX", "Color", "Cutout"][: len(p)]
    return RandomOrder(names, torch.tensor(p), torch.linspace(0, 1, len(p)), counts)


CASES = [
    ([0.3], [0.2, 0.8]),
    ([0.3, 0.9], [0.2, 0.3, 0.5]),
    ([0.3, 0.9, 0.0, 1.0], [0.2, 0.3, 0.5]),
    ([0.5, 0.2, 0.7, 1.0, 0.1], [0.1, 0.2, 0.3, 0.4]),
    ([0.5, 0.6], [0.0, 0.0, 0.0, 1.0]),  # more than there are
    ([1.0, 1.0, 1.0], [0.5, 0.5]),
]


@pytest.mark.parametrize(("p", "counts"), CASES)
def test_rates_are_those_of_the_enumeration(p: list[float], counts: list[float]) -> None:
    expected = torch.zeros(len(p)).double()
    for sequence, weight in outcomes(p, counts).items():
        for entry in sequence:
            expected[entry] += weight
    policy = policy_of(p, counts)
    torch.testing.assert_close(policy.entry_rates(), expected, atol=1e-7, rtol=1e-6)
    assert list(policy.operation_rates().values()) == pytest.approx(
        [float(rate) for _, rate in sorted(zip(policy._ids.tolist(), expected, strict=True))],
        abs=1e-7,
    )


@pytest.mark.parametrize(("p", "counts"), CASES[2:5])
def test_sequences_are_drawn_as_enumerated(p: list[float], counts: list[float]) -> None:
    policy, n = policy_of(p, counts), 100_000
    draws = policy.sample(n, generator=seeded(1))
    assert draws.operation.shape == (n, min(len(counts) - 1, len(p)))
    entries = {int(id_): entry for entry, id_ in enumerate(policy._ids)}
    found: Counter[tuple[int, ...]] = Counter()
    for ids, applied in zip(draws.operation.tolist(), draws.applied.tolist(), strict=True):
        found[tuple(entries[i] for i, is_on in zip(ids, applied, strict=True) if is_on)] += 1
    expected = outcomes(p, counts)
    assert set(found) <= set(expected)
    for sequence, weight in expected.items():
        error = 5 * math.sqrt(weight * (1 - weight) / n) + 1e-6
        assert found[sequence] / n == pytest.approx(weight, abs=error)


def test_magnitudes_go_with_their_entries() -> None:
    policy = RandomOrder(
        ["Rotate", "Rotate", "Invert"], torch.ones(3), torch.tensor([0.1, 0.7, 0.0]), [0, 0, 1]
    )
    draws = policy.sample(2_000, generator=seeded(2))
    rotate = draws.operation == ops.operation_id("Rotate")
    assert {round(m, 3) for m in draws.magnitude[rotate].tolist()} == {0.1, 0.7}
    assert set(draws.magnitude[~rotate].tolist()) == {0.0}
    assert bool(draws.applied.all())
    assert policy.operation_rates()["Rotate"] == pytest.approx(4 / 3)


def test_all_zero_changes_nothing() -> None:
    images = torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8, generator=seeded())
    policy = Pba.of(METHOD).policy(ZERO)
    assert torch.equal(policy(images, seeded(1)), images)
    assert policy.operations_per_image() == 0
    assert set(policy.marginals().values()) == {0.0}


def test_it_goes_into_schedules_and_mixtures(tmp_path: Path) -> None:
    one, two = policy_of([0.5, 0.2], [0.2, 0.8]), policy_of([0.1, 1.0], [0.2, 0.8])
    schedule = Schedule([one, two])
    merged = RandomOrder.merge([schedule, trivial_augment()])
    assert isinstance(merged, Mixture)
    merged.save(tmp_path / "policy.json")
    again = read_policy(tmp_path / "policy.json")
    assert again == merged
    assert again.at(0.9) == Mixture([two, trivial_augment()])
    assert RandomOrder.merge([one, one]) == one
    document = schedule.to_json()
    document["phases"][1]["counts"] = [1.0]
    with pytest.raises(RaysearchError, match=r"phases\[1\].*counts"):
        from_json(document)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"operations": []}, "operations"),
        ({"operations": ["Rotate", "Invart"]}, "did you mean 'Invert'"),
        ({"probabilities": [0.5]}, "probabilities: shape"),
        ({"probabilities": [0.5, 1.5]}, r"probabilities\[1\]"),
        ({"magnitudes": [0.5, 0.5, 0.5]}, "magnitudes: shape"),
        ({"magnitudes": [-0.5, 0.5]}, r"magnitudes\[0\]"),
        ({"counts": [1.0]}, "counts"),
        ({"counts": [0.0, 0.0]}, "not all zero"),
        ({"counts": [-1.0, 2.0]}, r"counts\[0\]"),
        ({"counts": [0.1] * 18}, "counts"),
        ({"ranges": "narrow"}, "narrow"),
    ],
)
def test_a_wrong_file_is_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RaysearchError, match=message) as error:
        from_json({**policy_of([0.5, 0.2], [0.2, 0.8]).to_json(), **change}, "p.json")
    assert "\n" not in str(error.value)


# Explore.


def moved(start: int, top: int, change: int) -> list[float]:
    """Distribution over 0 ... top of a level that moves, by enumeration."""
    found = [0.0] * (top + 1)
    for distance, sign in itertools.product(range(change + 1), (-1, 1)):
        found[min(max(start + sign * distance, 0), top)] += 1 / (2 * (change + 1))
    return found


@pytest.mark.parametrize("resample", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("start", [(0, 0), (5, 4), (9, 9), (10, 8)])
def test_numbers_are_explored_as_enumerated(start: tuple[int, int], resample: float) -> None:
    settings = Pba.of({**METHOD, "resample": resample})
    n = 60_000
    before = torch.tensor(start)[:, None].expand(2, n).contiguous()
    kept = before.clone()
    after = explore(before, settings, seeded(4))
    assert torch.equal(before, kept)
    assert after.shape == before.shape
    for row, top in zip((0, 1), settings.tops, strict=True):
        expected = torch.tensor(moved(start[row], top, settings.change)) * (1 - resample)
        expected += resample / (top + 1)
        share = after[row].bincount(minlength=top + 1) / n
        assert len(share) == top + 1
        torch.testing.assert_close(share, expected, atol=0.01, rtol=0)


def test_numbers_are_explored_independently() -> None:
    settings = Pba.of({**METHOD, "resample": 0.5})
    drawn = torch.stack(
        [explore(torch.full((2, 3), 5), settings, seeded(i)).flatten() for i in range(4_000)]
    )
    correlation = torch.corrcoef(drawn.T.float()) - torch.eye(6)
    assert float(correlation.abs().max()) < 0.08


def test_whom_a_member_copies_depends_on_seed_epoch_and_member_alone() -> None:
    chosen = Counter(choose(5, [3, 8, 9], 1, epoch) for epoch in range(3_000))
    assert {member: round(count / 3_000, 1) for member, count in chosen.items()} == {
        3: 0.3,
        8: 0.3,
        9: 0.3,
    }
    draws = {choose(seed, range(1000), member, 3) for seed in (5, 6) for member in (0, 1)}  # type: ignore[arg-type]
    assert len(draws) == 4


# Members.


def proposal(
    member: int = 0, interval: int = 0, levels: Levels | None = None, needs: str = ""
) -> Proposal:
    """An interval of a member."""
    id = f"{interval + 1:04d}-{member + 1:02d}"
    values = {"member": member, "levels": levels or ZERO}
    return Proposal(id, interval, values, (needs,) if needs else ())


def interval(members: Build, asked: Proposal, files: Mapping[str, Values] | None = None) -> Answer:
    """What an interval answers."""
    answer = answer_to(asked, members, files)
    assert isinstance(answer, Answer)
    return answer


def rows_of(members: Build, **asked: Any) -> list[dict[str, float]]:
    """The epochs of a first interval."""
    rows: list[dict[str, float]] = interval(members, proposal(**asked)).values["rows"]
    return rows


def test_a_member_is_validated_at_intervals_and_at_the_end(setup: Setup) -> None:
    members, files, rows, cost = groups().build(setup), {}, [], 0.0
    before = ""
    for i in range(3):
        answer = interval(members, proposal(0, i, needs=before), files)
        before = f"{i + 1:04d}-01"
        files[before] = answer.file
        rows += answer.values["rows"]
        cost += answer.values["epoch_equivalents"]
        assert answer.values["score"] == -rows[-1]["val_loss"]
    assert files[before] is None  # nobody goes on from the end
    assert [i + 1 for i, row in enumerate(rows) if "val_loss" in row] == [3, 6, 7]
    used, validation = 1.0, 1 / 3  # whole batches, and as many validation images
    assert [row["epoch_equivalents"] for row in rows] == pytest.approx(
        [(i % 3 + 1) * used + (i in (2, 5, 6)) * validation for i in range(7)]
    )
    assert cost == pytest.approx(7 * used + 3 * validation)
    scored = interval(groups({"score": "metric"}).build(setup), proposal()).values
    assert scored["score"] == pytest.approx(1 - scored["rows"][-1]["val_error"] / 100)
    assert scored["rows"] == rows[:3]


def test_at_the_start_nothing_is_augmented(setup: Setup) -> None:
    members = groups().build(setup)
    rows = rows_of(members, member=2)
    own = replace(setup, seed=derive_seed(setup.seed, "member", 2))
    plain = Training(own, SEARCH, None, True, split=setup.search_splits()[0])
    assert [row["train_loss"] for row in rows] == [plain.step()["train_loss"] for _ in rows]
    assert rows[1]["train_loss"] != rows_of(members, member=1)[1]["train_loss"]


def test_the_metrics_say_how_far_the_policy_is() -> None:
    def figures(probabilities: list[int]) -> Mapping[str, float]:
        policy = Pba.of(METHOD).policy([probabilities, [5] * 6])
        return operation_figures(policy, METHOD["operations"])

    row = figures([0] * 6)
    assert row["entropy"] == row["kl_uniform"] == row["share/Rotate"] == 0
    row = figures([10] * 6)
    assert row["entropy"] == pytest.approx(math.log(3))
    assert row["kl_uniform"] == pytest.approx(0, abs=1e-9)
    row = figures([10, 10, 0, 0, 0, 0])
    assert row["entropy"] == 0
    assert row["kl_uniform"] == pytest.approx(math.log(3))
    assert row["share/Rotate"] == 1
    uniform = Pba.of(METHOD).uniform
    assert list(uniform.marginals().values()) == pytest.approx([1 / 3] * 3)
    assert uniform.magnitudes.tolist() == pytest.approx([1 / 3, 2 / 3] * 3)


def test_a_restored_interval_continues_bit_for_bit(setup: Setup) -> None:
    members = groups().build(setup)
    files: dict[str, Any] = {"0001-02": interval(members, proposal(1)).file}
    asked = proposal(1, 1, LEVELS, "0001-02")
    whole = interval(members, asked, files)
    work = members(asked, files)
    work.step()
    state = through_a_file(work.state_dict())
    again = groups().build(setup)(asked, files)
    again.load_state_dict(state)
    assert (again.epoch, again.epochs) == (1, 3)
    while again.epoch < again.epochs:
        again.step()
    assert again.answer().values == whole.values
    assert again.answer().file is not None
    for name, tensor in whole.file["model"].items():  # type: ignore[index]
        assert torch.equal(tensor, again.answer().file["model"][name])  # type: ignore[index]


def test_a_copy_has_the_weights_and_goes_on_by_itself(setup: Setup) -> None:
    members = groups().build(setup)
    files: dict[str, Any] = {"0001-01": interval(members, proposal(0, levels=LEVELS)).file}
    losses = []
    for member in (0, 3):
        copy = members(proposal(member, 1, LEVELS, "0001-01"), files)
        assert isinstance(copy, ValidatedTraining)
        for name, tensor in copy.training.model.state_dict().items():
            assert torch.equal(tensor, files["0001-01"]["model"][name])
        losses.append(copy.step()["train_loss"])
    assert losses[0] != losses[1]  # draws of their own


def test_a_search_costs_what_was_forecast(setup: Setup) -> None:
    search = groups().search(setup.seed)
    rows = carry_out(search, build=groups().build(setup)).history
    assert [row["epoch"] for row in rows] == list(range(1, 8))
    expected = groups().forecast(setup)
    assert rows[-1]["epoch_equivalents"] == pytest.approx(expected.equivalents)
    assert search.equivalents == pytest.approx(expected.equivalents)
    assert expected.proposals == 12
    assert expected.parallel == 4
    assert isinstance(search.policy(), Schedule)
    assert len(search.policy()) == 7


def test_the_papers_configuration_takes_a_step(setup: Setup) -> None:
    method = method_settings("pba_paper")
    given = Configured.of(method, {**SEARCH, "epochs": 200})
    search = given.search(0)
    assert (len(search.proposals), search.rounds, method["interval"]) == (16, 67, 3)
    first = search.ask()
    assert first is not None
    assert given.build(setup)(first, {}).step()["train_loss"] > 0
    assert len(search.policy().at(0).operations) == 30  # type: ignore[attr-defined]
    assert method["score"] == "metric"
    assert set(method["operations"]) == set(ops.DADA_OPERATIONS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"operations": ["Rotate", "Rotate"]}, "method.operations"),
        ({"operations": ["Rotat"]}, "did you mean 'Rotate'"),
        ({"counts": [0.5, 0.4]}, "sum to 1"),
        ({"counts": [1.0]}, "method.counts"),
        ({"population": 1}, "method.population=1: expected at least 2"),
        ({"interval": 0}, "method.interval=0"),
        ({"quantile": 0.6}, "method.quantile=0.6"),
        ({"resample": 1.2}, "method.resample"),
        ({"change": 0}, "method.change"),
        ({"score": "error"}, "method.score"),
        ({"interval": 7}, "members copy none in search.epochs=7"),
    ],
)
def test_wrong_settings_are_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RaysearchError, match=message) as error:
        groups(change).search(0)
    assert "\n" not in str(error.value)
