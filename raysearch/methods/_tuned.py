"""Policies of a few numbers, tuned over full trainings: what a search has to be cheaper than."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from raysearch.methods._base import Expected, Groups, Method
from raysearch.methods._rounds import RoundSearch, means, trial_id
from raysearch.methods._settings import MethodSettings
from raysearch.methods._shared import Goal, cost, validated
from raysearch.methods._study import GiveUp, Pruning, Space, Studies, Tried, packed, ranked
from raysearch.policy import Policy
from raysearch.protocol import Answer, Metrics, Proposal, Values
from raysearch.settings import Count, WholeNumber
from raysearch.training import Setup, Training, validation_cost


@dataclass(frozen=True)
class TunedSettings(MethodSettings):
    """Settings of methods that Optuna drives.

    Attributes:
        trials: trainings in all, at least 1; the last round is filled up.
        parallel: trainings that run between two proposals; None is as many as fit at once.
        objective: what trials are judged by on the validation images, the task's `metric` or the
            `loss`.
        sampler: Optuna's, `tpe` or `random`.
        startup_trials: proposed at random, and none given up, before the sampler and the pruner
            begin.
        pruner: Optuna's, `median`, `asha` or `none`.
        warmup_epochs: of each trial before it may be given up.
        interval: epochs between two looks at the validation images.
    """

    trials: Count
    parallel: Count | None
    objective: Goal
    sampler: Literal["tpe", "random"]
    startup_trials: WholeNumber
    pruner: Literal["median", "asha", "none"]
    warmup_epochs: WholeNumber
    interval: Count

    @property
    def pruning(self) -> Pruning:
        """When a trial is given up."""
        return Pruning(self.pruner, self.startup_trials, self.warmup_epochs)


class Tuned(Method):
    """A method whose policies are made of a few parameters, which Optuna chooses.

    The best training's policy is the result. Every training of a search starts from the same
    weights and sees the images in the same order: they differ in the policy alone.
    """

    @classmethod
    @abstractmethod
    def settings_of(cls, method: Values) -> TunedSettings:
        """The method's settings, checked."""

    @classmethod
    @abstractmethod
    def space(cls, settings: Any) -> Space:
        """The parameters that are chosen."""

    @classmethod
    @abstractmethod
    def policy_of(cls, settings: Any, params: Mapping[str, Any]) -> Policy:
        """The policy that parameters stand for."""

    @classmethod
    def search(cls, seed: int, groups: Groups, studies: Studies | None = None) -> TunedSearch:
        """See `TunedSearch`."""
        if studies is None:
            raise TypeError(f"{cls.__name__} needs studies")
        return TunedSearch(seed, cls, groups, studies)

    @classmethod
    def build(cls, setup: Setup, groups: Groups, give_up: GiveUp | None = None) -> Trainer:
        """See `Trainer`."""
        if give_up is None:
            raise TypeError(f"{cls.__name__} needs give_up")
        return Trainer(setup, cls, groups, give_up)

    @classmethod
    def parallel(cls, at_once: int, groups: Groups) -> int:
        """As many as run at the same time: what is proposed later has seen more."""
        return cls.settings_of(groups.method).parallel or at_once

    @classmethod
    def forecast(cls, setup: Setup, groups: Groups) -> Expected:
        """As if none were given up; validated after every interval, and at the end."""
        settings, epochs = cls.settings_of(groups.method), int(groups.search["epochs"])
        looks = -(-epochs // settings.interval)
        trials = -(-settings.trials // groups.parallel) * groups.parallel
        each = epochs + looks * validation_cost(*setup.search_splits())
        return Expected(
            trials * each,
            trials,
            epochs,
            0,
            f"{trials} trials, {groups.parallel} between two proposals",
        )


class TunedSearch(RoundSearch):
    """Asks for trainings, those of a round proposed together.

    Args:
        seed: everything random follows from it.
        method: whose parameters are tuned.
        groups: the settings.
        studies: makes its only study.
    """

    def __init__(self, seed: int, method: type[Tuned], groups: Groups, studies: Studies) -> None:
        super().__init__()
        self.method = method
        self.settings = s = method.settings_of(groups.method)
        self._parallel = groups.parallel
        space = method.space(s)
        self.study = studies(f"seed {seed}", space, seed, s.sampler, s.startup_trials)

    @property
    def rounds(self) -> int:  # type: ignore[override]
        """The last one is filled up."""
        return -(-self.settings.trials // self._parallel)

    def propose(self) -> Sequence[Proposal]:
        """Parameters, and what the pruner has to know."""
        before = packed(self.study.tried)
        return [
            Proposal(
                trial_id(self.round + 1, index), self.round, {"params": params, "before": before}
            )
            for index, params in enumerate(self.study.propose(self._parallel))
        ]

    def end_round(self, answers: Sequence[Values | None]) -> Sequence[Metrics]:
        """Tell the study about the round's trainings."""
        pairs = zip(self.proposals, answers, strict=True)
        self.study.tell([_tried(one.values["params"], answer) for one, answer in pairs])
        given_up = sum(one.value is None and not one.failed for one in self.study.tried)
        return [self.row({**means(answers), "pruned": float(given_up), **self.figures()})]

    def goes_on(self) -> bool:
        """So long as any training has ended, or the sampler has not yet begun to learn."""
        tried = len(self.study.tried) + len(self.proposals)
        few = tried < min(self.settings.trials, self.settings.startup_trials)
        return few or not all(one.failed for one in self.study.tried)

    def figures(self) -> Metrics:
        """What the best training was made with and what its policy does, where there is one."""
        best = ranked(self.study.tried)[0]
        if best.last is None:
            return {}
        policy = self.policy()
        found = {
            f"best_{key.removeprefix('val_')}": value
            for key, value in best.notes.items()
            if key.startswith("val_")
        }
        found |= {f"best/{key}": float(value) for key, value in best.params.items()}
        found |= {f"share/{name}": share for name, share in policy.marginals().items()}
        for name, (mean, std) in policy.parameters().items():
            found |= {f"mean/{name}": mean, f"std/{name}": std}
        return found

    def policy(self) -> Policy:
        """The policy of the best training; before there is one, the first that is proposed."""
        tried = ranked(self.study.tried)
        params = tried[0].params if tried else self.study.propose(1)[0]
        return self.method.policy_of(self.settings, params)

    def state_dict(self) -> dict[str, Any]:
        """The study besides."""
        state = super().state_dict()
        return {**state, "study": self.study.state_dict(), "parallel": self._parallel}

    def load_state_dict(self, state: Values) -> None:
        """Go on from `state_dict`; a round's size is that with which the search began."""
        super().load_state_dict(state)
        self._parallel = state["parallel"]
        self.study.load_state_dict(state["study"])


def _tried(params: Mapping[str, Any], answer: Values | None) -> Tried:
    """What the study is told about a training."""
    if answer is None:
        return Tried(params, None, failed=True)
    seen = answer["seen"]
    figures = {key for key in answer if key.startswith("val_")}
    notes = {"train_loss", "epoch_equivalents"} | figures
    return Tried(
        params,
        None if answer["pruned"] else seen[max(seen)],
        seen,
        answer["rungs"],
        {key: float(answer[key]) for key in sorted(notes)},
    )


class Trainer:
    """Makes whole trainings.

    Args:
        setup: data, network, device and seed.
        method: whose parameters are tuned.
        groups: the settings.
        give_up: makes the watches over trainings.
    """

    def __init__(self, setup: Setup, method: type[Tuned], groups: Groups, give_up: GiveUp) -> None:
        self.setup, self.settings = setup, method.settings_of(groups.method)
        self._method, self._search, self._give_up = method, groups.search, give_up
        self._train, self.val = setup.search_splits()
        self.validation = validation_cost(self._train, self.val)

    def __call__(self, proposal: Proposal, files: Mapping[str, Values]) -> TunedTraining:
        """A training with the policy of the proposal's parameters."""
        policy = self._method.policy_of(self.settings, proposal.values["params"])
        training = Training(self.setup, self._search, policy, True, split=self._train)
        before = bytes(proposal.values["before"])
        return TunedTraining(self, training, self._give_up, before)


class TunedTraining:
    """A training that is validated every interval and may be given up then, as work.

    Args:
        trainer: the validation images, and the settings.
        training: goes on until it is given up.
        give_up: makes the watch over it.
        before: what that has to know of the trials before.
    """

    def __init__(
        self, trainer: Trainer, training: Training, give_up: GiveUp, before: bytes
    ) -> None:
        self._trainer, self.training, self.loop = trainer, training, training.loop
        self._give_up, self._before = give_up, before
        self._watch = give_up(trainer.settings.pruning, before)
        self._seen: dict[int, float] = {}
        self._metrics: Metrics = {}
        self.pruned = False

    @property
    def epochs(self) -> int:
        """Of a whole training; so many as are done where it is given up."""
        return self.epoch if self.pruned else self.training.epochs

    @property
    def epoch(self) -> int:
        """How many are done."""
        return self.training.epoch

    def step(self) -> Metrics:
        """One epoch; where it is looked at the validation images, it may be the last."""
        trainer, training = self._trainer, self.training
        self._metrics |= training.step()
        if training.epoch % trainer.settings.interval == 0 or training.epoch == training.epochs:
            found = validated(training.model, trainer.setup, trainer.val, training.epoch)
            self._metrics |= found
            value = cost(trainer.settings.objective, found, trainer.setup.task.metric)
            self._seen[training.epoch] = value
            self._look(training.epoch, value)
        return {**self._metrics, "epoch_equivalents": self._cost()}

    def _look(self, epoch: int, value: float) -> None:
        hopeless = self._watch.hopeless(epoch, value)
        self.pruned = hopeless and epoch < self.training.epochs

    def _cost(self) -> float:
        cost = self._metrics["epoch_equivalents"]
        return cost + len(self._seen) * self._trainer.validation

    def answer(self) -> Answer:
        """How it went.

        Its values are `seen`, what is minimised, after some of the epochs; `pruned`, whether it was
        given up; `rungs`, see `Tried`; `val_loss` and the task's other figures, which were seen
        last; `train_loss`, `lr` and `epoch_equivalents`.
        """
        return Answer(
            {
                **self._metrics,
                "seen": dict(self._seen),
                "pruned": self.pruned,
                "rungs": self._watch.rungs(),
                "epoch_equivalents": self._cost(),
            }
        )

    def state_dict(self) -> dict[str, Any]:
        """The training's state, and what was seen."""
        return {
            "training": self.training.state_dict(),
            "seen": dict(self._seen),
            "metrics": dict(self._metrics),
        }

    def load_state_dict(self, state: Values) -> None:
        """Continue from `state_dict`; the watch looks at what was seen once more."""
        self.training.load_state_dict(state["training"])
        self._seen, self._metrics = dict(state["seen"]), dict(state["metrics"])
        self._watch, self.pruned = (
            self._give_up(self._trainer.settings.pruning, self._before),
            False,
        )
        for epoch, value in self._seen.items():
            self._look(epoch, value)
