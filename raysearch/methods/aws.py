"""AWS: augmentation-wise weight sharing (Tian et al., NeurIPS 2020).

One network is trained with the uniform policy over ordered pairs of elements, operations at fixed
magnitudes (stage 1, `SharedTraining`). A trial then takes that checkpoint, fine-tunes it for a few
epochs with images augmented by the policy as it stands, and its validation accuracy is the reward
(stage 2). When a group of trials has ended, the policy makes one PPO update from their rewards and
from how often each drew each pair.

Two settings go beyond the paper, `draws` and `reward`: see `_pair_search`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

from torch import Tensor

from raysearch.errors import RaysearchError
from raysearch.methods._base import Expected, Groups, Method
from raysearch.methods._pair_search import PairSearch, PairSettings, TrialPairs
from raysearch.methods._ppo import PPOSettings
from raysearch.methods._rounds import snapshot
from raysearch.methods._shared import SharedTraining, check_fits, made_with, reward, validated
from raysearch.methods._study import GiveUp, Studies
from raysearch.policy import Pairs
from raysearch.protocol import Answer, Metrics, Proposal, Values, Work
from raysearch.settings import BelowOne, Between, Count, NotNegative, WholeNumber
from raysearch.training import Setup, Training, derive_seed, validation_cost

SHARED = "shared"  # the id of the shared training's proposal
SMALLEST_GROUP = 8  # trials between two updates where nothing is asked for


@dataclass(frozen=True)
class AwsSettings(PairSettings):
    """Settings; those that PPO takes are explained in `PPOSettings`.

    Attributes:
        updates: rounds of trials, at least 1.
        best: of how many of its best epochs the reward is the mean.
        shared_checkpoint: a file or a folder of another run, instead of stage 1.
    """

    updates: Count
    best: Count
    warmup_updates: WholeNumber
    clip: Between
    inner_updates: Count
    kl_limit: NotNegative
    baseline_decay: BelowOne
    shared_checkpoint: str | None

    @property
    def made(self) -> dict[str, Any]:
        """What a shared checkpoint has to have in common with the search."""
        return {
            "method.operations": list(self.operations),
            "method.levels": self.levels,
            "method.label_smoothing": self.label_smoothing,
        }


class Aws(Method):
    """See the module's text."""

    shares: ClassVar[bool] = True

    @classmethod
    def uniform(cls, method: Mapping[str, Any]) -> Pairs:
        """All pairs of elements alike."""
        return AwsSettings.of(method).uniform

    @classmethod
    def search(cls, seed: int, groups: Groups, studies: Studies | None = None) -> AwsSearch:
        """See `AwsSearch`."""
        return AwsSearch(seed, groups)

    @classmethod
    def build(cls, setup: Setup, groups: Groups, give_up: GiveUp | None = None) -> AwsBuild:
        """See `AwsBuild`."""
        return AwsBuild(setup, groups)

    @classmethod
    def parallel(cls, at_once: int, groups: Groups) -> int:
        """Trials between two updates: eight or more, and so many that no worker has one less."""
        asked: int | None = groups.tuning.get("parallel")
        return asked or at_once * math.ceil(SMALLEST_GROUP / at_once)

    @classmethod
    def forecast(cls, setup: Setup, groups: Groups) -> Expected:
        """The shared training, and the fine-tunings, each validated after every epoch."""
        settings, epochs = AwsSettings.of(groups.method), int(groups.tuning["epochs"])
        validation = validation_cost(*setup.search_splits())
        shared, trained = settings.shared_checkpoint is None, int(groups.search["epochs"])
        trials = settings.updates * groups.parallel
        return Expected(
            trials * epochs * (1 + validation) + shared * (trained + validation),
            trials + shared,
            max(epochs, shared * trained),
            1,
            f"{settings.updates} updates from {groups.parallel} trials each",
        )

    @classmethod
    def fits(cls, shared: Values, setup: Setup, groups: Groups) -> None:
        """See `Method.fits`."""
        settings = AwsSettings.of(groups.method)
        check_fits(shared, {**made_with(setup, groups.search), **settings.made})


class AwsSearch(PairSearch):
    """Asks for the shared training, unless one is given, then for the trials of each update.

    The shared training is round 0 and has no row in the history; its cost is in every row.

    Args:
        seed: everything random follows from it.
        groups: the settings.
    """

    def __init__(self, seed: int, groups: Groups) -> None:
        s, finetune = AwsSettings.of(groups.method), groups.tuning
        if s.best > finetune["epochs"]:
            best, epochs = s.best, finetune["epochs"]
            raise RaysearchError(f"method.best={best}: more than finetune.epochs={epochs}")
        ppo = PPOSettings(
            s.lr, s.betas, s.warmup_updates, s.clip, s.inner_updates, s.kl_limit, s.baseline_decay
        )
        super().__init__(seed, s, ppo, groups.parallel)
        self.rounds = 1 + s.updates
        self.round = 0 if s.shared_checkpoint is None else 1

    def propose(self) -> Sequence[Proposal]:
        """The shared training, or fine-tunings of what it has left."""
        if not self.round:
            return [Proposal(SHARED, 0)]
        return self.trials(self.round, (SHARED,), "finetune")

    def values(self, id: str) -> Values:
        """A seed of its own."""
        return {"seed": derive_seed(self.seed, "finetune", id)}

    def end_round(self, answers: Sequence[Values | None]) -> Sequence[Metrics]:
        """An update after every round but the shared training's."""
        if not self.round:
            self.equivalents = 0.0  # the trials say what it cost, given or not
            return ()
        shared = next(float(one["shared_equivalents"]) for one in answers if one is not None)
        metrics = self.learn(answers)
        total = shared + self.equivalents
        return [{**self.row(metrics), "epoch": self.round, "epoch_equivalents": total}]

    def move(
        self, counts: Tensor, rewards: Sequence[float], answers: Sequence[Values | None]
    ) -> Metrics:
        """A PPO update."""
        moved = self.ppo.update(counts, rewards)
        return {"baseline": float(self.ppo.baseline or 0.0), **moved}

    def policy(self) -> Pairs:
        """The distribution as it stands."""
        return self.current()


class AwsBuild:
    """Makes shared trainings and fine-tunings; one training is used for all of the latter.

    Args:
        setup: data, network and device; its seed divides the images.
        groups: the settings.
    """

    def __init__(self, setup: Setup, groups: Groups) -> None:
        self.setup, self.groups = setup, groups
        self.settings = AwsSettings.of(groups.method)
        self.smoothed = {"label_smoothing": self.settings.label_smoothing}
        self._shared: Values | None = None

    def __call__(self, proposal: Proposal, files: Mapping[str, Values]) -> Work:
        """The work of a proposal."""
        settings = self.settings
        if proposal.id == SHARED:
            search = {**self.groups.search, **self.smoothed}
            return SharedTraining(self.setup, search, settings.uniform, settings.made)
        if self._shared is None:
            self._shared = files[SHARED]
        return FineTuning(self.tuner, proposal, self._shared)

    @cached_property
    def tuner(self) -> Tuner:
        """What fine-tunings have in common."""
        return Tuner(self.setup, self.settings, {**self.groups.tuning, **self.smoothed})


class Tuner:
    """What all fine-tunings in a process use.

    Args:
        setup: data, network and device.
        settings: the method's.
        finetune: the fields of `SGDSettings`.
    """

    def __init__(self, setup: Setup, settings: AwsSettings, finetune: Values) -> None:
        self.setup, self.settings = setup, settings
        self.uniform = settings.uniform
        train, self.val = setup.search_splits()
        self.training = Training(setup, finetune, None, True, split=train)
        self.validation = validation_cost(train, self.val)
        self.groups = self.training.optimizer.state_dict()["param_groups"]


class FineTuning:
    """A fine-tuning of the shared checkpoint, validated after every epoch, as work.

    Args:
        tuner: what it uses, until the next one does.
        proposal: the policy, and a seed.
        shared: the shared checkpoint.
    """

    def __init__(self, tuner: Tuner, proposal: Proposal, shared: Values) -> None:
        self._tuner, self._shared_metrics = tuner, shared["metrics"]
        self._policy = TrialPairs.of(tuner.uniform, proposal, tuner.settings.draws)
        self._rewards: list[float] = []  # after each epoch
        self._metrics: Metrics = {}
        self.training = tuner.training
        self.loop = self.training.loop
        self.training.setup = replace(tuner.setup, seed=proposal.values["seed"])
        self.training.policy = self._policy
        # its own copy of the momentum, which a step changes; settings are the fine-tuning's
        optimizer = {"state": snapshot(shared["optimizer"]["state"]), "param_groups": tuner.groups}
        self.training.load_state_dict(
            {"epoch": 0, "model": shared["model"], "optimizer": optimizer}
        )
        self.epochs = self.training.epochs

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return self.training.epoch

    def step(self) -> Metrics:
        """One epoch."""
        tuner, metrics = self._tuner, self.training.step()
        found = validated(self.training.model, tuner.setup, tuner.val, self.epoch)
        self._rewards.append(reward(tuner.settings.reward, found, tuner.setup.task.metric))
        cost = metrics["epoch_equivalents"] + len(self._rewards) * tuner.validation
        self._metrics = {**found, **metrics, "epoch_equivalents": cost}
        return dict(self._metrics)

    def answer(self) -> Answer:
        """How it went.

        Its values are `counts`, how often each pair was drawn, int32 [N·N]; `reward`; `val_loss`
        and the task's other figures after the last epoch, `train_loss` and `lr` of it,
        `epoch_equivalents`, and those of the shared training, `shared_equivalents`.
        """
        best = sorted(self._rewards, reverse=True)[: self._tuner.settings.best]
        return Answer(
            {
                "counts": self._policy.counts,
                "reward": sum(best) / len(best),
                "shared_equivalents": self._shared_metrics["epoch_equivalents"],
                **self._metrics,
            }
        )

    def state_dict(self) -> dict[str, Any]:
        """The training's state, and what was seen."""
        return {
            "training": self.training.state_dict(),
            "seen": self._policy.seen,
            "rewards": list(self._rewards),
            "metrics": dict(self._metrics),
        }

    def load_state_dict(self, state: Values) -> None:
        """Continue from `state_dict`."""
        self.training.load_state_dict(state["training"])
        self._policy.seen = state["seen"].clone()
        self._rewards = list(state["rewards"])
        self._metrics = dict(state["metrics"])


METHOD = Aws
