"""Searches and trainings: resumed bit for bit, per-batch or per-image, moved by their evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import through_a_file

from raysearch import methods
from raysearch.data import Dataset, TensorSplit
from raysearch.errors import NonFiniteLossError, RaysearchError
from raysearch.methods.dada import Dada, DadaTraining
from raysearch.policy import SubPolicies, trivial_augment
from raysearch.training import FlopCounter, Predefined, Setup, Training, plain_step_flops

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "method"
SETTINGS: dict[str, Any] = yaml.safe_load((CONFIGS / "dada.yaml").read_text())["method"]
SGD = {"epochs": 4, "batch_size": 16, "lr": 0.05}


def split(n: int, seed: int) -> TensorSplit:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 4
    images = torch.randint(0, 60, (n, 1, 8, 8), dtype=torch.uint8, generator=generator)
    for i, label in enumerate(labels.tolist()):
        images[i, 0, 2 * label : 2 * label + 2] += 150
    return TensorSplit(images, labels)


@pytest.fixture
def setup() -> Setup:
    data = Dataset(
        name="stripes",
        classes=tuple("abcd"),
        train=split(96, 0),
        val=None,
        test=split(40, 1),
        channels=1,
        size=(8, 8),
        mean=(0.25,),
        std=(0.25,),
    )
    return Setup(
        data, "small_cnn", torch.device("cpu"), 3, Predefined(flip=True, padding=1, cutout=2)
    )


def build(setup: Setup, **changes: Any) -> DadaTraining:
    method = Dada.of({**SETTINGS, **changes}).training(setup, SGD)
    assert isinstance(method, DadaTraining)
    return method


VARIANTS = {
    "default": {},
    "per batch": {"sampling": "batch"},
    "gumbel": {"estimator": "gumbel_softmax"},
    "reinforce": {"estimator": "reinforce", "magnitude_lr": 0.0},
    "every step": {"magnitude_interval": 1},
    "central": {"difference": "central", "magnitude_interval": 1},
    "warmup": {"warmup": 0.5},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_restored_search_continues_bit_for_bit(setup: Setup, variant: str) -> None:
    whole = build(setup, **VARIANTS[variant])
    metrics = [whole.step() for _ in range(whole.epochs)]
    first = build(setup, **VARIANTS[variant])
    first.step()
    first.step()
    second = build(setup, **VARIANTS[variant])
    torch.rand(7)  # the global generator is nobody's business
    second.load_state_dict(through_a_file(first.state_dict()))
    later = [second.step() for _ in range(2)]
    for ours, theirs in zip(later, metrics[2:], strict=True):
        assert ours == pytest.approx(theirs, rel=0, abs=0, nan_ok=True)
    assert second.policy() == whole.policy()
    for name, tensor in second.loop.model.state_dict().items():
        assert torch.equal(tensor, whole.loop.model.state_dict()[name])


def test_seeds_matter_and_nothing_else(setup: Setup) -> None:
    def policy(seed: int) -> SubPolicies:
        search = build(Setup(**{**setup.__dict__, "seed": seed}))
        search.step()
        return search.policy()

    assert policy(1) == policy(1)
    assert policy(1) != policy(2)


def test_metrics_say_what_the_interface_promises(setup: Setup) -> None:
    metrics = build(setup).step()
    assert {"train_loss", "val_loss", "val_error", "lr", "entropy", "kl_uniform"} <= set(metrics)
    shares = [value for key, value in metrics.items() if key.startswith("share/")]
    assert len(shares) == 15
    assert sum(shares) == pytest.approx(1)
    assert 0 <= metrics["kl_uniform"] < 0.1
    assert 0 <= metrics["val_error"] <= 100


def test_cost_is_arithmetic_in_plain_epochs(setup: Setup) -> None:
    per_epoch = {
        variant: build(setup, **changes).step()["epoch_equivalents"]
        for variant, changes in VARIANTS.items()
    }
    # 3 + 3 passes of gradients, then a pass or two of differences, doubled by magnitudes
    assert per_epoch["reinforce"] == pytest.approx(7 / 3, rel=0.03)
    assert per_epoch["default"] == pytest.approx((4 * 7 + 2) / 12, rel=0.03)  # 2 of 6 steps
    assert per_epoch["every step"] == pytest.approx(8 / 3, rel=0.05)
    assert per_epoch["central"] == pytest.approx(10 / 3, rel=0.06)
    assert per_epoch["warmup"] == 1


def test_plain_step_flops_are_those_of_a_step(setup: Setup) -> None:
    training = Training(setup, SGD, None, predefined=False)
    with FlopCounter() as count:
        training.step()
    steps = 96 // 16
    assert count.total == steps * plain_step_flops(setup, 16)


def test_per_batch_sampling_gives_all_images_one_sub_policy(setup: Setup) -> None:
    images, _, _ = next(setup.dataset.train.batches(16, device=setup.device, generator=None))
    for sampling, count in (("image", 16), ("batch", 1)):
        search = build(setup, sampling=sampling)
        _, choices = search.augment(images, torch.Generator().manual_seed(0))
        assert len(choices.chosen) == count


def test_the_prior_holds_the_policy_where_it_started(setup: Setup) -> None:
    def moved(**changes: Any) -> float:
        search = build(setup, lr=0.1, **changes)
        return [search.step()["kl_uniform"] for _ in range(4)][-1]

    assert moved(prior_strength=30.0) < 0.3 * moved(prior_strength=0.0)


def test_the_prior_gradient_is_that_of_the_joint_divergence(setup: Setup) -> None:
    search = build(setup, prior_strength=1.0)
    generator = torch.Generator().manual_seed(0)
    search.alpha += 0.5 * torch.randn(search.alpha.shape, generator=generator)
    search.beta += 0.5 * torch.randn(search.beta.shape, generator=generator)
    alpha, beta = search.alpha.double().requires_grad_(), search.beta.double().requires_grad_()
    p, q = alpha.softmax(0), beta.sigmoid()
    joint = torch.stack([q, 1 - q])  # bit, sub-policy, position
    mass = p[:, None, None] * joint[:, :, 0].T[:, :, None] * joint[:, :, 1].T[:, None, :]
    divergence = (mass * (mass * len(p) * 4).log()).sum()
    truth = torch.autograd.grad(divergence, (alpha, beta))
    for ours, theirs in zip(search._prior_gradient(), truth, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-7)


def test_keep_leaves_the_heaviest(setup: Setup) -> None:
    search = build(setup, keep=25)
    search.step()
    assert len(search.policy()) == 25


def test_a_loss_that_is_not_finite_names_the_step(setup: Setup) -> None:
    def until_it_fails(training: Any) -> None:
        for _ in range(4):
            training.step()

    hot = {**SGD, "lr": 1e12}
    with pytest.raises(NonFiniteLossError, match=r"search: .* at epoch 1, step \d"):
        until_it_fails(Dada.of(SETTINGS).training(setup, hot))
    eager = {**SETTINGS, "magnitude_interval": 1}
    small = {**hot, "batch_size": 4}  # many steps follow the first one that is not finite
    with pytest.raises(NonFiniteLossError, match=r"search: .* at epoch 1, step \d"):
        until_it_fails(Dada.of(eager).training(setup, small))
    with pytest.raises(NonFiniteLossError, match="training"):
        until_it_fails(Training(setup, hot, None, predefined=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"estimator": "relaxed"}, "did you mean 'relax'"),
        ({"operations": ["Rotate", "Sheer"]}, "unknown operation 'Sheer'"),
        ({"operations": ["Rotate"]}, "operations"),
        ({"temperature": 0}, "temperature"),
        ({"temprature": 1}, "did you mean 'temperature'"),
        ({"betas": [0.5, 1.0]}, "betas"),
        ({"lr": "fast"}, "method.lr"),
        ({"keep": 1.5}, "method.keep"),
        ({"betas": ["a", "b"]}, "betas"),
        ({"operations": [1, 2]}, "operations"),
    ],
)
def test_wrong_settings_are_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RaysearchError, match=message) as error:
        Dada.of({**SETTINGS, **change})
    assert "\n" not in str(error.value)


def test_unknown_methods_are_named() -> None:
    with pytest.raises(RaysearchError, match="did you mean 'dada'"):
        methods.find("dadaa")
    assert "dada" in methods.names()


@pytest.mark.parametrize("policy", [None, trivial_augment()])
def test_a_restored_training_continues_bit_for_bit(setup: Setup, policy: Any) -> None:
    whole = Training(setup, SGD, policy, predefined=True)
    metrics = [whole.step() for _ in range(4)]
    first = Training(setup, SGD, policy, predefined=True)
    first.step()
    second = Training(setup, SGD, policy, predefined=True)
    second.load_state_dict(through_a_file(first.state_dict()))
    assert [second.step() for _ in range(3)] == metrics[1:]
    assert second.test() == whole.test()


def test_training_learns_and_counts_its_epochs(setup: Setup) -> None:
    training = Training(setup, {**SGD, "epochs": 8}, None, predefined=False)
    metrics = [training.step() for _ in range(8)]
    assert metrics[-1]["train_loss"] < 0.3 * metrics[0]["train_loss"]
    # the final training has twice the images of the search's half
    assert metrics[-1]["epoch_equivalents"] == pytest.approx(16)
    assert training.test()["test_error"] < 20


def test_fewer_images_than_a_batch_are_one_batch(setup: Setup) -> None:
    training = Training(setup, {**SGD, "batch_size": 500}, None, predefined=False)
    assert training.step()["train_loss"] > 0
    search = Dada.of(SETTINGS).training(setup, {**SGD, "batch_size": 500})
    assert search.step()["train_loss"] > 0


def test_normalisation_is_the_same_on_bytes_and_on_levels(setup: Setup) -> None:
    images = setup.dataset.test.images  # type: ignore[attr-defined]
    levels = (images / 255).requires_grad_()
    normalised = setup.normalise(levels)
    torch.testing.assert_close(setup.normalise(images), normalised, rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(normalised.sum(), levels)
    torch.testing.assert_close(gradient, torch.full_like(gradient, 4.0))


@pytest.mark.parametrize(
    "wrong", [{"padding": -1}, {"padding": 1.5}, {"cutout": "x"}, {"flip": 2}, {"vertical_flip": 1}]
)
def test_wrong_predefined_settings_are_one_line(wrong: dict[str, Any]) -> None:
    with pytest.raises(RaysearchError, match=r"data\.predefined\."):
        Predefined.of(wrong)
