"""Schedules and mixtures: the right policy for each point of a training, and for each image."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from raysearch.errors import RaysearchError
from raysearch.policy import (
    Basic,
    Candidates,
    Mixture,
    Policy,
    PolicyTransform,
    RandomOperations,
    Schedule,
    Sequence,
    SubPolicies,
    Transformations,
    from_json,
    load_policy,
    read_policy,
    trivial_augment,
)

torch.set_num_threads(1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 6, channels: int = 3) -> torch.Tensor:
    return torch.randint(256, (n, channels, 10, 16), dtype=torch.uint8, generator=seeded())


def only(name: str, magnitude: float = 0.0) -> Candidates:
    return Candidates([name], torch.tensor([magnitude]), torch.ones(1), 1.0, count=1)


def shift(*values: float) -> Transformations:
    return Transformations(["tx"], torch.tensor(values)[:, None])


PAIR = SubPolicies([("Rotate", "Color")], torch.ones(1), torch.ones(1, 2), torch.ones(1, 2))
SIMPLE: list[Policy] = [PAIR, trivial_augment(), only("Solarize", 1.4), shift(0.1, -0.2)]
DEEPEST = Mixture([Schedule(SIMPLE), Schedule(SIMPLE[::-1]), only("Invert")])
KINDS: dict[str, Policy] = {
    "schedule": Schedule(SIMPLE),
    "schedule of one": Schedule([shift(0.1)]),
    "schedule of transformations": Schedule([shift(0.1), shift(0.2, 0.3)]),
    "mixture": Mixture(SIMPLE),
    "mixture of schedules": DEEPEST,
    "sequence": Sequence([Basic(flip=True, padding=1), *SIMPLE, Basic(cutout=1)]),
    "mixture of sequences": Mixture([Sequence([Basic(flip=True), Schedule(SIMPLE)]), PAIR]),
}


@pytest.mark.parametrize("case", KINDS)
def test_files_round_trip(case: str, tmp_path: Path) -> None:
    KINDS[case].save(tmp_path / "policy.json")
    again = read_policy(tmp_path / "policy.json")
    assert again == KINDS[case]
    assert hash(again) == hash(KINDS[case])
    assert again.to_json() == KINDS[case].to_json()
    assert again.to_json()["version"] == 1


@pytest.mark.parametrize("case", KINDS)
def test_pictures_and_words(case: str, tmp_path: Path) -> None:
    for ending in ("png", "svg"):
        KINDS[case].draw(tmp_path / f"policy.{ending}")
    assert PIL.Image.open(tmp_path / "policy.png").size[0] > 300
    assert " of " in KINDS[case].describe()
    assert KINDS[case].kind in repr(PolicyTransform(KINDS[case]))


@pytest.mark.parametrize("case", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_batches_keep_shape_and_type(case: str, channels: int, dtype: torch.dtype) -> None:
    source = images(channels=channels)
    source = source / 255 if dtype.is_floating_point else source
    for progress in (0.0, 0.6, 1.0):
        result = KINDS[case](source, seeded(1), progress)
        assert (result.shape, result.dtype) == (source.shape, dtype)
        assert torch.equal(result, KINDS[case].at(progress)(source, seeded(1), progress))
    assert KINDS[case](source[:0]).shape == source[:0].shape


# Schedule.


@given(
    n=st.integers(1, 400),
    share=st.floats(0, 1, exclude_max=True),
    data=st.data(),
)
@settings(deadline=None)
def test_a_phase_holds_from_its_start_to_the_next(n: int, share: float, data: Any) -> None:
    phases = [only("Rotate", i / n) for i in range(n)]
    schedule = Schedule(phases)
    i = data.draw(st.integers(0, n - 1))
    assert schedule.at(i / n) is phases[i]
    assert schedule.at(math.nextafter((i + 1) / n, 0)) is phases[i]
    assert schedule.at(1.0) is phases[-1]
    assert schedule.moments() == [k / n for k in range(n)]
    progress = (i + share) / n
    if i / n <= progress < (i + 1) / n:
        assert schedule.at(progress) is phases[i]


def test_a_phase_is_replayed_to_the_bit() -> None:
    schedule = Schedule(SIMPLE)
    for i, phase in enumerate(SIMPLE):
        for progress in (i / 4, i / 4 + 0.1):
            assert torch.equal(
                schedule(images(), seeded(i), progress), phase(images(), seeded(i), progress)
            )


@pytest.mark.parametrize("progress", [-0.01, 1.01, 17, math.nan])
def test_progress_outside_a_training_is_refused(progress: float) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        Schedule(SIMPLE).at(progress)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        PolicyTransform(Schedule(SIMPLE)).progress = progress


def test_simple_policies_never_change() -> None:
    for policy in SIMPLE:
        assert policy.at(0.7) is policy
        assert policy.moments() == [0.0]


# Rates and parameters of the whole.


@pytest.mark.parametrize("whole", [Schedule, Mixture])
def test_rates_are_means_over_the_parts(whole: type[Schedule] | type[Mixture]) -> None:
    policy = whole([only("Invert"), RandomOperations(["Invert", "Color"], 4), shift(0.0)])
    assert policy.operation_rates() == pytest.approx({"Invert": 1.0, "Color": 2 / 3})
    assert policy.operations_per_image() == pytest.approx(5 / 3)
    assert policy.marginals() == pytest.approx({"Invert": 0.6, "Color": 0.4})


@pytest.mark.parametrize("whole", [Schedule, Mixture])
def test_parameters_are_those_of_all_draws_together(whole: type[Schedule] | type[Mixture]) -> None:
    draws = torch.rand(3, 8, generator=seeded())
    parts = [shift(*row.tolist()) for row in draws]
    mean, std = whole(parts).parameters()["tx"]
    assert mean == pytest.approx(float(draws.mean()), abs=1e-5)
    assert std == pytest.approx(float(draws.std(correction=0)), abs=1e-5)
    with_rest = whole([*parts, only("Invert")]).parameters()["tx"]  # which moves nothing
    draws = torch.cat((draws, torch.zeros(1, 8)))
    assert with_rest == pytest.approx((float(draws.mean()), float(draws.std(correction=0))), 1e-4)


# Mixture.


def test_every_image_is_one_members_and_members_are_equally_likely() -> None:
    members = [only("Invert"), only("FlipLR"), only("FlipUD")]
    source = images(1).expand(9_000, -1, -1, -1)
    result = Mixture(members)(source, seeded(1))
    counts = [int((result == member(source[:1])).flatten(1).all(1).sum()) for member in members]
    assert sum(counts) == len(source)
    for count in counts:
        assert count / len(source) == pytest.approx(1 / 3, abs=0.02)


def test_a_mixture_at_a_point_is_that_of_its_members() -> None:
    first, second = Schedule([only("Invert"), only("Color")]), Schedule([PAIR] * 3)
    mixture = Mixture([first, second, shift(0.1)])
    assert mixture.at(0.4) == Mixture([only("Invert"), PAIR, shift(0.1)])
    assert mixture.at(0.5) == Mixture([only("Color"), PAIR, shift(0.1)])
    assert mixture.moments() == [0, 1 / 3, 1 / 2, 2 / 3]


def test_merge_is_the_policy_or_a_flat_mixture() -> None:
    a, b = Schedule([only("Invert")]), Schedule([only("Color")])
    assert Schedule.merge([a, a]) is a
    assert Schedule.merge([a, b]) == Mixture([a, b])
    assert Schedule.merge([a, a, b]) == Mixture([a, a, b])
    assert Mixture.merge([Mixture([a, b]), b]) == Mixture([a, b, b])
    assert RandomOperations.merge([trivial_augment(), PAIR]) == Mixture([trivial_augment(), PAIR])
    with pytest.raises(ValueError, match="no policies"):
        Schedule.merge([])


# Files.


def test_nesting_is_bounded() -> None:
    for wrong in (
        lambda: Schedule([Schedule(SIMPLE)]),
        lambda: Schedule([Mixture(SIMPLE)]),
        lambda: Mixture([Mixture(SIMPLE)]),
        lambda: Mixture([]),
        lambda: Schedule([]),
    ):
        with pytest.raises(ValueError, match=r"cannot be of kind|needs"):
            wrong()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["phases"], [], "phases"),
        (["phases"], [1], r"phases\[0\]"),
        (["phases", 2, "kind"], "schedule", r"phases\[2\]: unknown policy kind 'schedule'"),
        (["phases", 2, "kind"], None, r"phases\[2\]: unknown policy kind"),
        (["phases", 2, "kind"], [], r"phases\[2\]: unknown policy kind"),
        (["phases", 2, "magnitudes", 0], 3, r"phases\[2\]: magnitudes\[0\]: 3 is greater"),
        (["phases", 2, "operations", 0], "Inver", r"phases\[2\]: .*'Invert'"),
        (["phases", 3, "draws", 1], [1, 2], r"phases\[3\]: draws\[1\]"),
        (["phases", 3, "version"], 1, r"phases\[3\]: .*version"),
        (["more"], 1, "more"),
    ],
)
def test_wrong_phases_are_refused_in_one_line(path: list, value: object, message: str) -> None:
    document = json.loads(json.dumps(Schedule(SIMPLE).to_json()))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(RaysearchError, match=message) as error:
        from_json(document, "p.json")
    assert str(error.value).startswith("p.json: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("depth", [2, 50, 900, 100_000])
def test_deep_documents_are_refused(depth: int, tmp_path: Path) -> None:
    start = '{"format": "raysearch-policy", "version": 1, "kind": "mixture", "members": ['
    (tmp_path / "p.json").write_text(start * depth + "]}" * depth)
    with pytest.raises(RaysearchError):
        read_policy(tmp_path / "p.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
)


@settings(max_examples=150, deadline=None)
@given(value=JSON, data=st.data())
def test_any_change_is_read_or_refused(value: object, data: Any, tmp_path_factory) -> None:
    """Some value anywhere in a document that has every kind in it is replaced by another."""
    document = json.loads(json.dumps(DEEPEST.to_json()))
    place: Any = document
    key = "members"
    while isinstance(place[key], list | dict) and place[key] and data.draw(st.integers(0, 4)):
        place = place[key]
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
    place[key] = value
    path = tmp_path_factory.mktemp("fuzz") / "p.json"
    path.write_text(json.dumps(document))
    with contextlib.suppress(RaysearchError):  # anything else would be a traceback
        policy = read_policy(path)
        assert policy(images(2)).shape == images(2).shape


# In a training.


def test_works_inside_compose_with_progress(tmp_path: Path) -> None:
    Schedule([only("Invert"), only("FlipLR")]).save(tmp_path / "policy.json")
    transform = load_policy(tmp_path / "policy.json")
    compose = v2.Compose([transform, v2.ToImage()])
    picture = v2.functional.to_pil_image(images()[0])
    assert torch.equal(compose(picture).as_subclass(torch.Tensor), images()[0].flip(2))  # the end
    transform.progress = 0.49
    assert torch.equal(compose(picture).as_subclass(torch.Tensor), 255 - images()[0])


class Pictures(Dataset):
    def __init__(self, transform: PolicyTransform) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(images()[index])


@pytest.mark.parametrize(
    ("method", "persistent"), [("fork", False), ("fork", True), ("spawn", True)]
)
def test_workers_see_the_progress(method: str, persistent: bool) -> None:
    transform = PolicyTransform(Schedule([only("Invert"), only("FlipLR")]))
    loader = DataLoader(
        Pictures(transform),
        batch_size=4,
        num_workers=1,
        persistent_workers=persistent,
        multiprocessing_context=method,
    )
    assert torch.equal(next(iter(loader)), images()[:4].flip(3))
    transform.progress = 0.0
    assert torch.equal(next(iter(loader)), 255 - images()[:4])
