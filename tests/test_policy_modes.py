"""The same draw is the same picture, in whatever mode PyTorch is."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor
from torch.overrides import BaseTorchFunctionMode

from raysearch import ops
from raysearch.policy import (
    PUBLISHED,
    Basic,
    Candidates,
    Mixture,
    Pairs,
    Policy,
    PolicyTransform,
    RandomOrder,
    Schedule,
    Sequence,
    SubPolicies,
    Transformations,
    autoaugment,
    from_json,
    load_policy,
    rand_augment,
    trivial_augment,
)
from tests.test_policy_files import WRITTEN, document


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


MODES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "bfloat16 autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "float16 autocast": lambda: torch.autocast("cpu", dtype=torch.float16),
    "default device meta": lambda: default_device("meta"),
    "with device meta": lambda: torch.device("meta"),
    "default float64": lambda: default_dtype(torch.float64),
    "default float16": lambda: default_dtype(torch.float16),
    "default bfloat16": lambda: default_dtype(torch.bfloat16),
    "deterministic": deterministic,
    "inference": torch.inference_mode,
    "no grad": torch.no_grad,
    "3 threads": lambda: threads(3),
    "anomalies": lambda: torch.autograd.set_detect_anomaly(True),
    "NumPy's errors": lambda: np.errstate(all="raise"),
    "matrix products of 8 bits": lambda: matmul_precision("medium"),
    "forward derivatives": torch.autograd.forward_ad.dual_level,
    "saved on the CPU": torch.autograd.graph.save_on_cpu,
    "functions overridden": BaseTorchFunctionMode,
}


def images(dtype: torch.dtype = torch.uint8, channels: int = 3) -> Tensor:
    whole = torch.arange(8 * channels * 12 * 17, device="cpu").mul(2654435761).remainder(251)
    levels = whole.reshape(8, channels, 12, 17).to(torch.uint8)
    return levels if dtype == torch.uint8 else levels.to(dtype) / 255


def seeded() -> torch.Generator:
    return torch.Generator("cpu").manual_seed(3)


def documents() -> dict[str, str]:
    half = [0.5] * len(ops.OPERATIONS)
    policies: dict[str, Policy] = {
        "candidates of all": Candidates(ops.OPERATIONS, half, half, 0.9),
        "random order of all": RandomOrder(ops.OPERATIONS, half, half, [0.1, 0.4, 0.5]),
        "pairs of all": Pairs.uniform(ops.OPERATIONS),
        "sub-policies of all": SubPolicies.pairs(ops.OPERATIONS),
        "trivial_augment": trivial_augment(),
        "rand_augment": rand_augment(2, 9),
        "basic": Basic(True, True, 2, 3, (0.1, 0.2, 0.3)),
        "sequence": Sequence([Basic(flip=True, padding=1), trivial_augment(), Basic(cutout=3)]),
        "mixture of all": Mixture([Schedule([trivial_augment()]), rand_augment(1, 20)]),
    }
    policies |= {name: from_json(document(name)) for name in WRITTEN}
    policies |= {
        name: Transformations([name], [[0.3], [-0.2], [0.11]])
        for name in ("a11", "a12", "tx", "brightness", "contrast", "saturation", "hue")
    }
    return {name: json.dumps(policy.to_json()) for name, policy in policies.items()}


DOCUMENTS = documents()
INPUTS = {
    str(dtype).removeprefix("torch."): images(dtype)
    for dtype in (torch.uint8, torch.float32, torch.float16)
}
EXPECTED = {
    (name, kind): from_json(json.loads(text))(source, seeded())
    for name, text in DOCUMENTS.items()
    for kind, source in INPUTS.items()
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_of_a_policy(name: str, mode: str) -> None:
    before = from_json(json.loads(DOCUMENTS[name]))
    with MODES[mode]():
        within = from_json(json.loads(DOCUMENTS[name]))
        for policy in (before, within):
            for kind, source in INPUTS.items():
                assert torch.equal(policy(source, seeded()), EXPECTED[name, kind]), kind
        assert within.marginals() == before.marginals()
        assert within.parameters() == before.parameters()
        assert within.describe() == before.describe()
        assert within.to_json() == before.to_json()
    for kind, source in INPUTS.items():  # and it is used outside of it
        assert torch.equal(within(source, seeded()), EXPECTED[name, kind]), kind


def transformed(transform: PolicyTransform) -> list[Tensor]:
    """What a transform makes of a batch, of an image, and of a PIL image, twice."""
    source = INPUTS["uint8"]
    picture = PIL.Image.fromarray(source[0].permute(1, 2, 0).numpy())
    torch.manual_seed(5)
    results = []
    for _ in range(2):
        pair = transform(source[1], source[2])
        made = [transform(source), *pair, torch.from_numpy(np.array(transform(picture)))]
        results += [one.clone() for one in made]
    return results


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", WRITTEN)
def test_of_a_transform_and_its_file(kind: str, mode: str, tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text(json.dumps(document(kind)))
    before = load_policy(tmp_path / "policy.json")
    expected = transformed(before)
    with MODES[mode]():
        within = load_policy(tmp_path / "policy.json")
        for transform in (before, within):
            for one, other in zip(transformed(transform), expected, strict=True):
                assert torch.equal(one, other)
        within.progress = 0.25
        assert within.progress == 0.25
    within.progress = 1.0
    for one, other in zip(transformed(within), expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("mode", MODES)
def test_of_policies_that_are_made_in_it(mode: str) -> None:
    def made() -> list[Policy]:
        return [
            *map(autoaugment, PUBLISHED),
            trivial_augment(),
            rand_augment(2, 9),
            SubPolicies.pairs(ops.DADA_OPERATIONS),
            SubPolicies.merge([SubPolicies.pairs(["Rotate", "Color"])] * 2).top(1),
            Pairs.uniform(ops.DADA_OPERATIONS).without([0]),
        ]

    expected = [policy.to_json() for policy in made()]
    with MODES[mode]():
        assert [policy.to_json() for policy in made()] == expected


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ops.OPERATIONS)
def test_of_an_operation(name: str, mode: str) -> None:
    operation = torch.full((8,), ops.operation_id(name))
    magnitude, sign = torch.linspace(0, 1, 8), torch.linspace(-1, 1, 8).sign()
    center = torch.rand(8, 2, generator=seeded())

    def result(source: Tensor) -> Tensor:
        value = ops.to_values(operation, magnitude, sign)
        return ops.apply(source, operation, value, center)

    expected = {kind: result(source) for kind, source in INPUTS.items()}
    with MODES[mode]():
        for kind, source in INPUTS.items():
            assert torch.equal(result(source).clone(), expected[kind])


@pytest.mark.parametrize("mode", MODES)
def test_of_the_predefined_augmentation(mode: str) -> None:
    def results() -> list[Tensor]:
        source = INPUTS["float32"]
        return [
            ops.random_flip(source, seeded()),
            ops.random_crop(source, 3, seeded()),
            ops.cutout(source, 8, seeded(), 0.5),
        ]

    expected = results()
    with MODES[mode]():
        assert all(torch.equal(*pair) for pair in zip(results(), expected, strict=True))


def test_a_policy_made_in_inference_mode_serves_a_training() -> None:
    with torch.inference_mode():
        policy = SubPolicies.pairs(["Rotate", "Color"])
    weight = torch.ones(3, 1, 1, requires_grad=True)
    loss = (policy(INPUTS["float32"], seeded()) * weight).sum()
    assert torch.autograd.grad(loss, weight)[0].shape == weight.shape


def weighted(policy: Policy) -> Callable[[Tensor], Tensor]:
    """What a program may do with a policy inside a function that `torch.func` differentiates."""
    return lambda weight: policy(INPUTS["float32"], seeded()) * weight


@pytest.mark.parametrize("name", DOCUMENTS)
def test_of_functions_that_are_differentiated(name: str) -> None:
    policy = from_json(json.loads(DOCUMENTS[name]))
    expected, weight = EXPECTED[name, "float32"], torch.ones(3, 1, 1)
    gradient = torch.func.grad(lambda weight: weighted(policy)(weight).sum())(weight)
    torch.testing.assert_close(gradient, expected.sum((0, 2, 3))[:, None, None])
    result, backward = torch.func.vjp(weighted(policy), weight)
    assert torch.equal(result, expected)
    torch.testing.assert_close(backward(torch.ones_like(result))[0], gradient)
    assert torch.equal(torch.func.jvp(weighted(policy), (weight,), (weight,))[1], expected)
    within = torch.func.grad_and_value(lambda images: policy(images, seeded()).sum())
    assert torch.equal(within(INPUTS["float32"])[1], expected.sum())
