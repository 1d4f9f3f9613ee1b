"""Estimators against exact enumeration; rewards against inner products image by image."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from raysearch.hypergrad import (
    Choices,
    ControlVariate,
    Gradient,
    Network,
    choose,
    gumbel_softmax,
    one_step_rewards,
    reinforce,
    relax,
)
from raysearch.tasks import Classification

COUNT, BITS = 4, 2
cross_entropy_per_image = Classification().losses
torch.set_num_threads(1)


@pytest.fixture
def space() -> tuple[Tensor, Tensor, Tensor]:
    """Logits, bit logits and a table of costs f[c, b1, b2], float64."""
    generator = torch.Generator().manual_seed(5)
    alpha = torch.randn(COUNT, generator=generator, dtype=torch.float64)
    beta = torch.randn(COUNT, BITS, generator=generator, dtype=torch.float64)
    cost = 2 + torch.randn(COUNT, 2, 2, generator=generator, dtype=torch.float64)
    return alpha, beta, cost


def exact(alpha: Tensor, beta: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """The true gradient, by summing over all (c, b1, b2)."""
    alpha, beta = alpha.clone().requires_grad_(), beta.clone().requires_grad_()
    p, q = alpha.softmax(0), beta.sigmoid()
    total = torch.zeros((), dtype=alpha.dtype)
    for c, b1, b2 in itertools.product(range(COUNT), (0, 1), (0, 1)):
        weight = (q[c, 0] if b1 else 1 - q[c, 0]) * (q[c, 1] if b2 else 1 - q[c, 1])
        total = total + p[c] * weight * table[c, b1, b2]
    return torch.autograd.grad(total, (alpha, beta))


def costs(table: Tensor, choices: Choices) -> Tensor:
    return table[choices.chosen, choices.bits[:, 0].long(), choices.bits[:, 1].long()]


def flat(gradient: Gradient | tuple[Tensor, Tensor]) -> Tensor:
    return torch.cat([gradient[0].flatten(), gradient[1].flatten()])


def trained_control(space: tuple[Tensor, Tensor, Tensor], steps: int = 250) -> ControlVariate:
    alpha, beta, table = space
    with torch.random.fork_rng():
        torch.manual_seed(0)
        control = ControlVariate(COUNT, BITS).double()
    optimizer = torch.optim.Adam(control.parameters(), lr=0.02)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        choices = choose(alpha, beta, 64, generator)
        spread = relax(alpha, beta, choices, costs(table, choices), control).spread
        assert spread is not None
        optimizer.zero_grad()
        spread.backward()
        optimizer.step()
    return control


def many(space: tuple[Tensor, Tensor, Tensor], estimator, repeats: int = 300, n: int = 64):
    """Gradients of many independent estimates from n draws each, [repeats, parameters]."""
    alpha, beta, table = space
    generator = torch.Generator().manual_seed(2)
    rows = []
    for _ in range(repeats):
        choices = choose(alpha, beta, n, generator)
        rows.append(flat(estimator(alpha, beta, choices, costs(table, choices))))
    return torch.stack(rows)


def z_scores(estimates: Tensor, truth: Tensor) -> Tensor:
    error = estimates.std(0) / len(estimates) ** 0.5
    return (estimates.mean(0) - truth) / error.clamp_min(1e-12)


def test_choices_follow_the_distribution(space) -> None:
    alpha, beta, _ = space
    choices = choose(alpha, beta, 200_000, torch.Generator().manual_seed(0))
    shares = torch.bincount(choices.chosen, minlength=COUNT) / len(choices.chosen)
    torch.testing.assert_close(shares.double(), alpha.softmax(0), atol=5e-3, rtol=0)
    for c in range(COUNT):
        applied = choices.bits[choices.chosen == c].double().mean(0)
        torch.testing.assert_close(applied, beta[c].sigmoid(), atol=1.5e-2, rtol=0)


def test_reinforce_is_unbiased(space) -> None:
    scores = z_scores(many(space, reinforce), flat(exact(*space)))
    assert scores.abs().max() < 4.0, scores


@pytest.mark.parametrize("trained", [False, True])
def test_relax_is_unbiased(space, trained: bool) -> None:
    control = trained_control(space, 250 if trained else 0)
    estimates = many(space, lambda *args: relax(*args, control))
    scores = z_scores(estimates, flat(exact(*space)))
    assert scores.abs().max() < 4.0, scores


def test_relax_has_less_variance_than_reinforce(space) -> None:
    control = trained_control(space)
    ours = many(space, lambda *args: relax(*args, control)).var(0).sum()
    theirs = many(space, reinforce).var(0).sum()
    assert ours < 0.5 * theirs, (ours, theirs)


def test_gumbel_softmax_is_biased(space) -> None:
    scores = z_scores(many(space, gumbel_softmax), flat(exact(*space)))
    assert scores.abs().max() > 20, scores


def test_only_the_chosen_sub_policy_is_credited(space) -> None:
    alpha, beta, table = space
    control = trained_control(space, 0)
    choices = choose(alpha, beta, 1, torch.Generator().manual_seed(3))
    others = torch.arange(COUNT) != choices.chosen
    for estimator in (reinforce, gumbel_softmax, lambda *a: relax(*a, control)):
        gradient = estimator(alpha, beta, choices, costs(table, choices))
        assert gradient.beta[others].abs().max() == 0
        assert gradient.beta[choices.chosen].abs().min() > 0


class TinyNetwork(nn.Sequential):
    def __init__(self, normalise: bool) -> None:
        norm = [nn.BatchNorm2d(5)] if normalise else []
        super().__init__(nn.Conv2d(2, 5, 3), *norm, nn.Tanh(), nn.Flatten(), nn.Linear(5 * 16, 3))


@pytest.fixture(params=[False, True], ids=["plain", "batch-norm"])
def step(request):
    torch.manual_seed(0)
    model = TinyNetwork(request.param).double().train()
    images, labels = torch.randn(7, 2, 6, 6).double(), torch.randint(3, (7,))
    val = torch.randn(9, 2, 6, 6).double(), torch.randint(3, (9,))
    return model, (images, labels), val


def image_by_image(model, train, val, lr: float) -> tuple[Tensor, Tensor]:
    """⟨v, ∇ℓ_i⟩ with a backward per image, and Σ_pixels of its derivative in the image."""
    model = copy.deepcopy(model)
    images = train[0].clone().requires_grad_()
    parameters = list(model.parameters())
    losses = cross_entropy_per_image(model(images), train[1])
    mean = torch.autograd.grad(losses.mean(), parameters, retain_graph=True)
    ahead = copy.deepcopy(model)
    with torch.no_grad():
        for p, g in zip(ahead.parameters(), mean, strict=True):
            p -= lr * g
    val_loss = cross_entropy_per_image(ahead(val[0]), val[1]).mean()
    v = torch.autograd.grad(val_loss, list(ahead.parameters()))
    rewards = torch.stack(
        [
            sum(
                (a * b).sum()
                for a, b in zip(
                    v,
                    torch.autograd.grad(loss, parameters, create_graph=True, retain_graph=True),
                    strict=True,
                )
            )
            for loss in losses
        ]
    )
    (pixels,) = torch.autograd.grad(rewards.sum(), images)
    return rewards.detach(), pixels.flatten(1).sum(1)


@pytest.mark.parametrize(("difference", "tolerance"), [("forward", 1e-4), ("central", 1e-7)])
def test_rewards_equal_inner_products_image_by_image(step, difference, tolerance) -> None:
    model, train, val = step
    truth, pixels = image_by_image(model, train, val, lr=0.1)
    result = one_step_rewards(Network(model), train, val, 0.1, difference=difference, epsilon=1e-5)
    scale = truth.abs().max()
    torch.testing.assert_close(result.rewards / scale, truth / scale, atol=tolerance, rtol=0)
    scale = pixels.abs().max()
    assert result.pixel_rewards is not None
    torch.testing.assert_close(result.pixel_rewards / scale, pixels / scale, atol=tolerance, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_forward_difference_on_a_gpu_is_one(step) -> None:
    """Where the losses at w are rounded to bfloat16, they are computed once more."""
    model, train, val = step
    on_gpu = copy.deepcopy(model).float().cuda()
    train, val = ((images.float().cuda(), labels.cuda()) for images, labels in (train, val))
    found = {
        difference: one_step_rewards(
            Network(on_gpu), train, val, 0.1, difference=difference, epsilon=0.5
        ).rewards
        for difference in ("auto", "central", "forward")
    }
    torch.testing.assert_close(found["auto"], found["central"])
    assert not torch.allclose(found["forward"], found["central"], rtol=1e-3)


def test_rewards_at_the_default_epsilon_are_close_enough_to_rank(step) -> None:
    model, train, val = step
    truth, _ = image_by_image(model, train, val, lr=0.1)
    result = one_step_rewards(Network(model), train, val, 0.1)
    correlation = torch.corrcoef(torch.stack([result.rewards, truth]))[0, 1]
    assert correlation > 0.999


def test_the_train_gradient_is_the_plain_one_and_the_extra_passes_leave_no_trace(step) -> None:
    model, train, val = step
    plain = copy.deepcopy(model)
    cross_entropy_per_image(plain(train[0]), train[1]).mean().backward()
    result = one_step_rewards(Network(model), train, val, 0.1)
    for (name, parameter), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(result.gradient[name], other.grad)
        assert torch.equal(parameter, other)
    for buffer, other in zip(model.buffers(), plain.buffers(), strict=True):
        assert torch.equal(buffer, other)  # moved once, by the classifier's own pass


def test_rewards_compare_the_same_dropout_masks() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 40), nn.Dropout(0.3), nn.Linear(40, 3))
    model.double().train()
    train = torch.randn(12, 2, 6, 6).double(), torch.randint(3, (12,))
    val = torch.randn(9, 2, 6, 6).double(), torch.randint(3, (9,))

    def rewards(difference) -> Tensor:
        torch.manual_seed(7)
        return one_step_rewards(Network(model), train, val, 0.1, difference=difference).rewards

    assert torch.corrcoef(torch.stack([rewards("forward"), rewards("central")]))[0, 1] > 0.999
    torch.manual_seed(8)
    other = one_step_rewards(Network(model), train, val, 0.1).rewards
    assert not torch.allclose(other, rewards("forward"))  # the masks do change between steps


def test_relax_survives_a_policy_that_has_almost_decided() -> None:
    alpha = torch.tensor([0.0, -50.0, -95.0, 200.0])
    beta = torch.zeros(COUNT, BITS)
    choices = choose(alpha, beta, 64, torch.Generator().manual_seed(0))
    gradient = relax(alpha, beta, choices, torch.ones(64), ControlVariate(COUNT, BITS))
    assert flat(gradient).isfinite().all()
