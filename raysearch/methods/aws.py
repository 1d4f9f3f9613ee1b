"""AWS: augmentation-wise weight sharing (Tian et al., NeurIPS 2020).

One network is trained with the uniform policy over ordered pairs of elements, operations at fixed
magnitudes (stage 1, `SharedTraining`). A trial then takes that checkpoint, fine-tunes it for a few
epochs with images augmented by the policy as it stands, and its validation accuracy is the reward
(stage 2). When a group of trials has ended, the policy makes one PPO update from their rewards and
from how often each drew each pair.

Two settings go beyond the paper, `draws` and `reward`: see `_pair_search`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from raysearch.errors import RaysearchError
from raysearch.methods._pair_search import PairSearch, PairSettings, TrialPairs
from raysearch.methods._ppo import PPOSettings
from raysearch.methods._shared import (
    SharedTraining,
    check_fits,
    made_with,
    validated,
)
from raysearch.methods._trials import PreparedTrialSearch, Proposal, Values
from raysearch.policy import Pairs
from raysearch.training import Setup, Training, derive_seed, validation_cost


@dataclass(frozen=True)
class AwsSettings(PairSettings):
    """Settings; those that PPO takes are explained in `PPOSettings`.

    Attributes:
        updates: rounds of trials, at least 1.
        best: of how many of its best epochs the reward is the mean.
        shared_checkpoint: a file or a folder of another run, instead of stage 1.
    """

    updates: int
    best: int
    warmup_updates: int
    clip: float
    inner_updates: int
    kl_limit: float
    baseline_decay: float
    shared_checkpoint: str | None

    def conditions(self) -> Iterable[tuple[str, bool, str]]:
        """The values that each number may take."""
        counts = ("updates", "best", "inner_updates")
        return (
            *super().conditions(),
            *((key, getattr(self, key) >= 1, "at least 1") for key in counts),
            ("warmup_updates", self.warmup_updates >= 0, "at least 0"),
            ("clip", 0 < self.clip < 1, "between 0 and 1"),
            ("kl_limit", self.kl_limit >= 0, "at least 0"),
            ("baseline_decay", 0 <= self.baseline_decay < 1, "from 0 to below 1"),
        )

    @property
    def made(self) -> dict[str, Any]:
        """What a shared checkpoint has to have in common with the search."""
        return {
            "method.operations": list(self.operations),
            "method.levels": self.levels,
            "method.label_smoothing": self.label_smoothing,
        }


class Aws(PairSearch, PreparedTrialSearch):
    """The driver's part: the policy, and PPO's state; see the module's text and `TrialSearch`."""

    def __init__(self, seed: int, method: Values, finetune: Values) -> None:
        s = AwsSettings.of(method)
        if s.best > finetune["epochs"]:
            best, epochs = s.best, finetune["epochs"]
            raise RaysearchError(f"method.best={best}: more than finetune.epochs={epochs}")
        ppo = PPOSettings(
            s.lr, s.betas, s.warmup_updates, s.clip, s.inner_updates, s.kl_limit, s.baseline_decay
        )
        super().__init__(seed, s, ppo, s.updates, finetune["parallel"])
        self._epochs: int = finetune["epochs"]

    @classmethod
    def uniform(cls, method: Values) -> Pairs:
        """All pairs of elements alike."""
        return AwsSettings.of(method).uniform

    @classmethod
    def preparation(cls, setup: Setup, search: Values, method: Values) -> SharedTraining:
        """Stage 1."""
        settings = AwsSettings.of(method)
        search = {**search, "label_smoothing": settings.label_smoothing}
        return SharedTraining(setup, search, settings.uniform, settings.made)

    @classmethod
    def fits(cls, prepared: Values, setup: Setup, search: Values, method: Values) -> None:
        """See `PreparedTrialSearch.fits`."""
        settings = AwsSettings.of(method)
        check_fits(prepared, {**made_with(setup, search), **settings.made})

    @classmethod
    def worker(cls, setup: Setup, method: Values, finetune: Values, prepared: Values) -> FineTuner:
        """Fine-tunes the shared checkpoint."""
        return FineTuner(setup, AwsSettings.of(method), finetune, prepared)

    def equivalents(self, setup: Setup) -> float:
        """The fine-tunings, each validated after every epoch."""
        return self.trainings * self._epochs * (1 + validation_cost(*setup.search_splits()))

    def policy(self) -> Pairs:
        """The distribution as it stands."""
        return self._current()

    def _values(self, proposal: str) -> Values:
        return {"seed": derive_seed(self.seed, "finetune", proposal)}

    def _move(self, counts: Tensor, rewards: Sequence[float]) -> dict[str, float]:
        """A PPO update."""
        moved = self._ppo.update(counts, rewards)
        return {"baseline": float(self._ppo.baseline or 0.0), **moved}


class FineTuner:
    """The worker's part: a fine-tuning of the shared checkpoint for each proposal.

    Args:
        setup: data, network and device; its seed divides the images.
        settings: the method's.
        finetune: the fields of `SGDSettings`.
        prepared: the shared checkpoint.
    """

    def __init__(
        self, setup: Setup, settings: AwsSettings, finetune: Values, prepared: Values
    ) -> None:
        self.setup, self.settings = setup, settings
        self._prepared = prepared
        self._uniform = settings.uniform
        train, self._val = setup.search_splits()
        sgd = {**finetune, "label_smoothing": settings.label_smoothing}
        self._training = Training(setup, sgd, None, True, split=train)
        self._validation = validation_cost(train, self._val)
        self._groups = self._training.optimizer.state_dict()["param_groups"]

    def __call__(self, proposal: Proposal, folder: Path | None = None) -> dict[str, Any]:
        """Fine-tune and validate.

        Returns:
            `counts`, how often each pair was drawn, int32 [N·N]; `reward`; `val_loss` and
            `val_error` (percent) after the last epoch, `train_loss` and `lr` of it, and
            `epoch_equivalents`.
        """
        policy = TrialPairs.of(self._uniform, proposal, self.settings.draws)
        training = self._training
        training.setup = replace(self.setup, seed=proposal.values["seed"])
        training.policy = policy
        # its own copy of the momentum, which a step changes; settings are the fine-tuning's
        state = copy.deepcopy(self._prepared["optimizer"]["state"])
        optimizer = {"state": state, "param_groups": self._groups}
        model = self._prepared["model"]
        training.load_state_dict({"epoch": 0, "model": model, "optimizer": optimizer})
        found: list[tuple[float, float]] = []
        while training.epoch < training.epochs:
            metrics = training.step()
            found.append(validated(training.model, self.setup, self._val, training.epoch))
        errors, losses = zip(*found, strict=True)
        rewards = [self.settings.reward_of(*one) for one in found]
        best = sorted(rewards, reverse=True)[: self.settings.best]
        return {
            "counts": policy.counts,
            "reward": sum(best) / len(best),
            "val_error": errors[-1],
            "val_loss": losses[-1],
            **metrics,
            "epoch_equivalents": metrics["epoch_equivalents"] + len(found) * self._validation,
        }


METHOD = Aws
