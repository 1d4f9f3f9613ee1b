"""Policies: sampling follows the numbers, files round-trip or are refused, transforms fit in."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import AutoAugment, AutoAugmentPolicy, v2

import raysearch
from raysearch import ops
from raysearch.errors import RaysearchError
from raysearch.ops import DADA_OPERATIONS, OPERATIONS
from raysearch.policy import (
    PUBLISHED,
    Policy,
    PolicyTransform,
    RandomOperations,
    SubPolicies,
    autoaugment,
    rand_augment,
    read_policy,
    trivial_augment,
)

torch.set_num_threads(1)


def example() -> SubPolicies:
    return SubPolicies(
        [("Rotate", "Invert"), ("ShearX", "Cutout"), ("Invert", "Color")],
        torch.tensor([0.5, 0.3, 0.2]),
        torch.tensor([[1.0, 0.25], [0.5, 0.0], [0.1, 0.9]]),
        torch.tensor([[0.0, 1.0], [0.3, 0.7], [0.5, 0.5]]),
    )


def images(n: int = 4, channels: int = 3, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, channels, size, size), dtype=torch.uint8, generator=generator)


def test_samples_follow_weights_and_probabilities() -> None:
    policy = example()
    draws = policy.sample(100_000, generator=torch.Generator().manual_seed(1))
    shares = torch.bincount(draws.sub_policy, minlength=3) / len(draws)
    torch.testing.assert_close(shares.double(), policy.weights, atol=6e-3, rtol=0)
    for s in range(3):
        rates = draws.applied[draws.sub_policy == s].double().mean(0)
        torch.testing.assert_close(rates, policy.probabilities[s], atol=1.5e-2, rtol=0)
    assert abs(float(draws.sign.mean())) < 0.02
    assert float(draws.center.min()) >= 0
    assert float(draws.center.max()) < 1


def test_marginals_are_expected_shares_of_application() -> None:
    rates = {"Rotate": 0.5, "Invert": 0.5 * 0.25 + 0.2 * 0.1, "ShearX": 0.15, "Color": 0.18}
    marginals = example().marginals()
    assert next(iter(marginals)) == "Rotate"
    assert marginals["Cutout"] == 0
    for name, rate in rates.items():
        assert marginals[name] == pytest.approx(rate / sum(rates.values()))
    assert sum(marginals.values()) == pytest.approx(1)
    assert example().operations_per_image() == pytest.approx(sum(rates.values()))


def test_dadas_space_has_105_pairs() -> None:
    assert len(SubPolicies.pairs(DADA_OPERATIONS)) == 105


def test_top_keeps_the_heaviest_and_merge_is_the_mixture() -> None:
    policy = example()
    assert policy.top(2).operations == policy.operations[:2]
    torch.testing.assert_close(policy.top(2).weights, torch.tensor([0.625, 0.375]).double())
    other = SubPolicies(
        [("Solarize", "Solarize")], torch.ones(1), torch.ones(1, 2), torch.ones(1, 2)
    )
    merged = SubPolicies.merge([policy, other])
    rates = merged.operation_rates()
    assert rates["Solarize"] == pytest.approx(1.0)
    assert rates["Rotate"] == pytest.approx(policy.operation_rates()["Rotate"] / 2)


def test_a_certain_policy_does_exactly_its_operation() -> None:
    policy = SubPolicies([("Invert",)], torch.ones(1), torch.ones(1, 1), torch.zeros(1, 1))
    assert torch.equal(policy(images()), 255 - images())


@pytest.mark.parametrize("policy", [example(), trivial_augment(), RandomOperations(["Rotate"], 3)])
def test_files_round_trip(policy: Policy, tmp_path: Path) -> None:
    policy.save(tmp_path / "policy.json")
    again = read_policy(tmp_path / "policy.json")
    assert again == policy
    assert again.to_json() == policy.to_json()
    assert [p.name for p in tmp_path.iterdir()] == ["policy.json"]


def test_trivial_augment_is_one_of_14_at_31_levels() -> None:
    draws = trivial_augment().sample(50_000, generator=torch.Generator().manual_seed(0))
    assert draws.operation.shape == (50_000, 1)
    assert len(draws.operation.unique()) == 14
    levels = (draws.magnitude * 30).round().unique()
    assert len(levels) == 31
    assert not {"Invert", "Cutout"} & set(trivial_augment().operations)


BAD = {
    "not an object": ([], "not a raysearch policy"),
    "another format": ({"format": "x"}, "not a raysearch policy"),
    "another version": ({"version": 2}, "version 2"),
    "unknown kind": ({"kind": "sub_policy"}, "did you mean 'sub_policies'"),
    "extra key": ({"extra": 1}, "extra"),
    "no sub-policies": ({"sub_policies": []}, "sub_policies"),
    "ranges": ({"ranges": "narrow"}, "narrow"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_documents_are_refused_in_one_line(case: str, tmp_path: Path) -> None:
    change, message = BAD[case]
    document = {**example().to_json(), **change} if isinstance(change, dict) else change
    (tmp_path / "p.json").write_text(json.dumps(document))
    with pytest.raises(RaysearchError, match=message) as error:
        raysearch.load_policy(tmp_path / "p.json")
    assert "\n" not in str(error.value)
    assert "p.json" in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("probability", 1.5, "1.5 is greater than the maximum"),
        ("probability", -0.1, "minimum"),
        ("magnitude", "high", "not of type 'number'"),
        ("magnitude", True, "not of type 'number'"),
        ("name", "Rotat", "did you mean 'Rotate'"),
        ("weight", -1, "minimum"),
        ("weight", 1e400, "Infinity|finite|not valid JSON"),
        ("weight", float("nan"), "not valid JSON"),
    ],
)
def test_values_outside_their_range_are_refused(key, value, message, tmp_path: Path) -> None:
    document = example().to_json()
    entry = document["sub_policies"][1]
    (entry if key == "weight" else entry["operations"][0])[key] = value
    (tmp_path / "p.json").write_text(json.dumps(document))
    with pytest.raises(RaysearchError, match=message):
        read_policy(tmp_path / "p.json")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\x00", '{"format": NaN}'])
def test_broken_files_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(RaysearchError):
        read_policy(tmp_path / "p.json")


def test_a_missing_file_is_one_line() -> None:
    with pytest.raises(RaysearchError, match="No such file"):
        raysearch.load_policy("nowhere/policy.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
)


@settings(max_examples=60, deadline=None)
@given(value=JSON, key=st.sampled_from(["sub_policies", "ranges", "kind", "version"]))
def test_any_json_is_read_or_refused(value: object, key: str, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "p.json"
    path.write_text(json.dumps({**example().to_json(), key: value}))
    with contextlib.suppress(RaysearchError):  # anything else would be a traceback
        assert isinstance(read_policy(path), Policy)


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        example().save(tmp_path / "missing" / "policy.json")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def transform(tmp_path: Path) -> PolicyTransform:
    trivial_augment().save(tmp_path / "policy.json")
    return raysearch.load_policy(tmp_path / "policy.json")


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_works_on_pil_images_inside_compose(transform, mode: str) -> None:
    picture = PIL.Image.fromarray(images()[0].permute(1, 2, 0).numpy()).convert(mode)
    compose = v2.Compose([transform, v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    result, label = compose(picture, 7)
    assert result.shape == (3 if mode == "RGB" else 1, 16, 16)
    assert label == 7
    plain = transform(picture)
    assert isinstance(plain, PIL.Image.Image)
    assert plain.mode == mode


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("shape", [(3, 16, 16), (5, 3, 16, 16), (1, 16, 16)])
def test_works_on_tensors(transform, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    source = (
        torch.rand(shape)
        if dtype.is_floating_point
        else torch.randint(256, shape, dtype=torch.uint8)
    )
    before = source.clone()
    result = transform(source)
    assert result.shape == source.shape
    assert result.dtype == dtype
    assert torch.equal(source, before)
    wrapped = transform(tv_tensors.Image(source))
    assert isinstance(wrapped, tv_tensors.Image)


def test_torch_manual_seed_makes_it_repeatable(transform) -> None:
    torch.manual_seed(3)
    first = [transform(images(32)) for _ in range(3)]
    torch.manual_seed(3)
    second = [transform(images(32)) for _ in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])


class Pictures(Dataset):
    def __init__(self, transform: PolicyTransform) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        picture = PIL.Image.fromarray(np.full((16, 16, 3), 20 * index, dtype=np.uint8))
        picture.putpixel((3, 5), (255, 0, 0))
        return v2.functional.pil_to_tensor(self.transform(picture)), index


def test_works_in_dataloader_workers(transform) -> None:
    def run() -> torch.Tensor:
        torch.manual_seed(0)
        loader = DataLoader(Pictures(transform), batch_size=4, num_workers=2)
        return torch.cat([batch for batch, _ in loader])

    assert torch.equal(run(), run())


def test_is_a_module(transform) -> None:
    model = torch.nn.Sequential(transform, torch.nn.Flatten())
    assert model(images()).shape == (4, 3 * 16 * 16)
    assert "random_operations" in repr(transform)


def test_what_would_lose_its_place_is_refused(transform) -> None:
    boxes = tv_tensors.BoundingBoxes([[0, 0, 4, 4]], format="XYXY", canvas_size=(16, 16))
    with pytest.raises(TypeError, match="BoundingBoxes"):
        transform(images(), boxes)
    with pytest.raises(TypeError, match="mode L or RGB"):
        transform(PIL.Image.new("RGBA", (8, 8)))
    with pytest.raises(ValueError, match=r"before v2\.Normalize"):
        transform(torch.randn(2, 3, 8, 8))
    with pytest.raises(TypeError, match="NumPy"):
        transform(np.zeros((8, 8, 3), dtype=np.uint8))
    with pytest.raises(TypeError, match="shape"):
        transform(torch.zeros(8, 8, dtype=torch.uint8))


def test_describe_and_draw(tmp_path: Path) -> None:
    text = example().describe(most=2)
    assert "0.5000  Rotate(p=1.00, m=0.00) → Invert(p=0.25, m=1.00)" in text
    assert "and 1 more" in text
    example().draw(tmp_path / "policy.png")
    assert PIL.Image.open(tmp_path / "policy.png").size[0] > 300


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_can_be_in_a_policy(name: str) -> None:
    policy = SubPolicies([(name,)], torch.ones(1), torch.ones(1, 1), torch.full((1, 1), 0.7))
    assert policy(images()).shape == images().shape


def test_bad_numbers_are_refused_by_the_constructor() -> None:
    with pytest.raises(ValueError, match="not all zero"):
        SubPolicies([("Invert",)], torch.zeros(1), torch.ones(1, 1), torch.ones(1, 1))
    with pytest.raises(ValueError, match="outside"):
        SubPolicies([("Invert",)], torch.ones(1), torch.full((1, 1), 2.0), torch.ones(1, 1))
    with pytest.raises(ValueError, match="count"):
        RandomOperations(["Invert"], count=0)


class TestPublished:
    @pytest.mark.parametrize("name", PUBLISHED)
    def test_tables_are_torchvisions(self, name: str) -> None:
        size = (32, 32)
        theirs = AutoAugment(AutoAugmentPolicy(name.removeprefix("autoaugment_")))
        space = theirs._augmentation_space(10, size)
        policy = autoaugment(name)
        assert len(policy) == len(theirs.policies) == 25
        assert policy.operations == tuple(
            tuple(operation for operation, _, _ in entry) for entry in theirs.policies
        )
        for s, entry in enumerate(theirs.policies):
            for k, (operation, probability, level) in enumerate(entry):
                assert float(policy.probabilities[s, k]) == pytest.approx(probability)
                if level is None:
                    continue
                magnitude = policy.magnitudes[s, k][None].float()
                ids = torch.tensor([ops.operation_id(operation)])
                value = float(ops.to_values(ids, magnitude, torch.ones(1)))
                expected = float(space[operation][0][level])
                if operation in ("Brightness", "Color", "Contrast", "Sharpness"):
                    expected += 1
                if operation.startswith("Translate"):
                    expected /= 32
                assert value == pytest.approx(expected, rel=0.01, abs=1e-4), (operation, level)

    def test_they_go_through_files(self, tmp_path: Path) -> None:
        for policy in (*map(autoaugment, PUBLISHED), rand_augment(2, 9)):
            policy.save(tmp_path / "policy.json")
            assert read_policy(tmp_path / "policy.json") == policy

    def test_an_unknown_one_is_named(self) -> None:
        with pytest.raises(RaysearchError, match="did you mean 'autoaugment_cifar10'"):
            autoaugment("autoaugment_cifar100")

    def test_randaugment_draws_n_operations_at_m(self) -> None:
        draws = rand_augment(3, 15).sample(1000, generator=torch.Generator().manual_seed(0))
        assert draws.operation.shape == (1000, 3)
        assert set(draws.magnitude.flatten().tolist()) == {0.5}
        with pytest.raises(ValueError, match="0 <= low"):
            rand_augment(2, 31)
