"""AWS: augmentation-wise weight sharing (Tian et al., NeurIPS 2020).

One network is trained with the uniform policy over ordered pairs of elements, operations at fixed
magnitudes (stage 1, `SharedTraining`). A trial then takes that checkpoint, fine-tunes it for a few
epochs with images augmented by the policy as it stands, and its validation accuracy is the reward
(stage 2). When a group of trials has ended, the policy makes one PPO update from their rewards and
from how often each drew each pair.

Two settings go beyond the paper. With `draws` = k a trial draws k pairs first and its images draw
from these: what is estimated is the gradient of the same kind of expectation, but trials differ
far more in what they were trained with, and it takes fewer of them to see which pairs are good
(with a draw of its own for each of thousands of images all trials are alike; 0 is that, the
paper's). And the reward may be the validation loss, which is finer than the accuracy of a few
hundred images.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from raysearch.errors import RaysearchError
from raysearch.methods._ppo import PPO, PairDistribution, PPOSettings
from raysearch.methods._settings import MethodSettings
from raysearch.methods._shared import (
    SharedTraining,
    check_fits,
    made_with,
    validated,
)
from raysearch.methods._trials import PreparedTrialSearch, Proposal, Values
from raysearch.policy import MAX_ELEMENTS, Draws, Pairs
from raysearch.training import Task, Training, derive_seed, validation_cost


@dataclass(frozen=True)
class AwsSettings(MethodSettings):
    """Settings; those that PPO takes are explained in `PPOSettings`.

    Attributes:
        operations: names of the operations that elements are made of.
        levels: magnitudes of each, 1/levels to 1.
        form: of the distribution over pairs; see `PairDistribution`.
        updates: rounds of trials, at least 1.
        draws: pairs that a trial's images draw from; 0: every image draws from the policy.
        reward: what a trial returns, on the validation images: `accuracy` or minus the `loss`.
        best: of how many of its best epochs the reward is the mean.
        label_smoothing: in stage 1 and in the trials.
        shared_checkpoint: a file or a folder of another run, instead of stage 1.
    """

    operations: tuple[str, ...]
    levels: int
    form: Literal["joint", "factored"]
    updates: int
    draws: int
    reward: Literal["accuracy", "loss"]
    best: int
    lr: float
    betas: tuple[float, float]
    warmup_updates: int
    clip: float
    inner_updates: int
    kl_limit: float
    baseline_decay: float
    label_smoothing: float
    shared_checkpoint: str | None

    def conditions(self) -> Iterable[tuple[str, bool, str]]:
        """The values that each number may take."""
        several = len(set(self.operations)) == len(self.operations) >= 2
        counts = ("levels", "updates", "best", "inner_updates")
        return (
            ("operations", several, "two or more, each once"),
            ("levels", len(self.operations) * self.levels <= MAX_ELEMENTS, "fewer elements"),
            *((key, getattr(self, key) >= 1, "at least 1") for key in counts),
            *((key, getattr(self, key) >= 0, "at least 0") for key in ("draws", "warmup_updates")),
            ("lr", self.lr > 0, "a number above 0"),
            ("betas", all(0 <= beta < 1 for beta in self.betas), "from 0 to below 1"),
            ("clip", 0 < self.clip < 1, "between 0 and 1"),
            ("kl_limit", self.kl_limit >= 0, "at least 0"),
            ("baseline_decay", 0 <= self.baseline_decay < 1, "from 0 to below 1"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "from 0 to below 1"),
        )

    @property
    def uniform(self) -> Pairs:
        """The policy with which stage 1 trains."""
        return Pairs.uniform(self.operations, self.levels)

    @property
    def made(self) -> dict[str, Any]:
        """What a shared checkpoint has to have in common with the search."""
        return {
            "method.operations": list(self.operations),
            "method.levels": self.levels,
            "method.label_smoothing": self.label_smoothing,
        }


class Aws(PreparedTrialSearch):
    """The driver's part: the policy, and PPO's state; see the module's text and `TrialSearch`."""

    def __init__(self, seed: int, method: Values, finetune: Values) -> None:
        self.settings = AwsSettings.of(method)
        if self.settings.best > finetune["epochs"]:
            best, epochs = self.settings.best, finetune["epochs"]
            raise RaysearchError(f"method.best={best}: more than finetune.epochs={epochs}")
        self.seed = seed
        self.rounds = self.settings.updates
        self.metrics: dict[str, float] = {}
        self._group: int = finetune["parallel"]
        self._uniform = self.settings.uniform
        s = self.settings
        self._distribution = PairDistribution(len(self._uniform), s.form)
        ppo = PPOSettings(
            s.lr, s.betas, s.warmup_updates, s.clip, s.inner_updates, s.kl_limit, s.baseline_decay
        )
        self._ppo = PPO(self._distribution, ppo)
        self._asked: set[str] = set()  # of this round, and not told yet
        self._answers: dict[str, Values] = {}  # of this round
        self._equivalents = 0.0

    @classmethod
    def uniform(cls, method: Values) -> Pairs:
        """All pairs of elements alike."""
        return AwsSettings.of(method).uniform

    @classmethod
    def preparation(cls, task: Task, search: Values, method: Values) -> SharedTraining:
        """Stage 1."""
        settings = AwsSettings.of(method)
        search = {**search, "label_smoothing": settings.label_smoothing}
        return SharedTraining(task, search, settings.uniform, settings.made)

    @classmethod
    def fits(cls, prepared: Values, task: Task, search: Values, method: Values) -> None:
        """See `PreparedTrialSearch.fits`."""
        settings = AwsSettings.of(method)
        check_fits(prepared, {**made_with(task, search), **settings.made})

    @classmethod
    def worker(cls, task: Task, method: Values, finetune: Values, prepared: Values) -> FineTuner:
        """Fine-tunes the shared checkpoint."""
        return FineTuner(task, AwsSettings.of(method), finetune, prepared)

    def policy(self) -> Pairs:
        """The distribution as it stands."""
        log_p = self._distribution.log_probabilities().detach()
        return self._uniform.with_probabilities(log_p.double().exp())

    @property
    def trainings(self) -> int:
        """The fine-tunings."""
        return self.rounds * self._group

    def describe(self) -> str:
        """See `TrialSearch.describe`."""
        return f"{self.rounds} updates from {self._group} trials each"

    def _ids(self) -> list[str]:
        return [f"{self.round + 1:04d}-{index + 1:02d}" for index in range(self._group)]

    def ask(self) -> Proposal | None:
        """A fine-tuning with the policy as it stands."""
        taken = self._asked | set(self._answers)
        id_ = next((id_ for id_ in self._ids() if id_ not in taken), None)
        if self.finished or id_ is None:
            return None
        self._asked.add(id_)
        values = {
            "log_probabilities": self._distribution.log_probabilities().detach().numpy().copy(),
            "seed": derive_seed(self.seed, "finetune", id_),
        }
        return Proposal(id_, self.round, values)

    def tell(self, proposal: str, answer: Values) -> dict[str, float] | None:
        """After a round's last answer, a PPO update."""
        self._asked.remove(proposal)
        # a copy: what comes through Ray's object store cannot be written to
        self._answers[proposal] = {**answer, "counts": torch.tensor(answer["counts"])}
        if len(self._answers) < self._group:
            return None
        answers = [self._answers[id_] for id_ in self._ids()]  # in the order of asking
        n = len(self._uniform)
        counts = torch.stack([answer["counts"] for answer in answers]).reshape(-1, n, n).float()
        rewards = [float(answer["reward"]) for answer in answers]
        moved = self._ppo.update(counts, rewards)
        self._equivalents += sum(float(answer["epoch_equivalents"]) for answer in answers)
        self.round += 1
        self._answers = {}
        self.metrics = {
            **{key: _mean(answers, key) for key in ("train_loss", "val_loss", "val_error", "lr")},
            "epoch_equivalents": self._equivalents,
            "reward": sum(rewards) / len(rewards),
            "baseline": float(self._ppo.baseline or 0.0),
            **moved,
            **self._moved(),
        }
        return self.metrics

    def retract(self, proposal: str) -> None:
        """See `TrialSearch.retract`."""
        self._asked.remove(proposal)

    def _moved(self) -> dict[str, float]:
        """How far the policy is from uniform, and each operation's share."""
        log_p = self._distribution.log_probabilities().detach().double()
        entropy = float(-(log_p.exp() * log_p).sum())
        shares = self.policy().marginals()
        return {
            "entropy": entropy,
            "kl_uniform": math.log(log_p.numel()) - entropy,
            **{f"share/{name}": share for name, share in shares.items()},
        }

    def state_dict(self) -> dict[str, Any]:
        """PPO's state, and the answers that came since the last update."""
        return {
            "round": self.round,
            "metrics": dict(self.metrics),
            "ppo": self._ppo.state_dict(),
            "answers": dict(self._answers),
            "equivalents": self._equivalents,
            "group": self._group,
        }

    def load_state_dict(self, state: Values) -> None:
        """Continue from `state_dict`; what was asked for and not told is asked for again."""
        self.round, self.metrics = state["round"], dict(state["metrics"])
        self._ppo.load_state_dict(state["ppo"])
        self._group = state["group"]
        self._asked, self._equivalents = set(), state["equivalents"]
        self._answers = dict(state["answers"])


def _mean(answers: Iterable[Values], key: str) -> float:
    values = [float(answer[key]) for answer in answers]
    return sum(values) / len(values)


class _Counted(Pairs):
    """Counts the pairs that it draws.

    Attributes:
        counts: how often each was drawn, int64 [N·N].
    """

    counts: Tensor

    @classmethod
    def of(cls, policy: Pairs) -> _Counted:
        """The same distribution, with nothing drawn yet."""
        counted = cls(policy.operations, policy.magnitudes, policy.probabilities, policy.ranges)
        counted.counts = torch.zeros(len(policy) ** 2, dtype=torch.int64)
        return counted

    def draws_for(self, pair: Tensor, generator: torch.Generator | None = None) -> Draws:
        """See `Pairs.draws_for`."""
        self.counts += pair.bincount(minlength=len(self.counts))
        return super().draws_for(pair, generator)


class FineTuner:
    """The worker's part: a fine-tuning of the shared checkpoint for each proposal.

    Args:
        task: data, network and device; its seed divides the images.
        settings: the method's.
        finetune: the fields of `SGDSettings`.
        prepared: the shared checkpoint.
    """

    def __init__(
        self, task: Task, settings: AwsSettings, finetune: Values, prepared: Values
    ) -> None:
        self.task, self.settings = task, settings
        self._prepared = prepared
        self._uniform = settings.uniform
        train, self._val = task.search_splits()
        sgd = {**finetune, "label_smoothing": settings.label_smoothing}
        self._training = Training(task, sgd, None, True, split=train)
        self._validation = validation_cost(train, self._val)
        self._groups = self._training.optimizer.state_dict()["param_groups"]

    def __call__(self, proposal: Proposal, folder: Path | None = None) -> dict[str, Any]:
        """Fine-tune and validate.

        Returns:
            `counts`, how often each pair was drawn, int32 [N·N]; `reward`; `val_loss` and
            `val_error` (percent) after the last epoch, `train_loss` and `lr` of it, and
            `epoch_equivalents`.
        """
        seed: int = proposal.values["seed"]
        log_p = torch.from_numpy(np.array(proposal.values["log_probabilities"]))
        policy, counts = self._draw(log_p, seed)
        training = self._training
        training.task, training.policy = replace(self.task, seed=seed), policy
        # its own copy of the momentum, which a step changes; settings are the fine-tuning's
        state = copy.deepcopy(self._prepared["optimizer"]["state"])
        optimizer = {"state": state, "param_groups": self._groups}
        model = self._prepared["model"]
        training.load_state_dict({"epoch": 0, "model": model, "optimizer": optimizer})
        found: list[tuple[float, float]] = []
        while training.epoch < training.epochs:
            metrics = training.step()
            found.append(validated(training.model, self.task, self._val, training.epoch))
        errors, losses = zip(*found, strict=True)
        rewards = [-loss for loss in losses]
        if self.settings.reward == "accuracy":
            rewards = [(100 - error) / 100 for error in errors]
        best = sorted(rewards, reverse=True)[: self.settings.best]
        drawn = policy.counts if counts is None else counts
        return {
            "counts": drawn.to(torch.int32).numpy(),
            "reward": sum(best) / len(best),
            "val_error": errors[-1],
            "val_loss": losses[-1],
            **metrics,
            "epoch_equivalents": metrics["epoch_equivalents"] + len(found) * self._validation,
        }

    def _draw(self, log_p: Tensor, seed: int) -> tuple[_Counted, Tensor | None]:
        """The policy of a trial, and how often it was made to consist of each pair, if it was."""
        p = log_p.double().exp()
        policy = self._uniform.with_probabilities(p)
        if not self.settings.draws:
            return _Counted.of(policy), None
        generator = torch.Generator().manual_seed(derive_seed(seed, "pairs"))
        drawn = policy.sample(self.settings.draws, generator=generator).sub_policy
        counts = drawn.bincount(minlength=p.numel())
        few = policy.with_probabilities(counts.reshape(p.shape))
        return _Counted.of(few), counts


METHOD = Aws
