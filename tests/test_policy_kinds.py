"""Candidates and continuous transformations: they draw what their numbers say."""

from __future__ import annotations

import math
from pathlib import Path

import PIL.Image
import pytest
import torch
from torchvision.transforms import v2

from raysearch.errors import RaysearchError
from raysearch.ops import DADA_OPERATIONS, differentiable
from raysearch.policy import (
    Candidates,
    Pairs,
    Policy,
    PolicyTransform,
    RandomOrder,
    Transformations,
    from_json,
    read_policy,
    sra,
)

torch.set_num_threads(1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 6, channels: int = 3, size: tuple[int, int] = (12, 20)) -> torch.Tensor:
    return torch.randint(256, (n, channels, *size), dtype=torch.uint8, generator=seeded())


def candidates(augment: float = 0.35, count: int = 2) -> Candidates:
    return Candidates(
        ["Rotate", "Rotate", "Invert", "Solarize"],
        torch.tensor([0.2, 1.4, 0.0, 2.0]),
        torch.tensor([1.0, 2.0, 4.0, 1.0]),
        augment,
        count,
    )


def transformations(spread: float = 0.2) -> Transformations:
    draws = torch.randn(64, len(differentiable.PARAMETERS), generator=seeded()) * spread
    return Transformations(differentiable.PARAMETERS, draws)


def pairs() -> Pairs:
    uniform = Pairs.uniform(DADA_OPERATIONS)
    return uniform.with_probabilities(torch.rand(len(uniform), len(uniform), generator=seeded()))


def random_order() -> RandomOrder:
    p, m = torch.rand(2, len(DADA_OPERATIONS), generator=seeded())
    return RandomOrder(DADA_OPERATIONS, p, m, [0.1, 0.9])


KINDS: dict[str, Policy] = {
    "adaptive": sra(),
    "candidates": candidates(augment=0.9),
    "pairs": pairs(),
    "random_order": random_order(),
    "transformations": transformations(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_files_round_trip(kind: str, tmp_path: Path) -> None:
    policy = KINDS[kind]
    policy.save(tmp_path / "policy.json")
    again = read_policy(tmp_path / "policy.json")
    assert again == policy
    assert hash(again) == hash(policy)
    assert again.to_json() == policy.to_json()
    result = [p(images(), seeded(1)) for p in (policy, again)]
    assert torch.equal(*result)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
def test_batches_keep_shape_and_type(kind: str, channels: int, dtype: torch.dtype) -> None:
    source = images(channels=channels)
    source = (source / 255).to(dtype) if dtype.is_floating_point else source
    before = source.clone()
    result = KINDS[kind](source, seeded(2))
    assert (result.shape, result.dtype) == (source.shape, dtype)
    assert torch.equal(source, before)
    assert not torch.equal(result, source)
    assert float(result.min()) >= 0
    assert float(result.max()) <= (1 if dtype.is_floating_point else 255)
    assert torch.equal(result, KINDS[kind](source, seeded(2)))
    assert KINDS[kind](source[:0]).shape == source[:0].shape


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_and_words(kind: str, tmp_path: Path) -> None:
    KINDS[kind].draw(tmp_path / "policy.png")
    assert PIL.Image.open(tmp_path / "policy.png").size[0] > 300
    assert "and " in KINDS[kind].describe(most=2)
    assert kind in repr(PolicyTransform(KINDS[kind]))
    compose = v2.Compose([PolicyTransform(KINDS[kind]), v2.ToDtype(torch.float32, scale=True)])
    assert compose(images()).shape == images().shape


# Candidates.


def test_candidates_are_drawn_at_their_rates() -> None:
    policy = candidates()
    n = 100_000
    draws = policy.sample(n, generator=seeded(1))
    assert draws.operation.shape == (n, 2)
    assert torch.equal(draws.applied[:, 0], draws.applied[:, 1])  # one decision for an image
    assert float(draws.applied[:, 0].double().mean()) == pytest.approx(0.35, abs=6e-3)
    for name, rate in policy.operation_rates().items():
        drawn = (draws.operation == DADA_OPERATIONS.index(name) + 1) & draws.applied
        assert float(drawn.sum()) / n == pytest.approx(rate, abs=8e-3)
    weak = (draws.magnitude == 0.2).double().mean(0)
    torch.testing.assert_close(weak, torch.full((2,), 1 / 8).double(), atol=5e-3, rtol=0)
    both = ((draws.magnitude == 0).double().prod(1)).mean()  # independent of each other
    assert float(both) == pytest.approx(1 / 4, abs=7e-3)
    assert policy.operation_rates()["Rotate"] == pytest.approx(0.35 * 2 * 3 / 8)
    assert policy.operations_per_image() == pytest.approx(0.7)
    assert sum(policy.marginals().values()) == pytest.approx(1)


def test_a_candidate_of_probability_zero_is_never_drawn() -> None:
    policy = Candidates(["Invert", "Rotate", "Color"], torch.ones(3), torch.eye(3)[1], 1.0)
    assert set(policy.sample(10_000).operation.flatten().tolist()) == {5}


def test_nothing_or_everything_is_augmented() -> None:
    assert torch.equal(candidates(augment=0)(images()), images())
    invert = Candidates(["Invert"], torch.zeros(1), torch.ones(1), 1.0, count=1)
    assert torch.equal(invert(images()), 255 - images())


def test_given_candidates_are_drawn_as_they_are() -> None:
    chosen = torch.tensor([[3], [1], [2]])
    draws = candidates().draws_for(chosen, seeded())
    assert draws.magnitude.flatten().tolist() == pytest.approx([2.0, 1.4, 0.0])
    assert draws.operation.flatten().tolist() == [9, 5, 7]
    assert draws.applied.all()


@pytest.mark.parametrize("ranges", ["autoaugment", "wide"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_operation_takes_magnitudes_beyond_one(ranges: str, channels: int) -> None:
    for name in DADA_OPERATIONS:
        policy = Candidates([name], torch.full((1,), 2.0), torch.ones(1), 1.0, ranges=ranges)
        assert policy(images(channels=channels)).shape == (6, channels, 12, 20)


def test_probabilities_stay_as_they_are_once_normalised() -> None:
    for seed in range(200):
        weights = torch.rand(50, generator=seeded(seed))
        policy = Candidates(["Invert"] * 50, torch.ones(50), weights, 1.0)
        assert from_json(policy.to_json()) == policy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"operations": []}, "operations"),
        ({"operations": ["Invert"] * 3}, "magnitudes: shape"),
        ({"operations": ["Invert"] * 3 + ["Rotat"]}, "did you mean 'Rotate'"),
        ({"magnitudes": [0, 0, 0, 2.1]}, r"magnitudes\[3\]: 2.1 is greater"),
        ({"probabilities": [0, 0, 0, 0]}, "not all zero"),
        ({"probabilities": [0, 0, 1]}, "probabilities: shape"),
        ({"probabilities": [-1, 1, 1, 1]}, r"probabilities\[0\]"),
        ({"probabilities": [1e308] * 4}, "finite"),
        ({"probabilities": [10**400, 1, 1, 1]}, "p.json"),
        ({"augment": 1.01}, "augment"),
        ({"count": 17}, "count"),
        ({"count": 1.5}, "count"),
        ({"ranges": "narrow"}, "narrow"),
    ],
)
def test_wrong_candidates_are_refused_in_one_line(change: dict, message: str) -> None:
    with pytest.raises(RaysearchError, match=message) as error:
        from_json({**candidates().to_json(), **change}, "p.json")
    assert "\n" not in str(error.value)


# Transformations.


@pytest.mark.parametrize("size", [(12, 20), (32, 32), (5, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_all_zero_parameters_change_nothing(size: tuple[int, int], channels: int) -> None:
    policy = transformations(spread=0)
    source = images(40, channels, size)
    assert torch.equal(policy(source), source)
    torch.testing.assert_close(policy(source / 255), source / 255, atol=1e-5, rtol=0)


def test_each_image_gets_one_of_the_draws() -> None:
    """Shifts by whole pixels, which are exact: ±2 / 20 of the width is a pixel."""
    shifts = torch.tensor([[0.0], [2 / 20], [-4 / 20], [-4 / 20]])
    source = images(1).expand(20_000, -1, -1, -1)
    result = Transformations(["tx"], shifts)(source, seeded(1))
    counts = []
    for pixels in (0, -1, 2):  # a place in the image is that in the result plus tx
        expected = torch.zeros_like(source[0])
        width = slice(max(0, pixels), 20 + min(0, pixels))
        expected[..., width] = source[0].roll(pixels, -1)[..., width]
        counts.append(int((result == expected).flatten(1).all(1).sum()))
    assert sum(counts) == len(source)
    for count, share in zip(counts, (0.25, 0.25, 0.5), strict=True):
        assert count / len(source) == pytest.approx(share, abs=0.015)


def test_colour_operations_come_in_random_order() -> None:
    """Doubling the contrast and adding brightness do not commute."""
    policy = Transformations(["brightness", "contrast"], torch.tensor([[0.2, 1.0]]))
    grey = torch.full((1, 3, 2, 2), 0.1)
    results = {round(float(policy(grey, seeded(i)).mean()), 4) for i in range(20)}
    assert results == {0.4, 0.6}


def test_parameters_are_means_and_deviations() -> None:
    policy = transformations()
    for i, name in enumerate(differentiable.PARAMETERS):
        mean, std = policy.parameters()[name]
        assert mean == pytest.approx(float(policy.draws[:, i].mean()))
        assert std == pytest.approx(float(policy.draws[:, i].std(correction=0)))
    angle = math.radians(30)
    turn = [math.cos(angle) - 1, -math.sin(angle), math.sin(angle), math.cos(angle) - 1]
    turned = Transformations(["a11", "a12", "a21", "a22"], torch.tensor([turn, turn]))
    assert turned.parameters()["rotation"] == pytest.approx((30, 0), abs=1e-2)
    assert "rotation" not in Transformations(["tx"], torch.zeros(1, 1)).parameters()
    assert policy.operation_rates() == policy.marginals() == {}
    assert policy.operations_per_image() == 0


def test_numbers_have_five_decimals_in_files(tmp_path: Path) -> None:
    policy = Transformations(["tx"], torch.tensor([[0.1234567], [1 / 3]]))
    assert policy.to_json()["draws"] == [[0.12346], [0.33333]]
    policy.save(tmp_path / "p.json")
    assert "[0.12346]" in (tmp_path / "p.json").read_text()  # a line for a draw


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["tx", "tz"]}, "unknown parameter 'tz'"),
        ({"names": ["tx", "tx"]}, "different"),
        ({"names": []}, "names"),
        ({"names": ["tx"]}, r"draws: shape \(2, 2\), expected \(2, 1\)"),
        ({"draws": []}, "draws"),
        ({"draws": [[0, 1], [0]]}, r"draws\[1\]"),
        ({"draws": [[0, True]]}, r"draws\[0\]"),
        ({"draws": [[0, "1"]]}, r"draws\[0\]"),
        ({"draws": [[0, None]]}, r"draws\[0\]"),
        ({"draws": [[0, 1e7]]}, "draws must be finite"),
        ({"draws": [[0, float("inf")]]}, "draws must be finite"),
        ({"draws": [[0, 10**400]]}, "p.json"),
        ({"draws": {"a": 1}}, "draws"),
    ],
)
def test_wrong_transformations_are_refused_in_one_line(change: dict, message: str) -> None:
    good = Transformations(["tx", "hue"], torch.zeros(2, 2)).to_json()
    with pytest.raises(RaysearchError, match=message) as error:
        from_json({**good, **change}, "p.json")
    assert "\n" not in str(error.value)


def test_wrong_shapes_are_refused_by_the_constructor() -> None:
    with pytest.raises(ValueError, match="expected"):
        Transformations(["tx"], torch.zeros(3))
    with pytest.raises(ValueError, match="expected"):
        Transformations(["tx"], torch.zeros(0, 1))
    with pytest.raises(ValueError, match="finite"):
        Transformations(["tx"], torch.full((1, 1), math.nan))
    with pytest.raises(ValueError, match="magnitude"):
        Candidates(["Invert"], torch.full((1,), math.nan), torch.ones(1), 1.0)
    with pytest.raises(ValueError, match="count"):
        Candidates(["Invert"], torch.ones(1), torch.ones(1), 1.0, count=0)
