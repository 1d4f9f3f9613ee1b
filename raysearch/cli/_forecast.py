"""A run's trials and what they cost, before they are run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from raysearch.cli import _timing
from raysearch.cli._plan import Place, Plan
from raysearch.cli._schema import TrainingSettings
from raysearch.cli._words import plural
from raysearch.methods import TrialSearch
from raysearch.training import validation_cost

PATIENCE = 10.0  # seconds that timing whole batches may take
TRIAL_SECONDS = 0.05  # a proposed trial's own overhead; see benchmarks/trial_overhead.py
INTERVAL_SECONDS = 0.05  # a member's own overhead in an interval, as measured on digits


@dataclass(frozen=True)
class Group:
    """Like trials.

    Attributes:
        stage: their stage.
        names: what they are called.
        count: how many they are.
        epochs: of each.
        place: what they hold; None when a running cluster decides.
        cost: of an epoch; None where it cannot be told.
    """

    stage: str
    names: list[str]
    count: int
    epochs: int
    place: Place | None
    cost: _timing.Cost | None


@dataclass(frozen=True)
class Forecast:
    """A run's trials, those that are alike together, with what they cost; times a few steps.

    Attributes:
        plan: the trials.
        places: what they hold; None when a running cluster decides.
        patience: seconds that timing whole batches may take, for each kind of trials; 0 is enough
            for the arithmetic.
    """

    plan: Plan
    places: Mapping[str, Place] | None
    patience: float = PATIENCE

    def groups(self) -> Iterator[Group]:
        """The trials, stage by stage."""
        plan, settings = self.plan, self.plan.configuration.settings
        for stage, trials, training, build in (
            ("shared", plan.shared, settings.search, _timing.search),
            ("search", plan.search, settings.search, _timing.search),
            ("evaluation", plan.evaluation, settings.evaluation, _timing.evaluation),
        ):
            if stage == "search" and plan.search and plan.trial_search is not None:
                yield self._proposed(plan.trial_search)
            elif stage == "search" and plan.members is not None:
                yield self._members()
            elif trials:
                cost = self._cost(training, build)
                if cost is not None and stage == "search":
                    cost = _with_warmup(cost, plan)
                held = "evaluation" if stage == "evaluation" else "search"
                place = self.places[held] if self.places else None
                names = [trial.name for trial in trials]
                yield Group(stage, names, len(trials), training.epochs, place, cost)

    def _proposed(self, trials: type[TrialSearch]) -> Group:
        """The trials of searches that propose them."""
        plan, places = self.plan, self.places
        values, settings = plan.configuration.values, plan.configuration.settings
        training = settings.finetune or settings.search
        place = places[plan.trials_group] if places else None
        parallel = plan.parallel(place.at_once if place else 1)
        search = trials(plan.search[0].seed, values["method"], plan.training(parallel))
        known = place is not None or plan.asked_parallel is not None
        each = search.describe() if known else "as many trials at a time as fit"
        names = [f"{trial.name}: {each}" for trial in plan.search]
        cost = self._cost(training, _timing.search) if known else None
        if cost is not None:
            # `cost` is that of an epoch of plain training with a policy
            epochs = search.trainings * training.epochs
            more = search.equivalents(plan.setting("cpu").setup(plan.search[0].seed)) / epochs
            overhead = TRIAL_SECONDS * search.proposals / epochs
            cost = _timing.Cost(cost.equivalents * more, cost.seconds * more + overhead)
        count = len(plan.search) * search.trainings
        return Group("search", names, count, training.epochs, place, cost)

    def _members(self) -> Group:
        """The members of populations, which validate at the end of every interval."""
        plan, places = self.plan, self.places
        settings, populations = plan.configuration.settings.search, plan.populations
        one = populations[plan.search[0].id]
        cost = self._cost(settings, _timing.member)
        if cost is not None:
            splits = plan.setting("cpu").setup(plan.search[0].seed).search_splits()
            more = 1 + validation_cost(*splits) / one.interval
            overhead = INTERVAL_SECONDS / one.interval
            cost = _timing.Cost(cost.equivalents * more, cost.seconds * more + overhead)
        names = [f"{trial.name}: {plural(one.size, 'member')}" for trial in plan.search]
        place = places["search"] if places else None
        if place is not None:  # populations run one after the other
            place = replace(place, at_once=min(place.at_once, one.size))
        return Group("search", names, one.size * len(plan.search), settings.epochs, place, cost)

    def _cost(self, settings: TrainingSettings, build: _timing.Build) -> _timing.Cost | None:
        return _timing.timed(self.plan, settings, build, self.patience)


def _with_warmup(cost: _timing.Cost, plan: Plan) -> _timing.Cost:
    """The mean over a search's epochs where the first only train the classifier."""
    share = float(plan.configuration.values["method"].get("warmup", 0.0))
    mean = share + (1 - share) * cost.equivalents
    return _timing.Cost(mean, cost.seconds * mean / cost.equivalents)
