"""DADA: Differentiable Automatic Data Augmentation (Li et al., ECCV 2020).

φ = (α, β, m): logits α of the 105 sub-policies (unordered pairs of 15 operations), apply
probabilities σ(β) and magnitudes m of each sub-policy's two operations. A step, with w the
classifier's weights and ζ its learning rate:

    c ~ Categorical(softmax α), b_k ~ Bernoulli(σ(β_ck)), x̂ = T_{c,b,m}(x)        (section 3.1)
    w' = w − ζ ∇_w L_train(w; x̂),  v = ∇_w L_val(w')                              (equation 7)
    ∂L_val(w')/∂φ from the rewards r_i = ⟨v, ∇_w ℓ_i(w)⟩ of the augmented images  (equation 8)

through RELAX or Gumbel-Softmax for α and β, and straight through for m. Drawing a choice per
image rather than per batch makes every image of a batch evidence of its own.

One thing is not in the paper: `prior_strength` T adds T·KL(policy ‖ prior), the prior being equal
weights and the starting apply probabilities, in units of
the rewards' standard deviation, to what is minimised. The one-step signal favours whatever leaves
images alone; the prior keeps what that signal does not argue against, and its optimum is a
policy proportional to exp(mean reward / T).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from raysearch import ops
from raysearch.hypergrad import (
    Choices,
    ControlVariate,
    Gradient,
    Network,
    OneStep,
    choose,
    gumbel_softmax,
    reinforce,
    relax,
)
from raysearch.methods._rewards import (
    RewardMethod,
    RewardScale,
    next_rewards,
    one_step_cost,
    warm_up,
    warmup_epochs,
)
from raysearch.methods._single_pass import SearchTraining, search_loop
from raysearch.policy import SubPolicies, random_draws
from raysearch.settings import Between, Count, NotNegative, Positive, Probability, WholeNumber
from raysearch.training import Setup, seeded


@dataclass(frozen=True)
class Dada(RewardMethod):
    """The method; `lr` is that of α, β and the control variate.

    Attributes:
        estimator: `relax`, `gumbel_softmax` or `reinforce`.
        magnitude_lr: Adam's learning rate for m; 0 keeps the starting magnitudes.
        magnitude_interval: steps from one update of m to the next, at least 1; the derivative
            for m costs a backward pass.
        temperature: τ of the relaxations, > 0.
        alpha: standard deviation of the starting logits α.
        probability: starting value of every σ(β), in (0, 1).
        magnitude: starting value of every m, in [0, 1].
        keep: sub-policies of largest α in the final policy; 0 keeps all.
    """

    title: ClassVar[str] = "DADA"
    estimator: Literal["relax", "gumbel_softmax", "reinforce"]
    magnitude_lr: NotNegative
    magnitude_interval: Count
    temperature: Positive
    alpha: NotNegative
    probability: Between
    magnitude: Probability
    keep: WholeNumber

    def training(self, setup: Setup, search: Mapping[str, Any]) -> DadaTraining:
        """See `SinglePass.training`."""
        return DadaTraining(setup, search, self)

    def step_equivalents(self, setup: Setup, epochs: int) -> float:
        """Rewards in every step after the warm-up, and those for pixels in some."""
        rewards, passes = one_step_cost(self, setup)
        if self.magnitude_lr > 0:
            rewards += passes / 3 / self.magnitude_interval
        warm = warmup_epochs(self, epochs) / epochs
        return warm + (1 - warm) * rewards


class DadaTraining(SearchTraining):
    """The search; see the module's text and `SearchTraining`."""

    def __init__(self, setup: Setup, search: Mapping[str, Any], settings: Dada) -> None:
        self.settings = settings
        self.setup = setup
        self.loop = search_loop(setup, search)
        self.network = Network(self.loop.model, setup.task)
        self._warmup = warmup_epochs(settings, self.epochs)
        self.pairs = list(itertools.combinations(settings.operations, 2))
        self._ids = torch.tensor([[ops.operation_id(n) for n in pair] for pair in self.pairs])
        shape = self._ids.shape
        with seeded(setup.seed, "policy"):
            self.alpha = settings.alpha * torch.randn(len(self.pairs))
            self.control = ControlVariate(len(self.pairs), 2, settings.temperature)
        self.beta = torch.full(shape, settings.probability).logit()
        self.magnitude = torch.full(shape, settings.magnitude)
        self._beta_start = self.beta.clone()
        self._scale = RewardScale()
        groups: list[dict[str, Any]] = [
            {"params": [self.alpha, self.beta]},
            {"params": [self.magnitude], "lr": settings.magnitude_lr},
            {"params": list(self.control.parameters())},
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
                images, choices = self.augment(images, loop.generators.policy)
                train = setup.normalise(setup.after(images, loop.generators.images)), targets
                found = loop.cost.counted(self.step_kind(), self.search_step, train, choices)
                loop.update(found.gradient, found.train_loss)
        metrics = {**loop.finish_epoch(), "epoch_equivalents": self.epoch_equivalents()}
        return metrics | self._policy_metrics()

    def augment(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Choices]:
        """T_{c,b,m} with a choice for each image, or one for all (section 3.1).

        Args:
            images: uint8 [B, C, H, W].
            generator: of the draws, on the CPU.
        """
        n = len(images)
        draws = random_draws(n, 2, generator)
        choices = choose(
            self.alpha, self.beta, n if self.settings.sampling == "image" else 1, generator
        )
        draws = replace(
            draws,
            sub_policy=choices.chosen.expand(n),
            operation=self._ids[choices.chosen].expand(n, -1),
            applied=choices.bits.expand(n, -1),
            magnitude=self.magnitude[choices.chosen].expand(n, -1),
        )
        return draws.apply(images), choices

    def step_kind(self) -> str:
        """A name for the next step's arithmetic: steps that update the magnitudes cost more."""
        loop = self.loop
        step = (loop.epoch - self._warmup) * loop.steps + loop.step  # of those that search
        due = step % self.settings.magnitude_interval == 0
        return "magnitudes" if self.settings.magnitude_lr > 0 and due else "rewards"

    def search_step(self, train: tuple[Tensor, Tensor], draw: Choices) -> OneStep:
        """Equations 7 and 8: rewards of the batch, then one Adam step on α, β, m and ψ.

        Args:
            train: augmented, normalised images [B, C, H, W] and their targets.
            draw: how they were augmented.
        """
        with_pixels = self.step_kind() == "magnitudes"
        result = next_rewards(
            self.loop, self.network, train, self.settings, with_pixels=with_pixels
        )
        per_image = len(draw.chosen) == len(result.rewards)
        cost = (self._scale.per_image if per_image else self._scale.of_batch)(result.rewards)
        gradient = self._estimate(draw, cost)
        prior_alpha, prior_beta = self._prior_gradient()
        self.alpha.grad = gradient.alpha + prior_alpha
        self.beta.grad = gradient.beta + prior_beta
        self.magnitude.grad = None
        if result.pixel_rewards is not None:
            self.magnitude.grad = self._magnitude_gradient(draw, result.pixel_rewards)
        if gradient.spread is not None:
            parameters = list(self.control.parameters())
            found = torch.autograd.grad(gradient.spread, parameters)
            for parameter, g in zip(parameters, found, strict=True):
                parameter.grad = g
        self._adam.step()
        self.magnitude.clamp_(0, 1)
        return result

    def _estimate(self, choices: Choices, cost: Tensor) -> Gradient:
        if self.settings.estimator == "relax":
            return relax(self.alpha, self.beta, choices, cost, self.control)
        if self.settings.estimator == "gumbel_softmax":
            temperature = self.settings.temperature
            return gumbel_softmax(self.alpha, self.beta, choices, cost, temperature)
        return reinforce(self.alpha, self.beta, choices, cost)

    def _prior_gradient(self) -> tuple[Tensor, Tensor]:
        """∇ of T·KL(policy ‖ prior), over sub-policies and their apply bits together."""
        alpha, beta = self.alpha.clone().requires_grad_(), self.beta.clone().requires_grad_()
        log_p, q = alpha.log_softmax(0), torch.sigmoid(beta)
        on = q * (F.logsigmoid(beta) - F.logsigmoid(self._beta_start))
        off = (1 - q) * (F.logsigmoid(-beta) - F.logsigmoid(-self._beta_start))
        divergence = (log_p.exp() * (log_p + (on + off).sum(1))).sum()
        total = self.settings.prior_strength * divergence
        grad_alpha, grad_beta = torch.autograd.grad(total, (alpha, beta))
        return grad_alpha, grad_beta

    def _magnitude_gradient(self, choices: Choices, pixel_rewards: Tensor) -> Tensor:
        """Straight through (section 3.3): ∂x̂/∂m = 1 for the operations that were applied."""
        per_bit = -pixel_rewards[:, None] * choices.bits / (len(pixel_rewards) * self._scale.scale)
        chosen = choices.chosen.expand(len(pixel_rewards))
        return torch.zeros_like(self.magnitude).index_add_(0, chosen, per_bit)

    def policy(self) -> SubPolicies:
        """Weights softmax(α); the `keep` heaviest where that is set."""
        policy = self.current()
        return policy.top(self.settings.keep) if self.settings.keep else policy

    def current(self) -> SubPolicies:
        """Every sub-policy with its weight softmax(α)."""
        weights = self.alpha.double().softmax(0)
        return SubPolicies(self.pairs, weights, self.beta.sigmoid(), self.magnitude)

    def _policy_metrics(self) -> dict[str, float]:
        """How far the distribution over sub-policies has moved, and each operation's share."""
        policy = self.current()
        entropy = float(torch.special.entr(policy.weights).sum())
        return {
            "entropy": entropy,
            "kl_uniform": math.log(len(policy)) - entropy,
            "operations_per_image": policy.operations_per_image(),
            **{f"share/{name}": share for name, share in policy.marginals().items()},
        }

    def parts(self) -> dict[str, Any]:
        """φ, c_ψ, Adam's moments and the rewards' running moments."""
        return {
            "alpha": self.alpha,
            "beta": self.beta,
            "magnitude": self.magnitude,
            "control": self.control,
            "adam": self._adam,
            "scale": self._scale,
        }


METHOD = Dada
