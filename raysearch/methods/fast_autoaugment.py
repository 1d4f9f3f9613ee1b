"""Fast AutoAugment (Lim et al., NeurIPS 2019): policies that match the density of the data.

The training images are divided into K folds. For each, a network is trained without augmentation on
the others; then Optuna looks for policies, a few sub-policies of two operations each, with which
the fold's own images, augmented, are still classified well by that network, which does not change.
Where the data have a validation split of their own, policies are tried on that instead, as those of
all methods are. The best policies of every fold, merged, are the result.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from torch import Tensor, nn

from raysearch.data import Split
from raysearch.errors import RaysearchError
from raysearch.methods._settings import MethodSettings
from raysearch.methods._shared import validated
from raysearch.methods._study import Study, Tried
from raysearch.methods._trials import Proposal, RoundSearch, Values, file_of, mean_of
from raysearch.policy import SubPolicies
from raysearch.states import load, save_whole
from raysearch.training import Setup, Training, derive_seed, evaluate, validation_cost

LENGTH = 2  # operations of a sub-policy
SAVED = 10  # epochs between two savings of a network's training


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

    @property
    def space(self) -> dict[str, BaseDistribution]:
        """Operation, probability and magnitude of every place in a policy."""
        space: dict[str, BaseDistribution] = {}
        for place in self._places():
            space[f"operation{place}"] = CategoricalDistribution(self.operations)
            space[f"probability{place}"] = FloatDistribution(0.0, 1.0)
            space[f"magnitude{place}"] = FloatDistribution(0.0, 1.0)
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


class FastAutoAugment(RoundSearch):
    """The driver's part: a study for each fold and repeat; see the module's text.

    The first round trains the folds' networks. In each one after that every fold has its next
    `parallel` policies tried.
    """

    def __init__(self, seed: int, method: Values, training: Values) -> None:
        super().__init__(seed)
        self.settings = s = FastAutoAugmentSettings.of(method)
        self._each: int = training["parallel"]
        self._epochs: int = training["epochs"]
        self._studies = {
            (repeat, fold): Study(
                f"seed {seed} fold {fold + 1} search {repeat + 1}",
                s.space,
                derive_seed(seed, "fold", fold, repeat),
                s.sampler,
                s.startup_trials,
            )
            for repeat in range(s.repeats)
            for fold in range(s.folds)
        }
        self._proposed: list[dict[str, Any]] = []
        self._trained: dict[str, float] = {}  # train_loss and lr of the networks

    @property
    def rounds(self) -> int:  # type: ignore[override]
        """The networks' and the policies'."""
        return 1 + self.settings.repeats * self._per_repeat

    @property
    def _per_repeat(self) -> int:
        return -(-self.settings.trials // self._each)

    @classmethod
    def group(cls, at_once: int, method: Values) -> int:
        """So many policies of each fold that there is one for all that run at the same time."""
        return math.ceil(at_once / FastAutoAugmentSettings.of(method).folds)

    @classmethod
    def worker(cls, setup: Setup, method: Values, training: Values, prepared: Values) -> Matcher:
        """Trains networks, and tries policies on them."""
        return Matcher(setup, FastAutoAugmentSettings.of(method), training)

    @property
    def trainings(self) -> int:
        """The networks."""
        return self.settings.folds

    @property
    def proposals(self) -> int:
        """The policies too."""
        s = self.settings
        return s.folds * (1 + s.repeats * self._per_repeat * self._each)

    @property
    def files(self) -> int:
        """The networks."""
        return self.settings.folds

    def equivalents(self, setup: Setup) -> float:
        """The networks' trainings, and the policies' passes over what they are tried on."""
        s, data = self.settings, setup.dataset
        images, unit = len(data.train), len(setup.search_splits()[0])
        tried_on = images / s.folds if data.val is None else len(data.val)
        trained = s.folds * self._epochs * images * (1 - 1 / s.folds)
        passes = s.folds + (self.proposals - s.folds) * s.draws
        return (trained + passes * tried_on / 3) / unit

    def describe(self) -> str:
        """What it will ask for."""
        folds = self.settings.folds
        return f"{folds} networks, then {self.proposals - folds} policies tried on them"

    def policy(self) -> SubPolicies:
        """The best policies so far of every fold; before there are any, all pairs alike."""
        tried = [
            one.params
            for study in self._studies.values()
            for one in study.ranked()[: self.settings.keep]
        ]
        if not tried:
            return SubPolicies.pairs(self.settings.operations)
        return self.settings.policy(tried)

    def size(self) -> int:
        """A training for each fold, then policies for each."""
        return self.settings.folds * (self._each if self.round else 1)

    def values(self, index: int, id_: str) -> Values:
        """Which fold's network to train, or which policy to try on it."""
        if not self.round:
            return {"fold": index}
        fold = index // self._each
        return {
            "fold": fold,
            "params": json.dumps(self._proposals()[index]),
            "network": self._networks()[fold],
            "seed": derive_seed(self.seed, "try", id_),
        }

    def _networks(self) -> list[str]:
        """The proposals that trained the folds' networks."""
        return [f"0001-{fold + 1:02d}" for fold in range(self.settings.folds)]

    def needed(self) -> Collection[str]:
        """The networks, until the end."""
        return () if self.finished else self._networks()

    def _current(self) -> list[Study]:
        """The folds' studies of the repeat that is going on."""
        repeat = (self.round - 1) // self._per_repeat
        return [self._studies[repeat, fold] for fold in range(self.settings.folds)]

    def _proposals(self) -> list[dict[str, Any]]:
        """The round's policies, made once; a continued search makes the same."""
        self._proposed = self._proposed or [
            params for study in self._current() for params in study.propose(self._each)
        ]
        return self._proposed

    def end_round(self, answers: Sequence[Values]) -> dict[str, float]:
        """Tell the studies."""
        found = mean_of(answers, "val_loss", "val_error")
        if not self.round:
            self._trained = mean_of(answers, "train_loss", "lr")
        else:
            proposed = self._proposals()
            key = f"val_{self.settings.objective}"
            for fold, study in enumerate(self._current()):
                part = slice(fold * self._each, (fold + 1) * self._each)
                pairs = zip(proposed[part], answers[part], strict=True)
                study.tell([Tried(params, float(one[key])) for params, one in pairs])
            self._proposed = []
        return {**self._trained, **found, **self._figures()}

    def _figures(self) -> dict[str, float]:
        """Each operation's share, and how far they are from alike."""
        shares = self.policy().marginals()
        entropy = -sum(share * math.log(share) for share in shares.values() if share > 0)
        return {
            "entropy": entropy,
            "kl_uniform": math.log(len(self.settings.operations)) - entropy,
            **{f"share/{name}": shares.get(name, 0.0) for name in self.settings.operations},
        }

    def keep_record(self, folder: Path) -> None:
        """Optuna's storage; see `Study.keep_record`."""
        for study in self._studies.values():
            study.keep_record(folder)

    def state_dict(self) -> dict[str, Any]:
        """The studies besides."""
        studies = [study.state_dict() for study in self._studies.values()]
        own = {"studies": studies, "each": self._each, "trained": dict(self._trained)}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Values) -> None:
        """Continue from `state_dict`."""
        super().load_state_dict(state)
        self._each, self._trained = state["each"], dict(state["trained"])
        self._proposed = []
        for study, kept in zip(self._studies.values(), state["studies"], strict=True):
            study.load_state_dict(kept)


class Matcher:
    """The worker's part.

    Args:
        setup: data, network, device and seed.
        settings: the method's.
        training: the fields of `SGDSettings`, for the networks.
    """

    def __init__(self, setup: Setup, settings: FastAutoAugmentSettings, training: Values) -> None:
        self.setup, self.settings, self._sgd = setup, settings, training
        self._all = setup.dataset.train  # all of it, where the data have no validation split
        self._unit = setup.search_splits()[0]
        seed = derive_seed(setup.seed, "folds")
        self._folds = stratified_folds(self._all.labels, settings.folds, seed)
        self._networks: dict[str, nn.Module] = {}

    def __call__(self, proposal: Proposal, folder: Path) -> dict[str, Any]:
        """Train a fold's network, or try a policy on it.

        Returns:
            `val_error` (percent) and `val_loss` on the fold, of a training as it is and else
            augmented; `train_loss` and `lr` of a training; `epoch_equivalents`.
        """
        values = proposal.values
        held_out = self._held_out(values["fold"])
        if "params" not in values:
            return self._train(values["fold"], held_out, file_of(folder, proposal.id))
        model = self._network(file_of(folder, values["network"]))
        policy = self.settings.policy([json.loads(values["params"])])
        generator = torch.Generator().manual_seed(values["seed"])
        found = [
            evaluate(model, self.setup, held_out, before=lambda x: policy(x, generator))
            for _ in range(self.settings.draws)
        ]
        return {
            "val_error": sum(one["error"] for one in found) / len(found),
            "val_loss": sum(one["loss"] for one in found) / len(found),
            "epoch_equivalents": len(found) * validation_cost(self._unit, held_out),
        }

    def _held_out(self, fold: int) -> Split:
        """What policies are tried on with the network that does not know it."""
        val = self.setup.dataset.val
        return self._all.subset(self._folds[fold]) if val is None else val

    def _train(self, fold: int, held_out: Split, path: Path) -> dict[str, Any]:
        others = [own for i, own in enumerate(self._folds) if i != fold]
        split = self._all.subset(torch.cat(others).sort().values)
        training = Training(self.setup, self._sgd, None, False, split=split)
        metrics: dict[str, float] = {}
        if path.exists():
            kept = load(path)
            training.load_state_dict(kept["training"])
            metrics = dict(kept["metrics"])
        while training.epoch < training.epochs:
            metrics = training.step()
            if training.epoch % SAVED == 0 or training.epoch == training.epochs:
                save_whole(path, {"training": training.state_dict(), "metrics": metrics})
        error, loss = validated(training.model, self.setup, held_out, training.epoch)
        cost = metrics["epoch_equivalents"] + validation_cost(self._unit, held_out)
        return {**metrics, "val_error": error, "val_loss": loss, "epoch_equivalents": cost}

    def _network(self, path: Path) -> nn.Module:
        """A fold's network, read once."""
        if path.stem not in self._networks:
            if not path.exists():
                raise RaysearchError(f"{path} is missing: a network that the search trained")
            model = self.setup.build_model()
            model.load_state_dict(load(path)["training"]["model"])
            self._networks[path.stem] = model
        return self._networks[path.stem]


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
