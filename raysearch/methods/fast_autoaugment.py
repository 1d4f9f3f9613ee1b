"""Fast AutoAugment (Lim et al., NeurIPS 2019): policies that match the density of the data.

The training images are divided into K folds. For each, a network is trained without augmentation on
the others; then Optuna looks for policies, a few sub-policies of two operations each, with which
the fold's own images, augmented, are still classified well by that network, which does not change.
Where the data have a validation split of their own, policies are tried on that instead, as those of
all methods are. The best policies of every fold, merged, are the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from raysearch.methods._base import Context, Expected, Method
from raysearch.methods._folds import fold_splits
from raysearch.methods._matching import FoldTraining, Try
from raysearch.methods._rounds import SHOWN, RoundSearch, means, operation_figures, trial_id
from raysearch.methods._settings import Operations
from raysearch.methods._study import Choice, Range, Space, Studies, Study, Tried, ranked
from raysearch.methods._validated import Goal
from raysearch.policy import SubPolicies
from raysearch.protocol import Build, Metrics, Proposal, Values, Work
from raysearch.settings import Count, WholeNumber, wrong
from raysearch.training import Setup, Training, derive_seed

LENGTH = 2  # operations of a sub-policy


@dataclass(frozen=True)
class FastAutoAugment(Method):
    """The method; see the module's text.

    Attributes:
        operations: names of the operations.
        folds: K, at least 2.
        trials: policies tried on each fold in each of the `repeats`; the last round is filled up.
        repeats: searches on each fold, each from its beginning.
        keep: best policies of each of them that go into the result.
        sub_policies: of a policy.
        draws: how often each held-out image is augmented and classified.
        objective: what policies are judged by on them, the task's `metric` or the `loss`.
        sampler: Optuna's, `tpe` or `random`.
        startup_trials: policies at the beginning of each search that are drawn at random.
        parallel: policies of each fold that are tried between two proposals, on any machine as
            many.
    """

    title: ClassVar[str] = "Fast AutoAugment"
    operations: Operations
    folds: Annotated[int, Field(ge=2)]
    trials: Count
    repeats: Count
    keep: Count
    sub_policies: Count
    draws: Count
    objective: Goal
    sampler: Literal["tpe", "random"]
    startup_trials: WholeNumber
    parallel: Count

    def __post_init__(self) -> None:
        if self.keep > self.trials:
            raise wrong("method.keep", self.keep, f"at most method.trials={self.trials}")

    @property
    def rounds(self) -> int:
        """Rounds of a repeat, in each of which every fold has `parallel` policies tried."""
        return -(-self.trials // self.parallel)

    @property
    def space(self) -> Space:
        """Operation, probability and magnitude of every place in a policy."""
        space: dict[str, Choice | Range] = {}
        for place in self._places():
            space[f"operation{place}"] = Choice(self.operations)
            space[f"probability{place}"] = Range(0.0, 1.0)
            space[f"magnitude{place}"] = Range(0.0, 1.0)
        return space

    def _places(self) -> list[str]:
        return [f"_{i}_{k}" for i in range(self.sub_policies) for k in range(LENGTH)]

    def policy(self, chosen: Sequence[Mapping[str, Any]]) -> SubPolicies:
        """The sub-policies of some policies, all alike."""
        names, *numbers = (
            [params[f"{key}{place}"] for params in chosen for place in self._places()]
            for key in ("operation", "probability", "magnitude")
        )
        pairs = [names[i : i + LENGTH] for i in range(0, len(names), LENGTH)]
        probabilities, magnitudes = torch.tensor(numbers, dtype=torch.float64)
        shape = (-1, LENGTH)
        return SubPolicies(
            pairs, torch.ones(len(pairs)), probabilities.reshape(shape), magnitudes.reshape(shape)
        )

    def search(self, seed: int, context: Context) -> FastAutoAugmentSearch:
        """See `FastAutoAugmentSearch`."""
        return FastAutoAugmentSearch(seed, self, context.studies)

    def build(self, setup: Setup, context: Context) -> Build:
        """Makes the folds' trainings, and tries of policies; keeps the networks that these need."""
        folds, val = fold_splits(setup, self.folds), setup.dataset.val
        networks: dict[str, nn.Module] = {}

        def built(proposal: Proposal, files: Mapping[str, Values]) -> Work:
            values = proposal.values
            others, fold = folds[values["fold"]]
            held_out = fold if val is None else val
            if "params" not in values:
                training = Training(setup, context.search, None, False, split=others)
                return FoldTraining(training, held_out)
            [id] = proposal.needs
            if id not in networks:
                networks[id] = setup.build_model()
                networks[id].load_state_dict(files[id]["model"])
            return Try(
                setup,
                networks[id],
                held_out,
                policy=self.policy([values["params"]]),
                seed=values["seed"],
                draws=self.draws,
                by=self.objective,
            )

        return built

    def forecast(self, setup: Setup, context: Context) -> Expected:
        """The networks' trainings, and the policies' passes over what they are tried on."""
        data, images = setup.dataset, len(setup.dataset.train)
        tried_on = images / self.folds if data.val is None else len(data.val)
        tries = self.folds * self.repeats * self.rounds * self.parallel
        trained = self.folds * context.epochs * images * (1 - 1 / self.folds)
        passes = self.folds + tries * self.draws
        return Expected(
            (trained + passes * tried_on / 3) / len(setup.search_splits()[0]),
            self.folds + tries,
            self.folds * self.parallel,
            f"{self.folds} networks, then {tries} policies tried on them",
        )


class FastAutoAugmentSearch(RoundSearch):
    """A study for each fold and repeat; see the module's text.

    The first round trains the folds' networks. In each one after that every fold has its next
    `parallel` policies tried. A fold whose network failed is left out.
    """

    def __init__(self, seed: int, settings: FastAutoAugment, studies: Studies) -> None:
        self.settings = s = settings
        super().__init__(seed, 1 + s.repeats * s.rounds)  # the networks' and the policies'
        self.studies = {
            (repeat, fold): studies.study(
                f"seed {seed} fold {fold + 1} search {repeat + 1}",
                s.space,
                derive_seed(seed, "fold", fold, repeat),
                s.sampler,
                s.startup_trials,
            )
            for repeat in range(s.repeats)
            for fold in range(s.folds)
        }
        self._folds = list(range(s.folds))  # those that have a network
        self._trained: Metrics = {}  # train_loss and lr of the networks

    def propose(self) -> Sequence[Proposal]:
        """A network for each fold, or policies to try on each fold's network."""
        if not self.round:
            return [Proposal(trial_id(1, fold), 0, {"fold": fold}) for fold in self._folds]
        return [
            self._try(fold, index, params)
            for fold, study in self._current().items()
            for index, params in enumerate(study.propose(self.settings.parallel))
        ]

    def _try(self, fold: int, index: int, params: Mapping[str, Any]) -> Proposal:
        id = trial_id(self.round + 1, fold * self.settings.parallel + index)
        seed = derive_seed(self.seed, "try", id)
        values = {"fold": fold, "params": dict(params), "seed": seed}
        return Proposal(id, self.round, values, (trial_id(1, fold),))

    def _current(self) -> dict[int, Study]:
        """The folds' studies of the repeat that is going on."""
        repeat = (self.round - 1) // self.settings.rounds
        return {fold: self.studies[repeat, fold] for fold in self._folds}

    def end_round(self, answers: Sequence[Values | None]) -> Sequence[Metrics]:
        """Tell the studies."""
        found = means(answers)
        if not self.round:
            self._folds = [fold for fold, one in enumerate(answers) if one is not None]
            self._trained = {key: found[key] for key in SHOWN if key in found}
        else:
            tried = [
                Tried(one.values["params"], None, failed=True)
                if answer is None
                else Tried(one.values["params"], float(answer["cost"]))
                for one, answer in zip(self.proposals, answers, strict=True)
            ]
            each = self.settings.parallel
            for place, study in enumerate(self._current().values()):
                study.tell(tried[place * each : (place + 1) * each])
        figures = operation_figures(self.policy(), self.settings.operations)
        return [self.row({**self._trained, **found, **figures})]

    def policy(self) -> SubPolicies:
        """The best policies so far of every fold; before there are any, all pairs alike."""
        tried = [
            one.params
            for study in self.studies.values()
            for one in ranked(study.tried)[: self.settings.keep]
            if not one.failed
        ]
        if not tried:
            return SubPolicies.pairs(self.settings.operations)
        return self.settings.policy(tried)

    def state_dict(self) -> dict[str, Any]:
        """The studies besides."""
        return {
            **super().state_dict(),
            "studies": [study.state_dict() for study in self.studies.values()],
            "folds": list(self._folds),
            "trained": dict(self._trained),
        }

    def load_state_dict(self, state: Values) -> None:
        """Go on from `state_dict`."""
        super().load_state_dict(state)
        self._folds, self._trained = list(state["folds"]), dict(state["trained"])
        for study, kept in zip(self.studies.values(), state["studies"], strict=True):
            study.load_state_dict(kept)


METHOD = FastAutoAugment
