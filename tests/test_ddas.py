"""DDAS: derivatives equal to enumeration, unbiased samples, moved by evidence, resumed exactly."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import through_a_file
from torch import Tensor, nn
from torch.nn import functional as F

from raysearch import ops
from raysearch.data import Dataset, TensorSplit, load_dataset
from raysearch.errors import RaysearchError
from raysearch.experiment._compose import compose
from raysearch.hypergrad import Network, one_step_rewards
from raysearch.methods._rewards import RewardScale
from raysearch.methods.ddas import Arms, Ddas, DdasTraining, divergence, log_probability, weights
from raysearch.policy import Candidates, Schedule, from_json
from raysearch.training import Predefined, Setup

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "method"
SETTINGS: dict[str, Any] = yaml.safe_load((CONFIGS / "ddas.yaml").read_text())["method"]
SGD = {"epochs": 4, "batch_size": 16, "lr": 0.05}
N, B, ZETA = 3, 5, 0.7  # candidates, images, the classifier's learning rate


@pytest.fixture
def setup() -> Setup:
    generator = torch.Generator().manual_seed(0)

    def split(n: int) -> TensorSplit:
        images = torch.randint(256, (n, 3, 8, 8), dtype=torch.uint8, generator=generator)
        return TensorSplit(images, torch.arange(n) % 4)

    data = Dataset(
        name="noise",
        classes=tuple("abcd"),
        train=split(96),
        val=None,
        test=split(16),
        channels=3,
        size=(8, 8),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )
    return Setup(data, "small_cnn", torch.device("cpu"), 3, Predefined(flip=True, padding=1))


def build(setup: Setup, sgd: dict[str, Any] = SGD, **changes: Any) -> DdasTraining:
    """A search of the default settings, but without warm-up."""
    method = Ddas.of({**SETTINGS, "warmup": 0.0, **changes}).training(setup, sgd)
    assert isinstance(method, DdasTraining)
    return method


# --- the derivative -------------------------------------------------------------------------------


class Problem:
    """A small smooth network, and every image under every arm: nothing, then all N² pairs."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
        pairs = torch.tensor(list(itertools.product(range(N), repeat=2)))
        self.pair = torch.cat([torch.zeros(1, 2, dtype=torch.int64), pairs])
        self.arms = len(self.pair)
        self.images = torch.randn(self.arms, B, 4, dtype=torch.float64)
        self.labels = torch.randint(3, (B,))
        self.val = torch.randn(8, 4, dtype=torch.float64), torch.randint(3, (8,))
        self.tau = torch.tensor(-0.3, dtype=torch.float64, requires_grad=True)
        self.a = torch.randn(N, dtype=torch.float64, requires_grad=True)

    def every(self) -> Arms:
        """All arms, so that ω is each one's probability."""
        augmented = torch.arange(self.arms) > 0
        return Arms(augmented, self.pair, log_q=torch.zeros(self.arms, dtype=torch.float64))

    def truth(self, omega: Tensor, wanted: list[Tensor]) -> tuple[Tensor, ...]:
        """∂L_val(w') by automatic differentiation through the step; omega [arms, B] sums to B."""
        w = dict(self.model.named_parameters())
        losses = torch.stack(
            [F.cross_entropy(self.model(x), self.labels, reduction="none") for x in self.images]
        )
        train_loss = (omega * losses).sum() / B
        gradient = torch.autograd.grad(train_loss, list(w.values()), create_graph=True)
        ahead = {n: p - ZETA * g for (n, p), g in zip(w.items(), gradient, strict=True)}
        logits = torch.func.functional_call(self.model, ahead, (self.val[0],))
        val_loss = F.cross_entropy(logits, self.val[1])
        return torch.autograd.grad(val_loss, wanted)

    def rewards(self, omega: Tensor) -> Tensor:
        """r of every image under every arm, [arms, B]."""
        rows = self.images.flatten(0, 1), self.labels.repeat(self.arms)
        found = one_step_rewards(
            Network(self.model),
            rows,
            self.val,
            ZETA,
            difference="central",
            epsilon=1e-4,
            with_pixels=False,
            weights=omega.detach().flatten() / B,
        )
        return found.rewards.reshape(self.arms, B)


def test_derivatives_for_t_and_every_p_are_those_of_the_expected_loss() -> None:
    problem = Problem()
    t = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    p = torch.rand(N * N, dtype=torch.float64).requires_grad_()
    omega = torch.cat([(1 - t).reshape(1), t * p])[:, None].expand(-1, B)
    true_t, true_p = problem.truth(omega, [t, p])
    r = problem.rewards(omega).mean(1)
    ours_p = -ZETA * t * r[1:]
    ours_t = -ZETA * ((p * r[1:]).sum() - r[0])
    torch.testing.assert_close(ours_p, true_p, rtol=1e-6, atol=1e-10)
    torch.testing.assert_close(ours_t, true_t, rtol=1e-6, atol=1e-10)


def test_derivatives_for_the_logits_are_those_of_the_expected_loss() -> None:
    problem = Problem()
    omega = weights(problem.tau, problem.a, problem.every())
    assert float(omega.detach().sum()) == pytest.approx(1)
    truth = problem.truth(omega[:, None].expand(-1, B), [problem.tau, problem.a])
    omega = weights(problem.tau, problem.a, problem.every())
    r = problem.rewards(omega[:, None].expand(-1, B))
    ours = torch.autograd.grad(-ZETA / B * (r * omega[:, None]).sum(), (problem.tau, problem.a))
    for mine, theirs in zip(ours, truth, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("sampling", ["image", "batch"])
def test_derivatives_given_the_rows_are_exact(sampling: str) -> None:
    problem = Problem()
    if sampling == "image":
        drawn = torch.tensor([0, 3, 4, 0, 9])  # the arm of each image
        arms = Arms(drawn > 0, problem.pair[drawn], log_q=-torch.rand(B, dtype=torch.float64))
        place = torch.zeros(problem.arms, B, B, dtype=torch.float64)
        place[drawn, torch.arange(B), torch.arange(B)] = 1
    else:
        drawn = torch.tensor([0, 2, 7, 5])
        arms = Arms(drawn > 0, problem.pair[drawn])
        place = torch.zeros(problem.arms, B, len(drawn), dtype=torch.float64)
        place[drawn, :, torch.arange(len(drawn))] = 1
    omega = place @ weights(problem.tau, problem.a, arms)  # [arms, B]
    truth = problem.truth(omega, [problem.tau, problem.a])
    omega = place @ weights(problem.tau, problem.a, arms)
    total = -ZETA / B * (problem.rewards(omega) * omega).sum()
    ours = torch.autograd.grad(total, (problem.tau, problem.a))
    for mine, theirs in zip(ours, truth, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-10)


def test_weights_do_not_go_together_with_pixel_rewards() -> None:
    problem = Problem()
    batch = problem.images[0], problem.labels
    with pytest.raises(ValueError, match="with_pixels"):
        one_step_rewards(Network(problem.model), batch, problem.val, ZETA, weights=torch.ones(B))


def test_weights_of_a_batch_are_the_policy_over_its_sample() -> None:
    problem = Problem()
    arms = Arms(torch.tensor([False, True, True]), problem.pair[[0, 2, 6]])
    p, t = problem.a.softmax(0), torch.sigmoid(problem.tau)
    joint = p[arms.pair[1:]].prod(1)
    expected = torch.cat([(1 - t).reshape(1), t * joint / joint.sum()])
    torch.testing.assert_close(weights(problem.tau, problem.a, arms), expected)


def test_sampled_gradients_average_to_the_enumerated_one(setup: Setup) -> None:
    search = build(setup, operations=["Rotate", "Invert"], levels=[0.3, 0.6], exploration=0.4)
    search.tau.fill_(0.4)
    search.a.copy_(torch.tensor([0.5, -0.3, 0.2]))
    tau, a = search.tau.clone().requires_grad_(), search.a.clone().requires_grad_()
    generator = torch.Generator().manual_seed(0)
    reward = torch.randn(2, N, N, generator=generator)  # v fixed: a reward for every arm

    pair = torch.tensor(list(itertools.product(range(N), repeat=2)))
    arms = Arms(torch.ones(N * N, dtype=torch.bool), pair)
    p = log_probability(tau, a.log_softmax(0), arms).exp()
    expected = -(p * reward[1].flatten()).sum() - torch.sigmoid(-tau) * reward[0, 0, 0]
    truth = torch.cat([g.reshape(-1) for g in torch.autograd.grad(expected, (tau, a))])

    found = []
    for _ in range(3000):
        drawn = search._propose(16, generator)
        nothing = reward[0, 0, 0].expand(16)
        rewards = torch.where(
            drawn.augmented, reward[1][drawn.pair[:, 0], drawn.pair[:, 1]], nothing
        )
        search._scale.load_state_dict({"mean": 0.0, "scale": 1.0})
        cost = search._costs(drawn, rewards)
        gradient = torch.autograd.grad((cost * weights(tau, a, drawn)).sum(), (tau, a))
        found.append(torch.cat([g.reshape(-1) for g in gradient]))
    estimates = torch.stack(found)
    error = estimates.std(0) / len(estimates) ** 0.5
    assert bool(((estimates.mean(0) - truth).abs() < 4 * error).all())
    assert bool((error < 0.1 * truth.abs().max()).all())


def test_the_released_codes_rewards_are_relative_to_the_unaugmented(setup: Setup) -> None:
    search = build(setup, sampling="batch", candidates=2)
    arms = Arms(torch.tensor([False, True, True]), torch.zeros(3, 2, dtype=torch.int64))
    rewards = torch.tensor([[1.0, 3.0], [3.0, 3.0], [-1.0, -1.0]])  # means 2, 3, -1
    cost = search._costs(arms, rewards.flatten())
    torch.testing.assert_close(cost, torch.tensor([0.0, -0.25, 0.75]))


def test_the_divergence_is_that_of_the_distributions_over_arms() -> None:
    problem = Problem()
    every = problem.every()
    start = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64).log()
    log_policy = log_probability(problem.tau, problem.a.log_softmax(0), every)
    log_prior = log_probability(torch.tensor(0.35).logit().double(), start, every)
    truth = (log_policy.exp() * (log_policy - log_prior)).sum()
    ours = divergence(problem.tau, problem.a, 0.35, start)
    torch.testing.assert_close(ours, truth, rtol=1e-6, atol=1e-8)


def test_the_reward_scale_uses_no_help_from_the_image_itself() -> None:
    scale = RewardScale()
    scale.load_state_dict({"mean": 9.0, "scale": 2.0})
    rewards = torch.tensor([1.0, 2.0, 6.0])
    expected = -torch.tensor([1 - 4.0, 2 - 3.5, 6 - 1.5]) / 2
    torch.testing.assert_close(scale.per_image(rewards), expected)
    scale.load_state_dict({"mean": 9.0, "scale": 2.0})
    torch.testing.assert_close(scale.of_batch(rewards), torch.tensor([3.0]))


# --- the search -----------------------------------------------------------------------------------


def digits(planted: str | None) -> Setup:
    """Digits that validate as they are, or carried through one operation."""
    data = load_dataset({"name": "digits", "test_fraction": 0.01, "size": 8})
    images, labels, _ = next(data.train.batches(5000, device=torch.device("cpu"), generator=None))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, val = order.chunk(2)
    seen = images[val]
    if planted is not None:
        ids = torch.full((len(val),), ops.operation_id(planted))
        value = ops.to_values(ids, torch.full((len(val),), 0.75), torch.ones(len(val)))
        seen = ops.apply(seen, ids, value)
    splits = {
        "train": TensorSplit(images[train], labels[train]),
        "val": TensorSplit(seen, labels[val]),
    }
    return Setup(Dataset(**{**data.__dict__, **splits}), "small_cnn", torch.device("cpu"), 0)


LONG = {"epochs": 10, "batch_size": 128, "lr": 0.1}


def test_t_falls_where_no_candidate_helps() -> None:
    harmful = ["Invert", "Solarize", "FlipUD", "Equalize"]
    search = build(digits(None), LONG, operations=harmful, levels=[0.9], augment_lr=0.05)
    augment = [search.step()["augment"] for _ in range(search.epochs)]
    assert augment[-1] < 0.7 * SETTINGS["augment"]
    assert search.policy().at(1.0).operations_per_image() == pytest.approx(2 * augment[-1])


@pytest.mark.parametrize("planted", ["Invert", "FlipUD"])
def test_t_rises_and_the_planted_operation_leads(planted: str) -> None:
    names = ["Invert", "FlipUD", "Rotate", "Equalize", "ShearX", "Blur"]
    search = build(digits(planted), LONG, operations=names, warmup=SETTINGS["warmup"])
    metrics = [search.step() for _ in range(search.epochs)]
    assert metrics[-1]["augment"] > 1.2 * SETTINGS["augment"]
    assert next(iter(search.policy().at(1.0).marginals())) == planted


@pytest.mark.parametrize("changes", [{}, {"sampling": "batch", "candidates": 2}, {"warmup": 0.25}])
def test_a_restored_search_continues_bit_for_bit(setup: Setup, changes: dict[str, Any]) -> None:
    whole = build(setup, **changes)
    metrics = [whole.step() for _ in range(whole.epochs)]
    first = build(setup, **changes)
    first.step()
    first.step()
    second = build(setup, **changes)
    torch.rand(7)
    second.load_state_dict(through_a_file(first.state_dict()))
    assert second.policy() == first.policy()
    later = [second.step() for _ in range(2)]
    assert later == metrics[2:]
    assert second.policy() == whole.policy()
    for name, tensor in second.loop.model.state_dict().items():
        assert torch.equal(tensor, whole.loop.model.state_dict()[name])


def test_the_policy_is_a_schedule_of_the_searchs_epochs(setup: Setup) -> None:
    search = build(setup)
    assert search.policy().at(0.0) == Ddas.of(SETTINGS).uniform
    shares = []
    for _ in range(2):
        metrics = search.step()
        shares.append({k.removeprefix("share/"): v for k, v in metrics.items() if "share/" in k})
    policy = search.policy()
    assert isinstance(policy, Schedule)
    assert len(policy.phases) == 2
    assert policy.at(0.3).marginals() == pytest.approx(shares[0])
    assert policy.at(0.7).marginals() == pytest.approx(shares[1])
    assert from_json(policy.to_json()) == policy


def test_metrics_say_how_far_the_policy_moved(setup: Setup) -> None:
    metrics = build(setup).step()
    shares = [value for key, value in metrics.items() if key.startswith("share/")]
    assert len(shares) == 20
    assert sum(shares) == pytest.approx(1)
    assert 0 <= metrics["kl_uniform"] < 0.2
    assert metrics["operations_per_image"] == pytest.approx(2 * metrics["augment"])


def test_what_is_equally_likely_at_the_start() -> None:
    few = {**SETTINGS, "operations": ["Rotate", "Invert"], "levels": [0.2, 0.4]}
    operations = Ddas.of({**few, "equal": "operations"}).uniform
    assert isinstance(operations, Candidates)
    assert operations.probabilities.tolist() == pytest.approx([0.25, 0.25, 0.5])
    assert operations.augment == SETTINGS["augment"]
    assert operations.marginals() == pytest.approx({"Rotate": 0.5, "Invert": 0.5})
    candidates = Ddas.of({**few, "equal": "candidates"}).uniform
    assert candidates.probabilities.tolist() == pytest.approx([1 / 3] * 3)


def test_cost_is_arithmetic_in_plain_epochs(setup: Setup) -> None:
    assert build(setup).step()["epoch_equivalents"] == pytest.approx(7 / 3, rel=0.03)
    # three rows per image: 3·3 passes of train gradients, 3 of validation, 3·1 of differences
    rows = build(setup, sampling="batch", candidates=2).step()["epoch_equivalents"]
    assert rows == pytest.approx(15 / 3, rel=0.03)
    warm = build(setup, sampling="batch", warmup=0.5)
    assert warm.step()["epoch_equivalents"] == 1


def test_a_batch_smaller_than_one_is_searched(setup: Setup) -> None:
    big = {**SGD, "batch_size": 500}
    for sampling in ("image", "batch"):
        assert build(setup, big, sampling=sampling).step()["train_loss"] > 0


def test_a_batch_of_one_image_is_searched(setup: Setup) -> None:
    one = {**SGD, "batch_size": 1, "epochs": 1}
    for sampling in ("image", "batch"):
        search = build(setup, one, sampling=sampling, operations=["Invert", "Rotate"])
        assert 0 < search.step()["augment"] < 1


def test_the_papers_configuration_takes_a_step(setup: Setup) -> None:
    values = compose(["method=ddas_paper"]).values
    assert values["model"]["name"] == "wrn40x2"
    method = values["method"]
    search = Ddas.of(method).training(setup, {**values["search"], "epochs": 1})
    assert isinstance(search, DdasTraining)
    assert len(search.a) == 12 * 4 + 8
    assert search.step()["train_loss"] > 0
    assert float(search.current().probabilities.max()) < 1.1 / len(search.a)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": []}, "method.levels"),
        ({"levels": [0.3, 2.5]}, "method.levels"),
        ({"levels": [0.3, 0.3]}, "method.levels"),
        ({"levels": ["a"]}, "method.levels"),
        ({"levels": 0.3}, "method.levels=0.3: expected a list"),
        ({"operations": "Rotate"}, "method.operations='Rotate': expected a list"),
        ({"operations": ["Rotate", "Sheer"]}, "unknown operation 'Sheer'"),
        ({"sampling": "images"}, "did you mean 'image'"),
        ({"equal": "operation"}, "did you mean 'operations'"),
        ({"candidates": 0}, "method.candidates"),
        ({"candidates": 1.5}, "method.candidates"),
        ({"exploration": 1.1}, "method.exploration"),
        ({"augment": 1.0}, "method.augment"),
        ({"augment_lr": -1}, "method.augment_lr"),
        ({"exploraton": 1}, "did you mean 'exploration'"),
    ],
)
def test_wrong_settings_are_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RaysearchError, match=message) as error:
        Ddas.of({**SETTINGS, **change})
    assert "\n" not in str(error.value)


def test_a_missing_setting_is_named() -> None:
    few = {key: value for key, value in SETTINGS.items() if key != "levels"}
    with pytest.raises(RaysearchError, match=r"method\.levels is missing"):
        Ddas.of(few)
