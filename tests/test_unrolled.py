"""Derivatives through steps of SGD: equal to those of automatic differentiation."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from raysearch.hypergrad import (
    Network,
    SecondOrder,
    SGDRule,
    image_gradients,
    train_step,
    validate,
)

RULES = {
    "plain": SGDRule(),
    "momentum": SGDRule(momentum=0.9, weight_decay=0.05),
    "nesterov": SGDRule(momentum=0.8, nesterov=True, weight_decay=0.01),
}
LR = (0.3, 0.2, 0.1)


class Block(nn.Module):
    """Strided and grouped convolutions, batch normalisation, a residual and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2))
        self.second = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False)
        self.down = nn.Conv2d(4, 6, 3, stride=2, padding="valid", dilation=1)
        self.plain = nn.BatchNorm2d(6, affine=False)
        self.flat = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = F.silu(self.norms[0](self.first(images)))
        x = x + F.relu(self.norms[1](self.second(x)))
        x = F.silu(self.plain(self.down(x))).mean((2, 3))
        return self.head(self.flat(x))  # type: ignore[no-any-return]


def model() -> nn.Module:
    torch.manual_seed(0)
    return Block().double().train()


def batch(seed: int, n: int = 10) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 3, 8, 8, dtype=torch.float64, generator=generator)
    return images, torch.arange(n) % 3


def start(network: Network, seed: int = 7) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of the network and a velocity that earlier steps may have left."""
    generator = torch.Generator().manual_seed(seed)
    own = {name: p.detach().clone() for name, p in network.parameters().items()}
    return own, {
        name: 0.1 * torch.randn(p.shape, dtype=p.dtype, generator=generator)
        for name, p in own.items()
    }


def unrolled(
    network: Network, images: list[Tensor], rule: SGDRule, velocity: Mapping[str, Tensor]
) -> Tensor:
    """L_val after the steps, as one differentiable expression of PyTorch's own operations."""
    w = {name: p.detach().clone().requires_grad_() for name, p in network.parameters().items()}
    m = dict(velocity)
    for k, x in enumerate(images):
        logits = functional_call(network.model, w, (x,))
        loss = F.cross_entropy(logits, batch(k)[1])
        found = torch.autograd.grad(loss, list(w.values()), create_graph=True)
        w, m = rule.step(w, m, dict(zip(w, found, strict=True)), LR[k])
    validation = batch(100)
    return F.cross_entropy(functional_call(network.model, w, validation[:1]), validation[1])


def ours(
    network: Network, images: list[Tensor], rule: SGDRule, velocity: Mapping[str, Tensor]
) -> list[Tensor]:
    w: Mapping[str, Tensor] = network.parameters()
    m: Mapping[str, Tensor] = velocity
    steps = []
    for k, x in enumerate(images):
        steps.append(train_step(network, w, x, batch(k)[1], LR[k]))
        gradient = {name: g.detach() for name, g in steps[-1].gradient.items()}
        w, m = rule.step({n: p.detach() for n, p in w.items()}, m, gradient, LR[k])
    v, _, _ = validate(network, dict(w), batch(100))
    return image_gradients(steps, v, rule)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_equal_to_differentiation_through_the_unrolled_steps(count: int, rule: str) -> None:
    network = Network(model())
    _, velocity = start(network)
    images = [batch(k)[0].requires_grad_() for k in range(count)]
    truth = torch.autograd.grad(unrolled(network, images, RULES[rule], velocity), images)
    found = ours(network, images, RULES[rule], velocity)
    for mine, theirs in zip(found, truth, strict=True):
        assert float((mine - theirs).norm() / theirs.norm()) < 1e-9


@pytest.mark.parametrize("rule", RULES)
def test_the_rule_is_that_of_torch(rule: str) -> None:
    settings = RULES[rule]
    network = Network(model())
    optimizer = torch.optim.SGD(
        network.model.parameters(),
        lr=0.1,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
    )
    w, m = {n: p.detach().clone() for n, p in network.parameters().items()}, {}
    for k in range(3):
        loss = network.own_losses(*batch(k)).mean()
        optimizer.zero_grad()
        loss.backward()
        gradient = {
            n: p.grad.clone() for n, p in network.parameters().items() if p.grad is not None
        }
        w, m = settings.step(w, m, gradient, 0.1)
        optimizer.step()
        for name, parameter in network.parameters().items():
            torch.testing.assert_close(w[name], parameter, rtol=1e-12, atol=1e-14)


def test_second_order_changes_no_value_and_no_derivative() -> None:
    """Value, gradient, and all second derivatives, for images and weights alike."""

    def everything(second: SecondOrder | None) -> list[Tensor]:
        network = Network(model())
        images, labels = batch(0)
        images.requires_grad_()
        w = list(network.parameters().values())
        if second is None:
            loss = network.own_losses(images, labels).mean()
        else:
            with second:
                loss = network.own_losses(images, labels).mean()
        inputs = [images, *w]
        first = torch.autograd.grad(loss, inputs, create_graph=True)
        generator = torch.Generator().manual_seed(1)
        along = [torch.randn(g.shape, dtype=g.dtype, generator=generator) for g in first]
        twice = torch.autograd.grad(first, inputs, along)
        buffers = [b for b in network.model.buffers() if b.is_floating_point()]
        return [loss.detach(), *(g.detach() for g in first), *twice, *buffers]

    for mine, theirs in zip(everything(SecondOrder()), everything(None), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)


def test_batch_normalisation_in_eval_mode_is_left_to_torch() -> None:
    second, norm = SecondOrder(), nn.BatchNorm2d(3).double().eval()
    images, _ = batch(3)
    with second:
        inside = norm(images)
    torch.testing.assert_close(inside, norm(images))


def test_gradients_only_for_what_is_wanted() -> None:
    second = SecondOrder()
    images, weight = batch(0)[0].requires_grad_(), torch.randn(2, 3, 3, 3, dtype=torch.float64)
    weight.requires_grad_()
    with second:
        result = F.conv2d(images, weight).square().sum()
    (first,) = torch.autograd.grad(result, weight, create_graph=True)
    ones = torch.ones_like(first)
    (both, of_weight) = torch.autograd.grad([first], [images, weight], [ones], retain_graph=True)
    (alone,) = second.gradients([first], [images], [ones], of_weights=False)
    torch.testing.assert_close(alone, both)
    assert of_weight.shape == weight.shape
