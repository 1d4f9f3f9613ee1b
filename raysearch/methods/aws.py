"""AWS: augmentation-wise weight sharing (Tian et al., NeurIPS 2020).

One network is trained with the uniform policy over ordered pairs of elements, operations at fixed
magnitudes (stage 1, `SharedTraining`). A trial then takes that checkpoint, fine-tunes it for a few
epochs with images augmented by the policy as it stands, and its validation accuracy is the reward
(stage 2). When a group of trials has ended, the policy makes one PPO update from their rewards and
from how often each drew each pair.

Two settings go beyond the paper, `draws` and `reward`: see `_pair_search`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from raysearch.data import Split
from raysearch.errors import RaysearchError
from raysearch.methods._base import Context, Expected
from raysearch.methods._pair_search import PairMethod, PairSearch, PairTraining, TrialPairs
from raysearch.methods._ppo import PPOSettings
from raysearch.methods._validated import ValidatedTraining, reward, snapshot
from raysearch.models import name_of
from raysearch.policy import Pairs, Policy
from raysearch.protocol import Answer, Build, Metrics, Proposal, Values, Work
from raysearch.settings import BelowOne, Between, Count, NotNegative, PathWord, WholeNumber
from raysearch.training import Setup, Training, derive_seed, validation_cost

SHARED = "shared"  # the id of the shared training's proposal
FORMAT = "raysearch-shared-checkpoint"


@dataclass(frozen=True)
class Aws(PairMethod):
    """The method; the settings that PPO takes are explained in `PPOSettings`.

    Attributes:
        updates: rounds of trials, at least 1.
        best: of how many of its best epochs the reward is the mean.
        shared_checkpoint: a file or a folder of another run, instead of stage 1.
    """

    title: ClassVar[str] = "AWS"
    begins_shared: ClassVar[bool] = True
    updates: Count
    best: Count
    warmup_updates: WholeNumber
    clip: Between
    inner_updates: Count
    kl_limit: NotNegative
    baseline_decay: BelowOne
    shared_checkpoint: PathWord | None

    @property
    def made(self) -> dict[str, Any]:
        """What a shared checkpoint has to have in common with the search."""
        return {
            "method.operations": list(self.operations),
            "method.levels": self.levels,
            "method.label_smoothing": self.label_smoothing,
        }

    def search(self, seed: int, context: Context) -> AwsSearch:
        """See `AwsSearch`."""
        return AwsSearch(seed, self, context)

    def build(self, setup: Setup, context: Context) -> Build:
        """Makes shared trainings and fine-tunings; one training is used for all of the latter."""
        train, val = setup.search_splits()
        smoothed = {"label_smoothing": self.label_smoothing}
        training = Training(setup, {**context.tuning, **smoothed}, None, True, split=train)
        param_groups = training.optimizer.state_dict()["param_groups"]

        def built(proposal: Proposal, files: Mapping[str, Values]) -> Work:
            if proposal.id == SHARED:
                search = {**context.search, **smoothed}
                return SharedTraining(setup, search, self.uniform, self.made)
            shared = files[SHARED]
            # its own copy of the momentum, which a step changes; settings are the fine-tuning's
            momentum = snapshot(shared["optimizer"]["state"])
            optimizer = {"state": momentum, "param_groups": param_groups}
            training.setup = replace(setup, seed=proposal.values["seed"])
            training.load_state_dict({"epoch": 0, "model": shared["model"], "optimizer": optimizer})
            policy = TrialPairs.of(self.uniform, proposal, self.draws)
            return FineTuning(training, policy, val, self, shared["metrics"])

        return built

    def forecast(self, setup: Setup, context: Context) -> Expected:
        """The shared training, and the fine-tunings, each validated after every epoch."""
        epochs, parallel = int(context.tuning["epochs"]), int(context.tuning["parallel"])
        validation = validation_cost(*map(len, setup.search_splits()))
        shared, trained = self.shared_checkpoint is None, context.epochs
        trials = self.updates * parallel
        return Expected(
            trials * epochs * (1 + validation) + shared * (trained + validation),
            trials + shared,
            parallel,
            f"{self.updates} updates from {parallel} trials each",
        )

    def fits(self, shared: Values, setup: Setup, context: Context) -> None:
        """See `Method.fits`."""
        check_fits(shared, {**made_with(setup, context.search), **self.made})


class AwsSearch(PairSearch):
    """Asks for the shared training, unless one is given, then for the trials of each update.

    The shared training is round 0 and has no row in the history; its cost is in every row.
    """

    def __init__(self, seed: int, settings: Aws, context: Context) -> None:
        s, epochs = settings, context.tuning["epochs"]
        if s.best > epochs:
            raise RaysearchError(f"method.best={s.best}: more than finetune.epochs={epochs}")
        ppo = PPOSettings(
            s.lr, s.betas, s.warmup_updates, s.clip, s.inner_updates, s.kl_limit, s.baseline_decay
        )
        super().__init__(seed, 1 + s.updates, s, ppo, context.tuning["parallel"])
        self.round = 0 if s.shared_checkpoint is None else 1

    @property
    def rows(self) -> int:
        """One for every update."""
        return self.rounds - 1

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
        counts, rewards, metrics = self.outcome(answers)
        moved = self.ppo.update(counts, rewards)
        metrics |= {**self.figures(), "baseline": float(self.ppo.baseline or 0.0), **moved}
        total = shared + self.equivalents
        return [{**self.row(metrics), "epoch": self.round, "epoch_equivalents": total}]

    def policy(self) -> Pairs:
        """The distribution as it stands."""
        return self.current()


class SharedTraining(ValidatedTraining):
    """A training with one policy throughout on the search's train split, as work.

    What it leaves is the shared checkpoint: weights with batch normalisation's statistics, the
    optimiser's state, what it cost and what it was made with.

    Args:
        setup: data, network, device and seed.
        search: the fields of `SGDSettings`.
        policy: augments the images; the uniform one minimises the expected divergence between
            the shared training and those that would have had a policy of their own (section 3.2).
            None is no augmentation, the predefined one neither.
        made: what else a search that uses the checkpoint must have in common with it.
    """

    def __init__(
        self,
        setup: Setup,
        search: Mapping[str, Any],
        policy: Policy | None,
        made: Mapping[str, Any],
    ) -> None:
        train, val = setup.search_splits()
        super().__init__(Training(setup, search, policy, policy is not None, split=train), val)
        self._made = {**made_with(setup, search), **made}

    def answer(self) -> Answer:
        """The metrics of the last epoch; the shared checkpoint is the file."""
        state = self.training.state_dict()
        checkpoint = {
            "format": FORMAT,
            "made": self._made,
            "model": snapshot(state["model"]),
            "optimizer": snapshot(state["optimizer"]),
            "metrics": self.metrics,
        }
        return Answer(self.metrics, file=checkpoint)


def made_with(setup: Setup, search: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint was made with, by the names that a person knows it by."""
    train, val = setup.search_splits()
    keys = ("epochs", "batch_size", "lr", "momentum", "nesterov", "weight_decay")
    return {
        "model": name_of(setup.model),
        "classes": list(setup.dataset.classes),
        "image size": list(setup.dataset.size),
        "channels": setup.dataset.channels,
        "training images": fingerprint(train),
        "validation images": fingerprint(val),
        "predefined augmentation": vars(setup.predefined).copy(),
        **{f"search.{key}": search[key] for key in keys},
    }


def fingerprint(split: Split) -> str:
    """How many images a split has, and a digest of its labels and first images."""
    digest = hashlib.sha256(split.targets.cpu().numpy().tobytes())
    images, _, _ = next(iter(split.batches(64, device=torch.device("cpu"), generator=None)))
    digest.update(images.contiguous().numpy().tobytes())
    return f"{len(split)} ({digest.hexdigest()[:16]})"


def check_fits(checkpoint: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """That a checkpoint was made with what a search has.

    Raises:
        RaysearchError: it was not; the message says what differs.
    """
    if not isinstance(checkpoint, Mapping) or checkpoint.get("format") != FORMAT:
        raise RaysearchError("not a shared checkpoint of raysearch")
    for key in ("made", "model", "optimizer", "metrics"):
        if not isinstance(checkpoint.get(key), Mapping):
            raise RaysearchError(f"not a shared checkpoint of raysearch (no {key!r})")
    if not isinstance(checkpoint["metrics"].get("epoch_equivalents"), int | float):
        raise RaysearchError("not a shared checkpoint of raysearch (it does not say what it cost)")
    for key, value in made.items():
        theirs = checkpoint["made"].get(key)
        if isinstance(theirs, Tensor) or theirs != value:
            why = " (another seed divides the images otherwise)" if key.endswith(" images") else ""
            raise RaysearchError(f"it was made with {key} {theirs!s:.200}, not {value}{why}")


class FineTuning(PairTraining):
    """A fine-tuning of the shared checkpoint, validated after every epoch, as work.

    Args:
        training, policy, val: see `PairTraining`.
        settings: the method.
        shared: the metrics of the shared training.
    """

    def __init__(
        self,
        training: Training,
        policy: TrialPairs,
        val: Split,
        settings: Aws,
        shared: Metrics,
    ) -> None:
        super().__init__(training, policy, val, every=1)
        self._settings, self._shared = settings, shared

    def answer(self) -> Answer:
        """How it went.

        Its values are `counts`, how often each pair was drawn, int32 [N·N]; `reward`; `val_loss`
        and the task's other figures after the last epoch, `train_loss` and `lr` of it,
        `epoch_equivalents`, and those of the shared training, `shared_equivalents`.
        """
        by, metric = self._settings.reward, self.training.setup.task.metric
        rewards = sorted((reward(by, row, metric) for row in self.rows), reverse=True)
        best = rewards[: self._settings.best]
        return Answer(
            {
                "counts": self.policy.counts,
                "reward": sum(best) / len(best),
                "shared_equivalents": self._shared["epoch_equivalents"],
                **self.metrics,
            }
        )


METHOD = Aws
