"""Policies that adapt to each image: their magnitudes, what they remember, and trainings."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import through_a_file
from test_loop import SGD, interrupted_at, make, result, run
from torch import Tensor

from raysearch import load_policy
from raysearch.errors import RaysearchError
from raysearch.ops import operation_id
from raysearch.policy import (
    TRIVIAL_AUGMENT_OPERATIONS,
    Adaptive,
    AdaptiveTransform,
    Magnitudes,
    Mixture,
    entaugment,
    from_json,
    sra,
    trivial_augment,
)
from raysearch.training import Training

IMAGES = torch.randint(
    256, (6, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
)
POLICIES = {"entaugment": entaugment(), "sra": sra()}
P = torch.tensor([[0.7, 0.2, 0.1], [1 / 3, 1 / 3, 1 / 3], [1.0, 0.0, 0.0]])
TARGETS = torch.tensor([1, 0, 0])


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def close(found: Tensor, expected: list[float]) -> bool:
    return torch.allclose(found, torch.tensor(expected), atol=1e-6)


def test_magnitudes_of_one_label_are_the_papers() -> None:
    entropy = -(0.7 * math.log(0.7) + 0.2 * math.log(0.2) + 0.1 * math.log(0.1))
    assert close(entaugment().magnitudes(P.log(), TARGETS), [1 - entropy / math.log(3), 0.0, 1.0])
    agreement = 0.2 / math.sqrt(0.7**2 + 0.2**2 + 0.1**2)
    assert close(sra().magnitudes(P.log(), TARGETS), [agreement, 1 / math.sqrt(3), 1.0])


def test_magnitudes_of_several_labels_are_means_over_classes() -> None:
    p, t = torch.tensor([[0.9, 0.5], [0.2, 0.4]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    entropy = [
        1 + sum(q * math.log2(q) + (1 - q) * math.log2(1 - q) for q in row) / 2
        for row in p.tolist()
    ]
    assert close(entaugment().magnitudes(p.logit(), t), entropy)
    assert close(sra().magnitudes(p.logit(), t), [(0.9 + 0.5) / 2, (0.2 + 0.4) / 2])


@pytest.mark.parametrize("policy", POLICIES.values())
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_magnitudes_lie_in_0_to_1_whatever_the_outputs(policy: Adaptive, dtype: Any) -> None:
    outputs = 50 * torch.randn(200, 7, generator=seeded())
    for targets in (torch.arange(200) % 7, (outputs > 0).float()):
        found = policy.magnitudes(outputs.to(dtype).requires_grad_(), targets)
        assert found.dtype == torch.float32
        assert not found.requires_grad
        assert bool(((found >= 0) & (found <= 1)).all())


def test_entaugment_takes_the_known_magnitudes_and_draws_the_others() -> None:
    known = torch.tensor([0.25, math.nan, 1.0, math.nan, 0.0, 0.5])
    plain = entaugment().sample(6, generator=seeded())
    draws = entaugment().knowing(known).sample(6, generator=seeded())
    assert torch.equal(draws.operation, plain.operation)
    expected = torch.where(known.isnan(), plain.magnitude[:, 0], known)
    assert torch.equal(draws.magnitude[:, 0], expected)


def test_unseen_magnitudes_are_uniform_and_so_are_operations() -> None:
    draws = sra().sample(20_000, generator=seeded())
    counts = draws.magnitude[:, 0].histc(10, 0, 1) / 20_000
    assert bool(((counts - 0.1).abs() < 0.01).all())
    ids = sorted(operation_id(name) for name in TRIVIAL_AUGMENT_OPERATIONS)
    assert sorted(set(draws.operation.flatten().tolist())) == ids


@pytest.mark.parametrize("n", [6, 7])
def test_sra_leaves_half_of_a_batch_random(n: int) -> None:
    policy = sra().knowing(torch.full((n,), 0.5))
    which = set()
    for seed in range(20):
        adapted = policy.sample(n, generator=seeded(seed)).magnitude[:, 0] == 0.5
        assert int(adapted.sum()) == n - n // 2
        which.add(tuple(adapted.tolist()))
    assert len(which) > 1


def test_it_remembers_what_was_said_last_of_each_image() -> None:
    seen = Magnitudes(entaugment())
    seen.observe([4, 1, 0], P.log(), TARGETS)
    seen.observe(torch.tensor([1, 1]), P[[0, 2]].log(), TARGETS[:2])  # the last counts
    state = seen.state()
    assert len(state) == 5  # grown to the largest index
    assert state.isnan().tolist() == [False, False, True, True, False]
    assert state[1] == 1
    known = torch.tensor([1.0, math.nan, math.nan])
    draws = seen.policy_for([1, 2, 99]).sample(3, generator=seeded())
    expected = entaugment().knowing(known).sample(3, generator=seeded())
    assert torch.equal(draws.magnitude, expected.magnitude)


@pytest.mark.parametrize(
    ("indices", "outputs", "targets", "message"),
    [
        ([0, -1, 2], P, TARGETS, "whole numbers"),
        ([0.0, 1.0, 2.0], P, TARGETS, "whole numbers"),
        ([0, 1], P, TARGETS, "2 indices for 3 outputs"),
        ([0, 1, 2], P, TARGETS[:2], "targets of shape"),
        ([0, 1, 2], P[:, 0], TARGETS, "outputs of shape"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    indices: Any, outputs: Tensor, targets: Tensor, message: str
) -> None:
    seen = Magnitudes(sra())
    with pytest.raises(ValueError, match=message):
        seen.observe(indices, outputs, targets)
    assert len(seen.state()) == 0


@pytest.mark.parametrize("name", POLICIES)
def test_a_file_has_the_policy_and_no_state(name: str, tmp_path: Path) -> None:
    POLICIES[name].knowing(torch.zeros(3)).save(tmp_path / "policy.json")
    document = json.loads((tmp_path / "policy.json").read_text())
    assert set(document) == {"format", "version", "kind", "ranges", "operations", "rule"}
    assert document["kind"] == "adaptive"
    augment = load_policy(tmp_path / "policy.json")
    assert isinstance(augment, AdaptiveTransform)
    assert augment.policy == POLICIES[name]
    torch.manual_seed(0)
    assert torch.equal(augment(IMAGES), POLICIES[name](IMAGES, seeded(0)))


def test_what_a_policy_cannot_be() -> None:
    with pytest.raises(RaysearchError, match="rule"):
        from_json({**sra().to_json(), "rule": "mood"})
    with pytest.raises(ValueError, match="adaptive"):
        Mixture([sra(), trivial_augment()])  # whose members nobody tells of the network
    assert Mixture.merge([sra(), sra()]) == sra()


def test_the_transform_goes_on_from_its_state_dict() -> None:
    augment = AdaptiveTransform(entaugment())
    augment.observe([1, 3, 2], P.log(), TARGETS)
    again = AdaptiveTransform(entaugment())
    again.load_state_dict(through_a_file(augment.state_dict()))
    results = []
    for one in (augment, again):
        one.observe([9], P[:1].log(), TARGETS[:1])
        torch.manual_seed(0)
        results.append(one(IMAGES, indices=torch.tensor([1, 2, 3, 4, 0, 9])))
    assert torch.equal(*results)
    unseen = augment.state_dict()["_extra_state"].isnan()
    assert unseen.nonzero().flatten().tolist() == [0, 4, 5, 6, 7, 8]


def test_the_transform_leaves_alone_what_the_network_finds_hard() -> None:
    augment = AdaptiveTransform(Adaptive(["Rotate"], "entropy"))
    augment.observe(range(6), torch.zeros(6, 5), torch.zeros(6, dtype=torch.int64))
    assert torch.equal(augment(IMAGES, indices=range(6)), IMAGES)
    assert torch.equal(augment(IMAGES[0], indices=0), IMAGES[0])
    images, labels = augment(IMAGES, torch.arange(6), indices=range(6))
    assert torch.equal(images, IMAGES)
    assert labels.tolist() == list(range(6))
    assert not torch.equal(augment(IMAGES), IMAGES)  # without indices: at random
    augment.observe(range(6), 100 * torch.eye(6, 5), torch.zeros(6, dtype=torch.int64))
    assert not torch.equal(augment(IMAGES, indices=range(6)), IMAGES)
    with pytest.raises(ValueError, match="5 indices for 6 images"):
        augment(IMAGES, indices=range(5))


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_modes_of_pytorch_change_nothing(mode: Any) -> None:
    augment = AdaptiveTransform(sra())
    torch.set_default_dtype(torch.float64)
    try:
        with mode():
            augment.observe([0, 1, 2], P.log(), TARGETS)
            augment.load_state_dict(augment.state_dict())
        augment.observe([2, 7, 8], P.log(), TARGETS)
        assert augment(IMAGES, indices=[0, 1, 2, 3, 7, 8]).dtype == torch.uint8
        assert augment.get_extra_state().dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_images_and_outputs_may_be_on_a_gpu() -> None:
    results = []
    for device in ("cpu", "cuda"):
        augment = AdaptiveTransform(sra())
        indices = torch.tensor([1, 3, 2], device=device)
        augment.observe(indices, P.log().to(device), TARGETS.to(device))
        torch.manual_seed(0)
        results.append(augment(IMAGES[:3].to(device), indices=indices).cpu().int())
    assert (results[0] - results[1]).abs().max() <= 1


@pytest.mark.parametrize("task", ["classification", "multi_label"])
@pytest.mark.parametrize("name", POLICIES)
def test_a_training_resumes_to_the_bit_and_adapts(name: str, task: str) -> None:
    def build(policy: Any = POLICIES[name]) -> Training:
        return Training(make(task=task), {**SGD, "enlarge_batch": 2}, policy, predefined=True)

    whole = build()
    metrics = run(whole)
    for calls in (1, 20):  # in the first epoch and in the second
        again = build()
        again.load_state_dict(interrupted_at(build(), calls))
        assert again.loop.step > 0
        done = again.epoch
        assert run(again) == metrics[done:]
        assert result(again) == result(whole)
        assert torch.equal(again.state_dict()["magnitudes"], whole.state_dict()["magnitudes"])
    magnitudes = whole.state_dict()["magnitudes"]
    assert len(magnitudes) == 128  # of train + val
    assert not bool(magnitudes.isnan().any())
    untold = build()
    untold._magnitudes = None  # so that all magnitudes are drawn at random
    run(untold)
    assert result(untold) != result(whole)


def test_other_trainings_have_the_state_that_they_had() -> None:
    assert "magnitudes" not in Training(make(), SGD, trivial_augment(), True).state_dict()
