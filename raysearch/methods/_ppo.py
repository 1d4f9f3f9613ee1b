"""A distribution over ordered pairs, and PPO's way to move it (AWS, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Form = Literal["joint", "factored"]


class PairDistribution:
    """p over the ordered pairs of N elements, by normalised sigmoids of logits θ.

    Joint: p_ij = σ(θ_ij) / Σ σ(θ). Factored: p_ij = p_i p_j|i, each normalised likewise over its
    last index. θ = 0, where it starts, is uniform.

    Args:
        elements: N.
        form: which of the two.

    Attributes:
        logits: θ, leaves: [N, N]; or [N] and [N, N].
    """

    def __init__(self, elements: int, form: Form) -> None:
        self.form = form
        shapes = [(elements, elements)] if form == "joint" else [(elements,), (elements, elements)]
        self.logits = [torch.zeros(shape, requires_grad=True) for shape in shapes]

    def log_probabilities(self) -> Tensor:
        """log p, float32 [N, N], differentiably in θ."""
        if self.form == "joint":
            every = F.logsigmoid(self.logits[0])
            return every - every.flatten().logsumexp(0)
        first, second = (F.logsigmoid(logits) for logits in self.logits)
        first, second = first - first.logsumexp(0), second - second.logsumexp(1, keepdim=True)
        return first[:, None] + second


@dataclass(frozen=True)
class PPOSettings:
    """How a policy moves; by default a step is REINFORCE's.

    The first step on a group has ratios of 1, and nothing is clipped.

    Attributes:
        lr: Adam's learning rate for θ, in full after the warm-up.
        betas: Adam's decay rates.
        warmup: updates over which the learning rate grows linearly to its full value.
        clip: ratios of new to old probabilities count between 1 − clip and 1 + clip.
        inner_updates: steps on the same trials, at most.
        kl_limit: KL(old ‖ new), nats, beyond which no further step is taken.
        baseline_decay: what the moving average of rewards keeps from update to update.
    """

    lr: float
    betas: tuple[float, float]
    warmup: int = 0
    clip: float = 0.5
    inner_updates: int = 1
    kl_limit: float = 0.0
    baseline_decay: float = 0.0


def surrogate(
    log_p: Tensor, old: Tensor, counts: Tensor, advantage: Tensor, clip: float
) -> tuple[Tensor, float]:
    """The mean over trials of Σ_ij (c_ij / n) min(ρ_ij A, clip(ρ_ij) A), with ρ = p / p_old.

    Args:
        log_p: of the policy as it is, [N, N].
        old: of the policy that drew, detached.
        counts: c, how often each trial drew each pair, [trials, N, N]; n is their sum. Trials
            that drew none add nothing, and count among those over which the mean is.
        advantage: A of each trial, [trials].
        clip: ρ counts between 1 − clip and 1 + clip.

    Returns:
        It, differentiably in log_p, and the share of draws whose ratio is clipped.
    """
    share = counts / counts.sum((1, 2), keepdim=True).clamp_min(1)
    ratio = (log_p - old).exp()
    bounded = ratio.clamp(1 - clip, 1 + clip)
    advantage = advantage[:, None, None]
    gain = torch.minimum(ratio * advantage, bounded * advantage)
    clipped = float((share.mean(0) * (ratio.detach() != bounded.detach())).sum())
    return (share * gain).sum((1, 2)).mean(), clipped


class PPO:
    """Proximal policy optimisation of a distribution over pairs (Schulman et al. 2017).

    Args:
        distribution: is moved in place.
        settings: see `PPOSettings`.

    Attributes:
        baseline: moving average of the rewards, None before the first update.
        updates: how many have been made.
    """

    def __init__(self, distribution: PairDistribution, settings: PPOSettings) -> None:
        self.distribution, self.settings = distribution, settings
        self.baseline: float | None = None
        self.updates = 0
        self._adam = torch.optim.Adam(distribution.logits, settings.lr, settings.betas)

    def update(self, counts: Tensor, rewards: Sequence[float]) -> dict[str, float]:
        """One update from a group of trials.

        `surrogate` is ascended; a trial's advantage is its reward minus the baseline. The first
        group is its own baseline.

        Args:
            counts: c of each trial, float [trials, N, N].
            rewards: one for each trial; larger is better.

        Returns:
            `advantage` (root mean square), `kl` (old to new, nats), `inner_updates`, `clipped`
            (share of the draws whose ratio was clipped in the last step).
        """
        settings = self.settings
        reward = torch.tensor(rewards, dtype=torch.float64)
        baseline = float(reward.mean()) if self.baseline is None else self.baseline
        advantage = (reward - baseline).float()
        old = self.distribution.log_probabilities().detach()
        for group in self._adam.param_groups:
            group["lr"] = settings.lr * min(1.0, (self.updates + 1) / max(1, settings.warmup))
        done, kl, clipped = 0, 0.0, 0.0
        while done < settings.inner_updates and kl <= settings.kl_limit:
            log_p = self.distribution.log_probabilities()
            gain, clipped = surrogate(log_p, old, counts, advantage, settings.clip)
            self._adam.zero_grad()
            (-gain).backward()  # type: ignore[no-untyped-call]
            self._adam.step()
            new = self.distribution.log_probabilities().detach()
            kl = float((old.exp() * (old - new)).sum())
            done += 1
        decay = settings.baseline_decay
        self.baseline = decay * baseline + (1 - decay) * float(reward.mean())
        self.updates += 1
        return {
            "advantage": float(advantage.square().mean().sqrt()),
            "kl": kl,
            "inner_updates": float(done),
            "clipped": clipped,
        }

    def state_dict(self) -> dict[str, Any]:
        """θ, Adam's moments, the baseline and the number of updates."""
        return {
            "logits": [logits.detach().clone() for logits in self.distribution.logits],
            "adam": self._adam.state_dict(),
            "baseline": self.baseline,
            "updates": self.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        with torch.no_grad():
            for own, saved in zip(self.distribution.logits, state["logits"], strict=True):
                own.copy_(saved)
        self._adam.load_state_dict(state["adam"])
        self.baseline, self.updates = state["baseline"], state["updates"]
