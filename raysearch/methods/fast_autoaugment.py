"""Fast AutoAugment (Lim et al., NeurIPS 2019): policies that match the density of the data.

The training images are divided into K folds. For each, a network is trained without augmentation on
the others; then Optuna looks for policies, a few sub-policies of two operations each, with which
the fold's own images, augmented, are still classified well by that network, which does not change.
Where the data have a validation split of their own, policies are tried on that instead, as those of
all methods are. The best policies of every fold, merged, are the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from raysearch.data import Split
from raysearch.errors import NonFiniteLossError, RaysearchError
from raysearch.methods._base import Expected, Groups, Method
from raysearch.methods._rounds import RoundSearch, mean_of, snapshot, trial_id
from raysearch.methods._settings import MethodSettings
from raysearch.methods._shared import validated
from raysearch.methods._study import Choice, GiveUp, Range, Space, Studies, Study, Tried, ranked
from raysearch.policy import SubPolicies
from raysearch.protocol import Answer, Metrics, Proposal, Values, Work
from raysearch.training import Setup, Training, derive_seed, evaluate, validation_cost

LENGTH = 2  # operations of a sub-policy


@dataclass(frozen=True)
class FastAutoAugmentSettings(MethodSettings):
    """Settings.

    Attributes:
        operations: names of the operations.
        folds: K, at least 2.
        trials: policies tried on each fold in each of the `repeats`; the last round is filled up.
        repeats: searches on each fold, each from its beginning.
        keep: best policies of each of them that go into the result.
        sub_policies: of a policy.
        draws: how often each held-out image is augmented and classified.
        objective: what is minimised on them, `error` (percent) or `loss`.
        sampler: Optuna's, `tpe` or `random`.
        startup_trials: policies at the beginning of each search that are drawn at random.
        parallel: policies of each fold that are tried between two proposals; None is as many as
            fit at once.
    """

    operations: tuple[str, ...]
    folds: int
    trials: int
    repeats: int
    keep: int
    sub_policies: int
    draws: int
    objective: Literal["error", "loss"]
    sampler: Literal["tpe", "random"]
    startup_trials: int
    parallel: int | None

    def conditions(self) -> Iterable[tuple[str, bool, str]]:
        """The values that each number may take."""
        counts = ("trials", "repeats", "keep", "sub_policies", "draws")
        return (
            ("folds", self.folds >= 2, "at least 2"),
            *((key, getattr(self, key) >= 1, "at least 1") for key in counts),
            ("startup_trials", self.startup_trials >= 0, "at least 0"),
            ("parallel", self.parallel is None or self.parallel >= 1, "at least 1, or nothing"),
            ("keep", self.keep <= self.trials, f"at most method.trials={self.trials}"),
        )

    def rounds(self, each: int) -> int:
        """Rounds of a repeat, in each of which every fold has so many policies tried."""
        return -(-self.trials // each)

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
        places = self._places()
        shape = (-1, LENGTH)

        def numbers(key: str) -> Tensor:
            rows = [[params[f"{key}{place}"] for place in places] for params in chosen]
            return torch.tensor(rows, dtype=torch.float64).reshape(shape)

        names = [params[f"operation{place}"] for params in chosen for place in places]
        pairs = [names[i : i + LENGTH] for i in range(0, len(names), LENGTH)]
        return SubPolicies(
            pairs, torch.ones(len(pairs)), numbers("probability"), numbers("magnitude")
        )


class FastAutoAugment(Method):
    """See the module's text."""

    @classmethod
    def search(
        cls, seed: int, groups: Groups, studies: Studies | None = None
    ) -> FastAutoAugmentSearch:
        """See `FastAutoAugmentSearch`."""
        if studies is None:
            raise TypeError(f"{cls.__name__} needs studies")
        return FastAutoAugmentSearch(seed, groups, studies)

    @classmethod
    def build(cls, setup: Setup, groups: Groups, give_up: GiveUp | None = None) -> Matcher:
        """See `Matcher`."""
        return Matcher(setup, groups)

    @classmethod
    def parallel(cls, at_once: int, groups: Groups) -> int:
        """Policies of each fold in a round: one for all that run at the same time."""
        settings = FastAutoAugmentSettings.of(groups.method)
        return settings.parallel or math.ceil(at_once / settings.folds)

    @classmethod
    def forecast(cls, setup: Setup, groups: Groups) -> Expected:
        """The networks' trainings, and the policies' passes over what they are tried on."""
        s, data = FastAutoAugmentSettings.of(groups.method), setup.dataset
        epochs, images = int(groups.search["epochs"]), len(data.train)
        tried_on = images / s.folds if data.val is None else len(data.val)
        tries = s.folds * s.repeats * s.rounds(groups.parallel) * groups.parallel
        trained = s.folds * epochs * images * (1 - 1 / s.folds)
        passes = s.folds + tries * s.draws
        return Expected(
            (trained + passes * tried_on / 3) / len(setup.search_splits()[0]),
            s.folds + tries,
            epochs,
            s.folds,
            f"{s.folds} networks, then {tries} policies tried on them",
        )


class FastAutoAugmentSearch(RoundSearch):
    """A study for each fold and repeat; see the module's text.

    The first round trains the folds' networks. In each one after that every fold has its next
    `parallel` policies tried. A fold whose network failed is left out.

    Args:
        seed: everything random follows from it.
        groups: the settings.
        studies: makes the studies.
    """

    def __init__(self, seed: int, groups: Groups, studies: Studies) -> None:
        super().__init__()
        self.seed = seed
        self.settings = s = FastAutoAugmentSettings.of(groups.method)
        self._each = groups.parallel
        self.studies = {
            (repeat, fold): studies(
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

    @property
    def rounds(self) -> int:  # type: ignore[override]
        """The networks' and the policies'."""
        return 1 + self.settings.repeats * self.settings.rounds(self._each)

    def propose(self) -> Sequence[Proposal]:
        """A network for each fold, or policies to try on each fold's network."""
        if not self.round:
            return [Proposal(trial_id(1, fold), 0, {"fold": fold}) for fold in self._folds]
        return [
            self._try(fold, index, params)
            for fold, study in self._current().items()
            for index, params in enumerate(study.propose(self._each))
        ]

    def _try(self, fold: int, index: int, params: Mapping[str, Any]) -> Proposal:
        id = trial_id(self.round + 1, fold * self._each + index)
        seed = derive_seed(self.seed, "try", id)
        values = {"fold": fold, "params": dict(params), "seed": seed}
        return Proposal(id, self.round, values, (trial_id(1, fold),))

    def _current(self) -> dict[int, Study]:
        """The folds' studies of the repeat that is going on."""
        repeat = (self.round - 1) // self.settings.rounds(self._each)
        return {fold: self.studies[repeat, fold] for fold in self._folds}

    def end_round(self, answers: Sequence[Values | None]) -> Sequence[Metrics]:
        """Tell the studies."""
        if not self.round:
            self._folds = [fold for fold, one in enumerate(answers) if one is not None]
            self._trained = mean_of(answers, "train_loss", "lr")
        else:
            pairs = list(zip(self.proposals, answers, strict=True))
            for place, study in enumerate(self._current().values()):
                part = pairs[place * self._each : (place + 1) * self._each]
                study.tell([self._tried(proposal, answer) for proposal, answer in part])
        found = mean_of(answers, "val_loss", "val_error")
        return [self.row({**self._trained, **found, **self._figures()})]

    def _tried(self, proposal: Proposal, answer: Values | None) -> Tried:
        params = proposal.values["params"]
        if answer is None:
            return Tried(params, None, failed=True)
        return Tried(params, float(answer[f"val_{self.settings.objective}"]))

    def _figures(self) -> Metrics:
        """Each operation's share, and how far they are from alike."""
        shares = self.policy().marginals()
        entropy = -sum(share * math.log(share) for share in shares.values() if share > 0)
        return {
            "entropy": entropy,
            "kl_uniform": math.log(len(self.settings.operations)) - entropy,
            **{f"share/{name}": shares.get(name, 0.0) for name in self.settings.operations},
        }

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
            "each": self._each,
            "folds": list(self._folds),
            "trained": dict(self._trained),
        }

    def load_state_dict(self, state: Values) -> None:
        """Go on from `state_dict`; a round's size is that with which the search began."""
        super().load_state_dict(state)
        self._each, self._trained = state["each"], dict(state["trained"])
        self._folds = list(state["folds"])
        for study, kept in zip(self.studies.values(), state["studies"], strict=True):
            study.load_state_dict(kept)


class Matcher:
    """Makes the folds' trainings, and tries of policies; keeps the networks that these need.

    Args:
        setup: data, network, device and seed.
        groups: the settings.
    """

    def __init__(self, setup: Setup, groups: Groups) -> None:
        self.setup, self._search = setup, groups.search
        self.settings = FastAutoAugmentSettings.of(groups.method)
        self._all = setup.dataset.train  # all of it, where the data have no validation split
        self._unit = setup.search_splits()[0]
        seed = derive_seed(setup.seed, "folds")
        self._folds = stratified_folds(self._all.labels, self.settings.folds, seed)
        self._networks: dict[str, nn.Module] = {}

    def __call__(self, proposal: Proposal, files: Mapping[str, Values]) -> Work:
        """A training without a fold, or a try of a policy on it."""
        fold = proposal.values["fold"]
        held_out = self._held_out(fold)
        cost = validation_cost(self._unit, held_out)
        if "params" not in proposal.values:
            others = [own for i, own in enumerate(self._folds) if i != fold]
            split = self._all.subset(torch.cat(others).sort().values)
            training = Training(self.setup, self._search, None, False, split=split)
            return FoldTraining(training, held_out, cost)
        [network] = proposal.needs
        if network not in self._networks:
            model = self.setup.build_model()
            model.load_state_dict(files[network]["model"])
            self._networks[network] = model
        return Try(self, self._networks[network], held_out, cost, proposal.values)

    def _held_out(self, fold: int) -> Split:
        """What policies are tried on with the network that does not know it."""
        val = self.setup.dataset.val
        return self._all.subset(self._folds[fold]) if val is None else val


class FoldTraining:
    """The training of a fold's network, validated on the fold at the end, as work.

    Args:
        training: on the other folds, without augmentation.
        held_out: the fold.
        cost: of a pass over it, in epoch-equivalents.
    """

    def __init__(self, training: Training, held_out: Split, cost: float) -> None:
        self.training, self._held_out, self._cost = training, held_out, cost
        self.epochs = training.epochs
        self._metrics: Metrics = {}

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return self.training.epoch

    def step(self) -> Metrics:
        """One epoch; validated after the last."""
        training, metrics = self.training, self.training.step()
        if training.epoch == training.epochs:
            error, loss = validated(training.model, training.setup, self._held_out, self.epoch)
            cost = metrics["epoch_equivalents"] + self._cost
            metrics |= {"val_error": error, "val_loss": loss, "epoch_equivalents": cost}
        self._metrics = metrics
        return dict(metrics)

    def answer(self) -> Answer:
        """The metrics of the last epoch; the network is the file."""
        return Answer(
            dict(self._metrics), file={"model": snapshot(self.training.model.state_dict())}
        )

    def state_dict(self) -> dict[str, Any]:
        """The training's, and the last metrics."""
        return {"training": self.training.state_dict(), "metrics": dict(self._metrics)}

    def load_state_dict(self, state: Values) -> None:
        """Continue from `state_dict`."""
        self.training.load_state_dict(state["training"])
        self._metrics = dict(state["metrics"])


class Try:
    """A policy tried on held-out images, which it augments: work of one step.

    Args:
        matcher: the setup, and the settings.
        model: the network; does not change.
        held_out: the images.
        cost: of a pass over them, in epoch-equivalents.
        values: the proposal's: `params` of the policy, and a `seed`.
    """

    epochs = 1

    def __init__(
        self, matcher: Matcher, model: nn.Module, held_out: Split, cost: float, values: Values
    ) -> None:
        self._matcher, self._model, self._held_out = matcher, model, held_out
        self._cost, self._values = cost, values
        self._metrics: Metrics = {}

    @property
    def epoch(self) -> int:
        """1 when it is done."""
        return int(bool(self._metrics))

    def step(self) -> Metrics:
        """All draws; `val_error` (percent) and `val_loss`, their means, and the cost."""
        settings, setup = self._matcher.settings, self._matcher.setup
        policy = settings.policy([self._values["params"]])
        generator = torch.Generator().manual_seed(self._values["seed"])
        found = [
            evaluate(self._model, setup, self._held_out, before=lambda x: policy(x, generator))
            for _ in range(settings.draws)
        ]
        errors, losses = zip(*found, strict=True)
        loss = sum(losses) / len(losses)
        if not math.isfinite(loss):
            raise NonFiniteLossError("validation", 1, 1)
        self._metrics = {
            "val_error": sum(errors) / len(errors),
            "val_loss": loss,
            "epoch_equivalents": len(found) * self._cost,
        }
        return dict(self._metrics)

    def answer(self) -> Answer:
        """What the step returned."""
        return Answer(dict(self._metrics))

    def state_dict(self) -> dict[str, Any]:
        """What was found."""
        return {"metrics": dict(self._metrics)}

    def load_state_dict(self, state: Values) -> None:
        """Continue from `state_dict`."""
        self._metrics = dict(state["metrics"])


def stratified_folds(labels: Tensor, count: int, seed: int) -> list[Tensor]:
    """Divide images into folds, each class spread evenly over them.

    Args:
        labels: int64 [N].
        count: of folds.
        seed: decides which images go where.

    Returns:
        Indices of each fold, int64, ascending.

    Raises:
        RaysearchError: there are fewer images than folds.
    """
    if len(labels) < count:
        raise RaysearchError(f"method.folds={count}: there are only {len(labels)} images")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels.cpu()[order].sort(stable=True).indices]  # by class, at random within it
    fold = torch.empty_like(order)
    fold[order] = torch.arange(len(order)) % count
    return [(fold == i).nonzero()[:, 0] for i in range(count)]


METHOD = FastAutoAugment
