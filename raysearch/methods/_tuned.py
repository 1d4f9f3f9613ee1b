"""Policies of a few numbers, tuned over full trainings: what a search has to be cheaper than."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from raysearch.data import Split
from raysearch.methods._base import Context, Expected, Method
from raysearch.methods._rounds import RoundSearch, means, trial_id
from raysearch.methods._study import Pruning, Space, Studies, Tried, Watch, packed, ranked
from raysearch.methods._validated import Goal, ValidatedTraining, cost
from raysearch.policy import Policy
from raysearch.protocol import Answer, Build, Metrics, Proposal, Values
from raysearch.settings import Count, WholeNumber
from raysearch.training import Setup, Training, validation_cost


@dataclass(frozen=True)
class Tuned(Method):
    """A method whose policies are made of a few parameters, which Optuna chooses.

    The best training's policy is the result. Every training of a search starts from the same
    weights and sees the images in the same order: they differ in the policy alone.

    Attributes:
        trials: trainings in all, at least 1; the last round is filled up.
        parallel: trainings that run between two proposals, on any machine as many: what is proposed
            later has seen more.
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
    parallel: Count
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

    @property
    def space(self) -> Space:
        """The parameters that are chosen."""
        raise NotImplementedError

    def policy(self, params: Mapping[str, Any]) -> Policy:
        """The policy that parameters stand for."""
        raise NotImplementedError

    @property
    def rounds(self) -> int:
        """In each of which as many trainings run as between two proposals."""
        return -(-self.trials // self.parallel)

    def search(self, seed: int, context: Context) -> TunedSearch:
        """Has the study propose trainings."""
        return TunedSearch(seed, self, context.studies)

    def build(self, setup: Setup, context: Context) -> Build:
        """Makes whole trainings."""
        train, val = setup.search_splits()

        def built(proposal: Proposal, files: Mapping[str, Values]) -> TunedTraining:
            policy = self.policy(proposal.values["params"])
            training = Training(setup, context.search, policy, True, split=train)
            watch = context.studies.watch(self.pruning, bytes(proposal.values["before"]))
            return TunedTraining(training, val, self, watch)

        return built

    def forecast(self, setup: Setup, context: Context) -> Expected:
        """As if none were given up; validated after every interval, and at the end."""
        looks, trials = -(-context.epochs // self.interval), self.rounds * self.parallel
        each = context.epochs + looks * validation_cost(*map(len, setup.search_splits()))
        words = f"{trials} trials, {self.parallel} between two proposals"
        return Expected(trials * each, trials, self.parallel, words)


class TunedSearch(RoundSearch):
    """Asks for trainings with the parameters that a study proposes.

    Args:
        seed: everything random follows from it.
        settings: the method.
        studies: makes the study.
    """

    def __init__(self, seed: int, settings: Tuned, studies: Studies) -> None:
        super().__init__(seed, settings.rounds)
        self.settings = s = settings
        self.study = studies.study(f"seed {seed}", s.space, seed, s.sampler, s.startup_trials)

    def propose(self) -> Sequence[Proposal]:
        """Parameters, and what the pruner has to know."""
        before = packed(self.study.tried)
        return [
            Proposal(
                trial_id(self.round + 1, index), self.round, {"params": params, "before": before}
            )
            for index, params in enumerate(self.study.propose(self.settings.parallel))
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
        return self.settings.policy(params)

    def state_dict(self) -> dict[str, Any]:
        """The study besides."""
        return {**super().state_dict(), "study": self.study.state_dict()}

    def load_state_dict(self, state: Values) -> None:
        """Go on from `state_dict`."""
        super().load_state_dict(state)
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


class TunedTraining(ValidatedTraining):
    """A training that is validated every interval and may be given up then, as work.

    Args:
        training, val: see `ValidatedTraining`.
        settings: the method's.
        watch: over the training, at its beginning.
    """

    def __init__(self, training: Training, val: Split, settings: Tuned, watch: Watch) -> None:
        super().__init__(training, val, every=settings.interval)
        self._by, self._watch = settings.objective, watch
        self._seen: dict[int, float] = {}  # what is minimised, after some of the epochs

    def step(self) -> Metrics:
        """One epoch; where it is looked at the validation images, it may be the last."""
        metrics = super().step()
        self._look(self.epoch)
        return metrics

    def _look(self, epoch: int) -> None:
        row = self.rows[epoch - 1]
        if "val_loss" not in row:
            return
        self._seen[epoch] = cost(self._by, row, self.training.setup.task.metric)
        if self._watch.hopeless(epoch, self._seen[epoch]):
            self.epochs = epoch

    def answer(self) -> Answer:
        """How it went.

        Its values are `seen`, what is minimised, after some of the epochs; `pruned`, whether it was
        given up; `rungs`, see `Tried`; `val_loss` and the task's other figures, which were seen
        last; `train_loss`, `lr` and `epoch_equivalents`.
        """
        pruned = self.epochs < self.training.epochs
        rungs = self._watch.rungs()
        return Answer({**self.metrics, "seen": self._seen, "pruned": pruned, "rungs": rungs})

    def load_state_dict(self, state: Values) -> None:
        """Continue from `state_dict`; the watch looks at what was seen once more."""
        super().load_state_dict(state)
        for epoch in range(1, len(self.rows) + 1):
            self._look(epoch)
