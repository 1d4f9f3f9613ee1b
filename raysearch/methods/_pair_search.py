"""What searches of a distribution over ordered pairs of elements share: AWS and OHL.

In each round a group of trials trains with images augmented by the policy as it stands; then the
policy moves by their rewards and by how often each drew each pair.

With `draws` = k a trial draws k pairs first and its images draw from these: what is estimated is
the gradient of the same kind of expectation, but trials differ far more in what they were trained
with, and it takes fewer of them to see which pairs are good (with a draw of its own for each of
thousands of images all trials are alike; 0 is that, the papers'). And the reward may be the
validation loss, which is finer than the accuracy of a few hundred images.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from raysearch.data import Split
from raysearch.methods._base import Method
from raysearch.methods._ppo import PPO, PairDistribution, PPOSettings
from raysearch.methods._rounds import RoundSearch, means, trial_id
from raysearch.methods._settings import Operations
from raysearch.methods._validated import Goal, ValidatedTraining
from raysearch.policy import MAX_ELEMENTS, Draws, Pairs
from raysearch.protocol import Metrics, Proposal, Values
from raysearch.settings import BelowOne, Count, Positive, WholeNumber, wrong
from raysearch.training import Training, derive_seed


@dataclass(frozen=True)
class PairMethod(Method):
    """A method with such a search; `PPOSettings` explains the settings of the policy's movement.

    Attributes:
        operations: names of the operations that elements are made of.
        levels: magnitudes of each, 1/levels to 1.
        form: of the distribution over pairs; see `PairDistribution`.
        draws: pairs that a trial's images draw from; 0: every image draws from the policy.
        reward: what a trial returns, on the validation images: the task's `metric`, from 0 to 1
            (of classification, in the papers: accuracy), or minus the `loss`.
        label_smoothing: in all trainings of the search.
    """

    operations: Operations
    levels: Count
    form: Literal["joint", "factored"]
    draws: WholeNumber
    reward: Goal
    lr: Positive
    betas: tuple[BelowOne, BelowOne]
    label_smoothing: BelowOne

    def __post_init__(self) -> None:
        if len(self.operations) * self.levels > MAX_ELEMENTS:
            raise wrong("method.levels", self.levels, "fewer elements")

    @property
    def uniform(self) -> Pairs:
        """The policy with which the search begins."""
        return Pairs.uniform(self.operations, self.levels)


class PairSearch(RoundSearch):
    """A search that moves a distribution over pairs by the rewards of a round's trials.

    A trial that failed has the round's worst reward. The pairs that it was made to consist of
    follow from its seed; where its images drew from the whole policy nobody knows what they drew,
    and it only lowers what the others are compared with.

    Args:
        seed: everything random follows from it.
        rounds: how many it has.
        settings: the method.
        ppo: how the policy moves.
        trials: of which an update is made.
    """

    def __init__(
        self, seed: int, rounds: int, settings: PairMethod, ppo: PPOSettings, trials: int
    ) -> None:
        super().__init__(seed, rounds)
        self._trials = trials
        self.draws = settings.draws
        self.start = settings.uniform
        self.distribution = PairDistribution(len(self.start), settings.form)
        self.ppo = PPO(self.distribution, ppo)

    @abstractmethod
    def values(self, id: str) -> Values:
        """What a trial has to know beside the policy: a `seed` at least."""

    def trials(self, number: int, needs: tuple[str, ...], stage: str) -> list[Proposal]:
        """The trials of an update of the policy, counted from 1."""
        log_p = self.distribution.log_probabilities().detach().numpy().copy()
        ids = [trial_id(number, index) for index in range(self._trials)]
        return [
            Proposal(id, self.round, {"log_probabilities": log_p, **self.values(id)}, needs, stage)
            for id in ids
        ]

    def current(self) -> Pairs:
        """The distribution as it stands."""
        log_p = self.distribution.log_probabilities().detach()
        return self.start.with_probabilities(log_p.double().exp())

    def outcome(self, answers: Sequence[Values | None]) -> tuple[Tensor, list[float], Metrics]:
        """A round's trials: what they drew, what came of it, and the round's metrics.

        Returns:
            How often each trial drew each pair, float [trials, N, N], 0 where nobody knows; their
            rewards, larger being better; means of what they measured.
        """
        n = len(self.start)
        pairs = zip(self.proposals, answers, strict=True)
        counts = torch.stack([self._counts(*pair) for pair in pairs]).reshape(-1, n, n).float()
        worst = min(float(one["reward"]) for one in answers if one is not None)
        rewards = [worst if one is None else float(one["reward"]) for one in answers]
        return counts, rewards, {**means(answers), "reward": sum(rewards) / len(rewards)}

    def _counts(self, proposal: Proposal, answer: Values | None) -> Tensor:
        """How often a trial drew each pair, int32 [N·N]."""
        if answer is not None:
            counts: Tensor = answer["counts"]
            return counts
        return torch.from_numpy(TrialPairs.of(self.start, proposal, self.draws).counts)

    def figures(self) -> Metrics:
        """How far the policy is from uniform, and each operation's share."""
        log_p = self.distribution.log_probabilities().detach().double()
        entropy = float(-(log_p.exp() * log_p).sum())
        shares = self.current().marginals()
        return {
            "entropy": entropy,
            "kl_uniform": math.log(log_p.numel()) - entropy,
            **{f"share/{name}": share for name, share in shares.items()},
        }

    def state_dict(self) -> dict[str, Any]:
        """What moves the policy besides."""
        return {**super().state_dict(), "ppo": self.ppo.state_dict()}

    def load_state_dict(self, state: Values) -> None:
        """Go on from `state_dict`."""
        super().load_state_dict(state)
        self.ppo.load_state_dict(state["ppo"])


class TrialPairs(Pairs):
    """The pairs of one trial, which are counted as they are drawn.

    Attributes:
        chosen: how often the trial was made to consist of each, int64 [N·N]; None where its images
            draw from the whole policy.
        seen: how often an image drew each, int64 [N·N].
    """

    chosen: Tensor | None
    seen: Tensor

    @classmethod
    def of(cls, uniform: Pairs, proposal: Proposal, draws: int) -> TrialPairs:
        """What the images of a proposal's trial draw from.

        Args:
            uniform: the elements.
            proposal: has the policy's `log_probabilities`, float32 [N, N], and a `seed`.
            draws: pairs that the trial consists of; 0: all.
        """
        log_p = torch.from_numpy(np.array(proposal.values["log_probabilities"]))
        p = log_p.double().exp()
        policy, chosen = uniform.with_probabilities(p), None
        if draws:
            seed = derive_seed(proposal.values["seed"], "pairs")
            generator = torch.Generator().manual_seed(seed)
            drawn = policy.sample(draws, generator=generator).sub_policy
            chosen = drawn.bincount(minlength=p.numel())
            policy = policy.with_probabilities(chosen.reshape(p.shape))
        made = cls(policy.operations, policy.magnitudes, policy.probabilities, policy.ranges)
        made.chosen, made.seen = chosen, torch.zeros(p.numel(), dtype=torch.int64)
        return made

    @property
    def counts(self) -> np.ndarray[Any, Any]:
        """How often the trial drew each pair from the policy, int32 [N·N]."""
        drawn = self.seen if self.chosen is None else self.chosen
        return drawn.to(torch.int32).numpy()

    def draws_for(self, pair: Tensor, generator: torch.Generator | None = None) -> Draws:
        """See `Pairs.draws_for`."""
        self.seen += pair.bincount(minlength=len(self.seen))
        return super().draws_for(pair, generator)


class PairTraining(ValidatedTraining):
    """A trial's training, whose draws from its policy are counted.

    Args:
        training: goes on from where it stands, with the trial's policy.
        policy: counts what is drawn.
        val, epochs, every: see `ValidatedTraining`.
    """

    def __init__(
        self,
        training: Training,
        policy: TrialPairs,
        val: Split,
        epochs: int | None = None,
        every: int | None = None,
    ) -> None:
        super().__init__(training, val, epochs, every)
        self.policy = training.policy = policy

    def state_dict(self) -> dict[str, Any]:
        """What was drawn besides."""
        return {**super().state_dict(), "seen": self.policy.seen}

    def load_state_dict(self, state: Values) -> None:
        """Continue from `state_dict`."""
        super().load_state_dict(state)
        self.policy.seen = state["seen"].clone()
