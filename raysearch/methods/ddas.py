"""DDAS: Direct Differentiable Augmentation Search (Liu et al., ICCV 2021).

The policy decides at two levels: with probability t = σ(τ₀) an image is augmented at all; then by
two candidates drawn independently from p = softmax(a), one after the other. A candidate is an
operation at a magnitude. An arm is what may happen to an image: nothing, or a pair k of candidates
with p_k = p_k1 p_k2. The training loss expected over arms is linear in their probabilities,

    L_train(w; t, a) = (1 − t) ℓ(x) + t Σ_k p_k ℓ(T_k x),

so the derivatives after one step w' = w − ζ ∇_w L_train, with v = ∇_w L_val(w'), are exact:

    ∂L_val/∂p_k = −ζ t ⟨v, ∇_w ℓ(T_k x)⟩
    ∂L_val/∂t   = −ζ (Σ_k p_k ⟨v, ∇_w ℓ(T_k x)⟩ − ⟨v, ∇_w ℓ(x)⟩).

A step sees a sample: rows (image, arm), each with a weight ω(t, a) that estimates L_train as
Σ_rows ω ℓ / B. Its derivative is −(ζ/B) Σ_rows r ∂ω, with one reward r = ⟨v, ∇_w ℓ⟩ per row, all of
them from one pass. How rows are drawn (`sampling`):

- `image`: every image draws an arm of its own from a proposal, the policy mixed with the uniform
  one at both levels; ω is the arm's probability under the policy over that under the proposal.
- `batch`, as in the paper: S pairs are drawn and every image is used un-augmented and under each
  of them, with ω = 1 − t and t p_k / Σ_S p_k. As in the released code, what moves the policy is
  each pair's reward minus the un-augmented one, divided by the L1 norm of these differences.

The factor ζ, and with `image` the running standard deviation of rewards, are left out of what
Adam gets. One thing is not in the paper: `prior_strength` T adds T·KL(policy ‖ start), over arms,
to what is minimised; see `dada.py`.

The policy is a schedule: that of each search epoch's end, replayed over the matching part of a
later training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from raysearch import ops
from raysearch.hypergrad import Network, OneStep
from raysearch.methods._rewards import (
    RewardMethod,
    RewardScale,
    next_rewards,
    one_step_cost,
    warm_up,
    warmup_epochs,
)
from raysearch.methods._settings import each_once
from raysearch.methods._single_pass import SearchTraining, search_loop
from raysearch.policy import Candidates, Schedule
from raysearch.settings import Between, Count, NotNegative, Probability
from raysearch.training import Setup

PAIR = 2  # candidates that an augmented image goes through


Level = Annotated[float, Field(ge=0, le=2)]


@dataclass(frozen=True)
class Ddas(RewardMethod):
    """The method; `lr` is that of the candidates' logits a.

    Attributes:
        levels: magnitudes, in [0, 2] of AutoAugment's ranges, at which operations that have a
            magnitude are candidates; the others are one candidate each.
        candidates: S ≥ 1, pairs that a step tries where sampling is `batch`.
        exploration: share in [0, 1] of the uniform policy in what is drawn from, at both levels.
        augment: starting value of t, in (0, 1).
        augment_lr: Adam's learning rate for τ₀; 0 keeps t.
        equal: which are equally likely at the start, where exploration and prior stay too:
            `candidates`, or `operations`, whose levels share what each gets.
    """

    title: ClassVar[str] = "DDAS"
    levels: Annotated[tuple[Level, ...], each_once(1)]
    candidates: Count
    exploration: Probability
    augment: Between
    augment_lr: NotNegative
    equal: Literal["operations", "candidates"]

    @property
    def uniform(self) -> Candidates:
        """The policy with which a search of these settings starts."""
        found = [
            (name, level, 1 / len(levels) if self.equal == "operations" else 1.0)
            for name in self.operations
            for levels in [self.levels if name in ops.AUTOAUGMENT_RANGES else (0.0,)]
            for level in levels
        ]
        names, levels, p = zip(*found, strict=True)
        return Candidates(names, torch.tensor(levels), torch.tensor(p), self.augment, PAIR)

    def training(self, setup: Setup, search: Mapping[str, Any]) -> DdasTraining:
        """See `SinglePass.training`."""
        return DdasTraining(setup, search, self)

    def step_equivalents(self, setup: Setup, epochs: int) -> float:
        """Rewards of all rows in every step after the warm-up."""
        rows = 1 if self.sampling == "image" else 1 + self.candidates
        warm = warmup_epochs(self, epochs) / epochs
        return warm + (1 - warm) * one_step_cost(self, setup, rows)[0]


@dataclass(frozen=True)
class Arms:
    """Arms drawn by one step, on the CPU.

    Attributes:
        augmented: whether the arm is a pair, bool [A].
        pair: indices of candidates, int64 [A, 2]; without meaning where not augmented.
        log_q: logarithm of the probability with which each arm was drawn, [A]; None where the
            first is un-augmented and the others stand for all pairs together.
    """

    augmented: Tensor
    pair: Tensor
    log_q: Tensor | None = None

    def __len__(self) -> int:
        return len(self.augmented)


def log_probability(tau: Tensor, log_p: Tensor, arms: Arms) -> Tensor:
    """Logarithm of each arm's probability, [A], from the logit of t and log p [N]."""
    pairs = F.logsigmoid(tau) + log_p[arms.pair].sum(1)
    return torch.where(arms.augmented, pairs, F.logsigmoid(-tau))


def weights(tau: Tensor, a: Tensor, arms: Arms) -> Tensor:
    """ω: how much the loss under each arm counts, [A]; differentiable in tau and a [N]."""
    log_p = a.log_softmax(0)
    if arms.log_q is not None:
        return (log_probability(tau, log_p, arms) - arms.log_q).exp()
    shares = log_p[arms.pair[1:]].sum(1).softmax(0)
    return torch.cat([torch.sigmoid(-tau).reshape(1), torch.sigmoid(tau) * shares])


def divergence(tau: Tensor, a: Tensor, start: float, log_start: Tensor) -> Tensor:
    """KL of the policy from the one with t = start and log p = log_start, over arms; a scalar."""
    t, log_p = torch.sigmoid(tau), a.log_softmax(0)
    which = (log_p.exp() * (log_p - log_start)).sum()
    on = t * (F.logsigmoid(tau) - math.log(start) + PAIR * which)
    return on + (1 - t) * (F.logsigmoid(-tau) - math.log1p(-start))


class DdasTraining(SearchTraining):
    """The search; see the module's text and `SearchTraining`."""

    def __init__(self, setup: Setup, search: Mapping[str, Any], settings: Ddas) -> None:
        self.settings = settings
        self.setup = setup
        self.loop = search_loop(setup, search)
        self.network = Network(self.loop.model, setup.task)
        self._warmup = warmup_epochs(settings, self.epochs)
        self.start = settings.uniform
        self._log_start = self.start.probabilities.float().log()
        self.tau = torch.tensor(settings.augment).logit()
        self.a = self._log_start.clone()
        self._past: list[tuple[float, Tensor]] = []  # t and p of every epoch
        self._scale = RewardScale()
        groups: list[dict[str, Any]] = [
            {"params": [self.a]},
            {"params": [self.tau], "lr": settings.augment_lr},
        ]
        self._adam = torch.optim.Adam(groups, lr=settings.lr, betas=settings.betas)

    def step(self) -> dict[str, float]:
        """One epoch; see `SearchTraining.step`."""
        loop, setup = self.loop, self.setup
        with loop.one_epoch() as batches:
            for images, targets, _ in batches:
                if loop.epoch < self._warmup:
                    warm_up(loop, self.current(), images, targets)
                    continue
                images = setup.before(images, loop.generators.images)
                rows, arms = self.augment(images, loop.generators.policy)
                rows = setup.normalise(setup.after(rows, loop.generators.images))
                train = rows, torch.cat([targets] * (len(rows) // len(targets)))
                found = loop.cost.counted("search", self.search_step, train, arms)
                loop.update(found.gradient, found.train_loss)
        self._past.append((float(self.tau.sigmoid()), self.a.softmax(0)))
        metrics = {**loop.finish_epoch(), "epoch_equivalents": self.epoch_equivalents()}
        return metrics | self._policy_metrics()

    def augment(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Arms]:
        """An arm for each image, or all images un-augmented and under each of S pairs.

        Args:
            images: uint8 [B, C, H, W].
            generator: of the draws, on the CPU.

        Returns:
            Rows, [B, C, H, W] or [(1 + S)·B, C, H, W]; the arms, one for each row or for each B.
        """
        n = len(images)
        if self.settings.sampling == "image":
            rows = arms = self._propose(n, generator)
        else:
            arms = self._propose(1 + self.settings.candidates, generator)
            arms = Arms(torch.arange(len(arms)) > 0, arms.pair)
            rows = Arms(arms.augmented.repeat_interleave(n), arms.pair.repeat_interleave(n, 0))
            images = images.repeat(len(arms), 1, 1, 1)
        draws = self.start.draws_for(rows.pair, generator)
        draws = replace(draws, applied=rows.augmented[:, None].expand(-1, PAIR))
        return draws.apply(images), arms

    def _propose(self, n: int, generator: torch.Generator) -> Arms:
        """Draw n arms from the policy mixed, at both levels, with the uniform one."""
        share = self.settings.exploration
        t = (1 - share) * torch.sigmoid(self.tau) + share / 2
        p = (1 - share) * self.a.softmax(0) + share * self._log_start.exp()
        augmented = torch.rand(n, generator=generator) < t
        pair = torch.multinomial(p, n * PAIR, replacement=True, generator=generator)
        arms = Arms(augmented, pair.reshape(n, PAIR))
        return replace(arms, log_q=log_probability(t.logit(), p.log(), arms))

    def search_step(self, train: tuple[Tensor, Tensor], draw: Arms) -> OneStep:
        """One step w', the rows' rewards, and one Adam step on τ₀ and a.

        Args:
            train: augmented, normalised rows and their targets.
            draw: the rows' arms.
        """
        per_arm = len(train[0]) // len(draw)  # rows: the whole batch, or one image
        images = per_arm if draw.log_q is None else len(draw)
        omega = weights(self.tau, self.a, draw).repeat_interleave(per_arm) / images
        result = next_rewards(self.loop, self.network, train, self.settings, weights=omega)
        self._move(draw, self._costs(draw, result.rewards))
        return result

    def _costs(self, draw: Arms, rewards: Tensor) -> Tensor:
        """What each arm's weight costs, [A], from the rewards of all rows.

        A constant may be taken off: the weights' mean over draws (`image`) or their sum (`batch`)
        does not depend on t and a.
        """
        if draw.log_q is not None:
            return self._scale.per_image(rewards) / len(draw)
        gain = rewards.reshape(len(draw), -1).mean(1)
        gain = gain - gain[0]
        return -gain / gain.abs().sum().clamp_min(1e-12)

    def _move(self, draw: Arms, cost: Tensor) -> None:
        """An Adam step down Σ cost ω + T·KL."""
        tau, a = self.tau.clone().requires_grad_(), self.a.clone().requires_grad_()
        prior = divergence(tau, a, self.settings.augment, self._log_start)
        total = (cost * weights(tau, a, draw)).sum() + self.settings.prior_strength * prior
        self.tau.grad, self.a.grad = torch.autograd.grad(total, (tau, a))
        self._adam.step()

    def current(self) -> Candidates:
        """The policy as it stands now."""
        return self._policy(float(self.tau.sigmoid()), self.a.softmax(0))

    def policy(self) -> Schedule:
        """The policies of the epochs so far; before the first, the one at the start."""
        return Schedule([self._policy(t, p) for t, p in self._past] or [self.start])

    def _policy(self, t: float, p: Tensor) -> Candidates:
        return Candidates(self.start.operations, self.start.magnitudes, p, t, PAIR)

    def _policy_metrics(self) -> dict[str, float]:
        """How far t and the distribution over candidates have moved; each operation's share."""
        policy, p = self.current(), self.a.double().softmax(0)
        return {
            "entropy": float(torch.special.entr(p).sum()),
            "kl_uniform": float((p * (p.log() - self._log_start)).nansum()),
            "augment": policy.augment,
            "operations_per_image": policy.operations_per_image(),
            **{f"share/{name}": share for name, share in policy.marginals().items()},
        }

    def parts(self) -> dict[str, Any]:
        """τ₀ and a, Adam's moments and the rewards' scale."""
        return {"tau": self.tau, "a": self.a, "adam": self._adam, "scale": self._scale}

    def state_dict(self) -> dict[str, Any]:
        """Past policies besides."""
        return {**super().state_dict(), "past": list(self._past)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        super().load_state_dict(state)
        self._past = list(state["past"])


METHOD = Ddas
