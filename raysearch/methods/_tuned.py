"""Policies of a few numbers, tuned over full trainings: what a search has to be cheaper than."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from raysearch.methods._settings import MethodSettings
from raysearch.methods._shared import validated
from raysearch.methods._study import Pruning, Space, Study, Tried, Watch, packed
from raysearch.methods._trials import Proposal, RoundSearch, Values, file_of, mean_of
from raysearch.policy import Policy
from raysearch.states import load, save_whole
from raysearch.training import Setup, Training, validation_cost


@dataclass(frozen=True)
class TunedSettings(MethodSettings):
    """Settings of methods that Optuna drives.

    Attributes:
        trials: trainings in all, at least 1; the last round is filled up.
        parallel: trainings that run between two proposals; None is as many as fit at once.
        objective: what is minimised on the validation images, `error` (percent) or `loss`.
        sampler: Optuna's, `tpe` or `random`.
        startup_trials: proposed at random, and none given up, before the sampler and the pruner
            begin.
        pruner: Optuna's, `median`, `asha` or `none`.
        warmup_epochs: of each trial before it may be given up.
        interval: epochs between two looks at the validation images.
    """

    trials: int
    parallel: int | None
    objective: Literal["error", "loss"]
    sampler: Literal["tpe", "random"]
    startup_trials: int
    pruner: Literal["median", "asha", "none"]
    warmup_epochs: int
    interval: int

    def conditions(self) -> Iterable[tuple[str, bool, str]]:
        """The values that each number may take."""
        return (
            ("trials", self.trials >= 1, "at least 1"),
            ("parallel", self.parallel is None or self.parallel >= 1, "at least 1, or nothing"),
            ("startup_trials", self.startup_trials >= 0, "at least 0"),
            ("warmup_epochs", self.warmup_epochs >= 0, "at least 0"),
            ("interval", self.interval >= 1, "at least 1"),
        )

    @property
    def pruning(self) -> Pruning:
        """When a trial is given up."""
        return Pruning(self.pruner, self.startup_trials, self.warmup_epochs)


class Tuned(RoundSearch):
    """Optuna proposes the policy of every training; the best one's is the result.

    Every training of a search starts from the same weights and sees the images in the same order:
    they differ in the policy alone. A round's trainings are proposed together.
    """

    def __init__(self, seed: int, method: Values, training: Values) -> None:
        super().__init__(seed)
        self.settings = self.settings_of(method)
        s = self.settings
        self._parallel: int = training["parallel"]
        self._epochs: int = training["epochs"]
        self.rounds = -(-s.trials // self._parallel)
        space = self.space(s)
        self.study = Study(f"seed {seed}", space, seed, s.sampler, s.startup_trials)
        self._proposed: list[dict[str, Any]] = []  # of this round, once it has begun

    @classmethod
    @abstractmethod
    def settings_of(cls, method: Values) -> TunedSettings:
        """The method's settings, checked."""

    @classmethod
    @abstractmethod
    def space(cls, settings: Any) -> Space:
        """The parameters that Optuna chooses."""

    @classmethod
    @abstractmethod
    def policy_of(cls, settings: Any, params: Mapping[str, Any]) -> Policy:
        """The policy that parameters stand for."""

    @classmethod
    def group(cls, at_once: int, method: Values) -> int:
        """As many as run at the same time: what is proposed later has seen more."""
        return at_once

    @classmethod
    def worker(cls, setup: Setup, method: Values, training: Values, prepared: Values) -> Trainer:
        """Carries out whole trainings."""
        settings = cls.settings_of(method)
        return Trainer(setup, settings, training, partial(cls.policy_of, settings))

    @property
    def files(self) -> int:
        """One for each training of a round."""
        return self._parallel

    def equivalents(self, setup: Setup) -> float:
        """As if none were given up; validated after every interval, and at the end."""
        looks = -(-self._epochs // self.settings.interval)
        each = self._epochs + looks * validation_cost(*setup.search_splits())
        return self.trainings * each

    def policy(self) -> Policy:
        """The policy of the best training, so far as there has been one."""
        ranked = self.study.ranked()
        params = ranked[0].params if ranked else self.study.propose(1)[0]
        return self.policy_of(self.settings, params)

    def size(self) -> int:
        """As many in every round."""
        return self._parallel

    def values(self, index: int, id_: str) -> Values:
        """The training's parameters, and what the pruner has to know."""
        return {"params": json.dumps(self._proposals()[index]), "before": packed(self.study.tried)}

    def _proposals(self) -> list[dict[str, Any]]:
        """The round's parameters, made once; a continued search makes the same."""
        self._proposed = self._proposed or self.study.propose(self._parallel)
        return self._proposed

    def end_round(self, answers: Sequence[Values]) -> dict[str, float]:
        """Tell the study about the round's trainings."""
        pairs = zip(self._proposals(), answers, strict=True)
        self.study.tell([_tried(params, one) for params, one in pairs])
        self._proposed = []
        best = self.study.ranked()[0]
        found = mean_of(answers, "train_loss", "val_loss", "val_error", "lr")
        pruned = sum(one.value is None for one in self.study.tried)
        return {
            **found,
            f"best_{self.settings.objective}": float(best.last or 0.0),
            "pruned": float(pruned),
            **{f"best/{key}": float(value) for key, value in best.params.items()},
            **self.figures(),
        }

    def figures(self) -> dict[str, float]:
        """What the policy does; see `SearchMethod.step`."""
        policy = self.policy()
        found = {f"share/{name}": share for name, share in policy.marginals().items()}
        for name, (mean, std) in policy.parameters().items():
            found |= {f"mean/{name}": mean, f"std/{name}": std}
        return found

    def keep_record(self, folder: Path) -> None:
        """Optuna's storage; see `Study.keep_record`."""
        self.study.keep_record(folder)

    def state_dict(self) -> dict[str, Any]:
        """The study besides."""
        state = super().state_dict()
        return {**state, "study": self.study.state_dict(), "parallel": self._parallel}

    def load_state_dict(self, state: Values) -> None:
        """Continue from `state_dict`."""
        super().load_state_dict(state)
        self._parallel, self._proposed = state["parallel"], []
        self.rounds = -(-self.settings.trials // self._parallel)
        self.study.load_state_dict(state["study"])


def _tried(params: Mapping[str, Any], answer: Values) -> Tried:
    """What the study is told about a training."""
    seen = dict(zip(answer["epochs"].tolist(), answer["seen"].tolist(), strict=True))
    notes = ("val_error", "val_loss", "train_loss", "epoch_equivalents")
    return Tried(
        params,
        None if answer["pruned"] else seen[max(seen)],
        seen,
        json.loads(answer["rungs"]),
        {key: float(answer[key]) for key in notes},
    )


class Trainer:
    """The worker's part: a whole training for each proposal, unless it is given up.

    Args:
        setup: data, network, device and seed.
        settings: the method's.
        training: the fields of `SGDSettings`.
        policy_of: from parameters to a policy.
    """

    def __init__(
        self,
        setup: Setup,
        settings: TunedSettings,
        training: Values,
        policy_of: Callable[[Mapping[str, Any]], Policy],
    ) -> None:
        self.setup, self.settings = setup, settings
        self._sgd, self._policy_of = training, policy_of
        self._train, self._val = setup.search_splits()
        self._validation = validation_cost(self._train, self._val)

    def __call__(self, proposal: Proposal, folder: Path) -> dict[str, Any]:
        """Train and validate.

        Returns:
            `epochs` and `seen`, NumPy arrays [V] of when the objective was looked at, and what it
            was; `pruned`; `rungs`, the pruner's, as JSON; `val_error` (percent) and `val_loss`,
            which were seen last; `train_loss`, `lr` and `epoch_equivalents`.
        """
        policy = self._policy_of(json.loads(proposal.values["params"]))
        training = Training(self.setup, self._sgd, policy, True, split=self._train)
        watch = Watch(self.settings.pruning, bytes(proposal.values["before"]))
        path = file_of(folder, proposal.id)
        kept = load(path) if path.exists() else {"training": None, "seen": {}, "metrics": {}}
        seen: dict[int, float] = dict(kept["seen"])
        metrics: dict[str, float] = dict(kept["metrics"])
        if kept["training"] is not None:
            training.load_state_dict(kept["training"])
        hopeless = [watch.hopeless(epoch, value) for epoch, value in seen.items()]
        pruned = hopeless[-1:] == [True] and training.epoch < training.epochs
        while training.epoch < training.epochs and not pruned:
            metrics |= training.step()
            if training.epoch % self.settings.interval and training.epoch < training.epochs:
                continue
            error, loss = validated(training.model, self.setup, self._val, training.epoch)
            metrics |= {"val_error": error, "val_loss": loss}
            seen[training.epoch] = error if self.settings.objective == "error" else loss
            gone = watch.hopeless(training.epoch, seen[training.epoch])
            pruned = gone and training.epoch < training.epochs
            state = {"training": training.state_dict(), "seen": seen, "metrics": metrics}
            save_whole(path, state)
        cost = metrics["epoch_equivalents"] + len(seen) * self._validation
        return {
            **metrics,
            "epochs": np.array(list(seen)),
            "seen": np.array(list(seen.values())),
            "pruned": pruned,
            "rungs": json.dumps(watch.rungs()),
            "epoch_equivalents": cost,
        }
