"""Gradients of an expectation over discrete choices: REINFORCE, RELAX and Gumbel-Softmax.

The choice is DADA's (Li et al. 2020, section 3.2): c ~ Categorical(softmax α) over N
sub-policies, then K apply bits b_k ~ Bernoulli(σ(β_ck)) of the sub-policy that was chosen. All
estimators return the gradient of E[f(c, b)] with respect to α and to the logits β, from n
independent draws and their costs f. β of sub-policies that were not chosen gets no credit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TINY = 1e-6  # uniform noise stays this far from 0 and 1


@dataclass(frozen=True)
class Choices:
    """n draws of (c, b) and the noise behind them and behind RELAX's conditional samples.

    Attributes:
        chosen: c, int64 [n].
        bits: b, bool [n, K].
        u, v: uniform noise for z_α and z̃_α, [n, N].
        u_bits, v_bits: uniform noise for z_b and z̃_b, [n, K].
    """

    chosen: Tensor
    bits: Tensor
    u: Tensor
    v: Tensor
    u_bits: Tensor
    v_bits: Tensor


class Gradient(NamedTuple):
    """The gradient for α [N] and β [N, K], and the estimate's variance term where one is kept.

    `spread` is the mean squared norm of the per-draw gradients, a scalar that RELAX's control
    variate is trained to lower; None for estimators without one.
    """

    alpha: Tensor
    beta: Tensor
    spread: Tensor | None = None


class ControlVariate(nn.Module):
    """c_ψ: a network of one hidden layer of 100 tanh units over the relaxed choice.

    It sees softmax(z/τ) over the N sub-policies together with σ(z_b/τ) of the K bits. Where c is
    given, softmax is the one-hot c; where the bits are averaged over, they are 1/2.

    Args:
        choices: N.
        bits: K.
        temperature: τ > 0.
    """

    def __init__(self, choices: int, bits: int, temperature: float = 0.5) -> None:
        super().__init__()
        self.choices, self.bits, self.temperature = choices, bits, temperature
        self.network = nn.Sequential(nn.Linear(choices + bits, 100), nn.Tanh(), nn.Linear(100, 1))

    def forward(self, categorical: Tensor, bits: Tensor) -> Tensor:
        """Relaxed choices [n, N] and bits [n, K], both in [0, 1], to [n]."""
        outputs: Tensor = self.network(torch.cat([categorical, bits], dim=1))
        return outputs.squeeze(1)


def choose(
    alpha: Tensor, beta: Tensor, n: int, generator: torch.Generator | None = None
) -> Choices:
    """Draw n choices by the Gumbel-max trick, keeping the noise for the estimators.

    Args:
        alpha: logits of the sub-policies, [N].
        beta: logits of the apply probabilities, [N, K].
        n: number of draws.
        generator: source of randomness on alpha's device.
    """
    count, bits = beta.shape
    noise = torch.rand(n, 2 * (count + bits), device=alpha.device, generator=generator)
    noise = noise.to(alpha.dtype).clamp_(TINY, 1 - TINY)
    u, v, u_bits, v_bits = torch.split(noise, [count, count, bits, bits], dim=1)
    chosen = (alpha.detach() + gumbel(u)).argmax(1)
    applied = beta.detach()[chosen] + torch.logit(u_bits) > 0
    return Choices(chosen, applied, u, v, u_bits, v_bits)


def gumbel(u: Tensor) -> Tensor:
    """Gumbel noise from uniform noise."""
    return -torch.log(-torch.log(u))


def conditional_categorical(log_p: Tensor, chosen: Tensor, v: Tensor) -> Tensor:
    """z̃ ~ p(z | argmax z = chosen), differentiable in log p (Grathwohl et al. 2018, appendix B).

    Args:
        log_p: log-probabilities, [n, N].
        chosen: int64 [n].
        v: uniform noise, [n, N].
    """
    top = -torch.log(v.gather(1, chosen[:, None]))
    others = -torch.logaddexp(torch.log(-torch.log(v)) - log_p, torch.log(top))
    return others.scatter(1, chosen[:, None], -torch.log(top))


def conditional_bernoulli(logits: Tensor, bits: Tensor, v: Tensor) -> Tensor:
    """z̃ ~ p(z | 1[z > 0] = bits), differentiable in the logits, same shape as they are."""
    p = torch.sigmoid(logits)
    conditioned = torch.where(bits, v * p + (1 - p), v * (1 - p)).clamp(TINY, 1 - TINY)
    return logits + torch.logit(conditioned)


def _score(alpha: Tensor, choices: Choices) -> Tensor:
    """∇_α log p(c) for each draw, [n, N]."""
    return F.one_hot(choices.chosen, len(alpha)).to(alpha.dtype) - alpha.softmax(0)


def _collect(
    per_draw_alpha: Tensor, per_draw_beta: Tensor, choices: Choices, beta: Tensor
) -> tuple[Tensor, Tensor]:
    """Means over the draws; the bits' gradients go to the sub-policy that was chosen."""
    n = len(choices.chosen)
    grad_beta = torch.zeros_like(beta).index_add_(0, choices.chosen, per_draw_beta.detach() / n)
    return per_draw_alpha.detach().mean(0), grad_beta


def reinforce(alpha: Tensor, beta: Tensor, choices: Choices, cost: Tensor) -> Gradient:
    """REINFORCE (Williams 1992): f ∇ log p, unbiased.

    Args:
        alpha, beta: logits, [N] and [N, K].
        choices: n draws.
        cost: f of each draw, [n]; subtracting a constant baseline beforehand keeps it unbiased.
    """
    alpha, beta = alpha.detach(), beta.detach()
    per_alpha = cost[:, None] * _score(alpha, choices)
    score_bits = choices.bits.to(beta.dtype) - torch.sigmoid(beta[choices.chosen])
    return Gradient(*_collect(per_alpha, cost[:, None] * score_bits, choices, beta))


def gumbel_softmax(
    alpha: Tensor, beta: Tensor, choices: Choices, cost: Tensor, temperature: float = 0.5
) -> Gradient:
    """Straight-through Gumbel-Softmax (Jang et al. 2017): hard choices, relaxed derivative. Biased.

    What was drawn weighs its image's cost by its own relaxed indicator: ∇θ = f ∇θ s_c(z/τ), and
    likewise for each bit, with s the softmax or σ.

    Args:
        alpha, beta, choices, cost: as in `reinforce`.
        temperature: τ > 0.
    """
    noise = gumbel(choices.u)
    soft = torch.softmax((alpha.detach() + noise) / temperature, dim=1)
    at_chosen = soft.gather(1, choices.chosen[:, None])
    hot = F.one_hot(choices.chosen, len(alpha)).to(soft.dtype)
    per_alpha = cost[:, None] * at_chosen * (hot - soft) / temperature

    z = beta.detach()[choices.chosen] + torch.logit(choices.u_bits)
    slope = torch.sigmoid(z / temperature) * torch.sigmoid(-z / temperature) / temperature
    toward = choices.bits.to(beta.dtype) * 2 - 1
    per_bits = cost[:, None] * toward * slope
    return Gradient(*_collect(per_alpha, per_bits, choices, beta.detach()))


def relax(
    alpha: Tensor, beta: Tensor, choices: Choices, cost: Tensor, control: ControlVariate
) -> Gradient:
    """RELAX (Grathwohl et al. 2018, equation 8): unbiased, with a learned control variate.

        ∇θ = [f − c_ψ(z̃)] ∇θ log p(q) + ∇θ c_ψ(z) − ∇θ c_ψ(z̃)

    once for c (bits averaged over, so c_ψ sees 1/2 for them) and once for the bits given c. Both
    parts are smooth in z, which the identity needs; one network serves both.

    Args:
        alpha, beta, choices, cost: as in `reinforce`.
        control: c_ψ. Backpropagate the result's `spread` to train ψ.
    """
    n, tau = len(choices.chosen), control.temperature
    logits = alpha.detach().expand(n, -1).clone().requires_grad_()
    bit_logits = beta.detach()[choices.chosen].requires_grad_()
    log_p = logits.log_softmax(1)
    z = log_p + gumbel(choices.u)
    z_tilde = conditional_categorical(log_p, choices.chosen, choices.v)
    z_bits = bit_logits + torch.logit(choices.u_bits)
    z_bits_tilde = conditional_bernoulli(bit_logits, choices.bits, choices.v_bits)

    half = torch.full_like(z_bits, 0.5)
    hot = F.one_hot(choices.chosen, control.choices).to(z.dtype)
    values = control(
        torch.cat([torch.softmax(z / tau, 1), torch.softmax(z_tilde / tau, 1), hot, hot]),
        torch.cat([half, half, torch.sigmoid(z_bits / tau), torch.sigmoid(z_bits_tilde / tau)]),
    )
    c_z, c_tilde, c_bits, c_bits_tilde = torch.split(values, n)
    (difference_alpha, difference_bits) = torch.autograd.grad(
        (c_z - c_tilde + c_bits - c_bits_tilde).sum(), [logits, bit_logits], create_graph=True
    )
    score_bits = choices.bits.to(beta.dtype) - torch.sigmoid(bit_logits.detach())
    per_alpha = (cost - c_tilde)[:, None] * _score(alpha.detach(), choices) + difference_alpha
    per_bits = (cost - c_bits_tilde)[:, None] * score_bits + difference_bits
    spread = (per_alpha.square().sum(1) + per_bits.square().sum(1)).mean()
    return Gradient(*_collect(per_alpha, per_bits, choices, beta.detach()), spread)
