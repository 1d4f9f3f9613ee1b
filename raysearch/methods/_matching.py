"""Fast AutoAugment's work: a network for each fold, and policies tried on what it does not know."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

<<<<<<< HEAD
from raysearch.data import Split, grouped_folds, strata
from raysearch.data._split import Index
=======
from raysearch.data import Split
>>>>>>> main
from raysearch.errors import NonFiniteLossError, RaysearchError
from raysearch.methods._validated import ValidatedTraining, cost, snapshot
from raysearch.protocol import Answer, Metrics, Values
from raysearch.training import Setup, evaluate, validation_cost

if TYPE_CHECKING:
    from raysearch.methods.fast_autoaugment import FastAutoAugmentSettings


<<<<<<< HEAD
class Matcher:
    """Makes the folds' trainings, and tries of policies; keeps the networks that these need.

    Args:
        setup: data, network, device and seed.
        settings: the method's.
        search: the fields of `SGDSettings` for the networks.
    """

    def __init__(self, setup: Setup, settings: FastAutoAugmentSettings, search: Values) -> None:
        self.setup, self.settings, self._search = setup, settings, search
        self._all = setup.dataset.train  # all of it, where the data have no validation split
        self._unit = setup.search_splits()[0]
        seed = derive_seed(setup.seed, "folds")
        self._folds = stratified_folds(
            strata(setup.task.stratum(self._all.targets)),
            self.settings.folds,
            seed,
            self._all.groups,
        )
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
        self.loop = training.loop
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
            metrics |= validated(training.model, training.setup, self._held_out, self.epoch)
            metrics["epoch_equivalents"] += self._cost
        self._metrics = metrics
        return dict(metrics)
=======
class FoldTraining(ValidatedTraining):
    """The training of a fold's network on the others, validated on the fold at the end, as work."""
>>>>>>> main

    def answer(self) -> Answer:
        """The metrics of the last epoch; the network is the file."""
        return Answer(self.metrics, file={"model": snapshot(self.training.model.state_dict())})


class Try:
    """A policy tried on held-out images, which it augments: work of one step.

    Args:
        setup: data, network, device and seed.
        settings: the method's.
        model: the network; does not change.
        held_out: the images.
        values: the proposal's: `params` of the policy, and a `seed`.
    """

    epochs = 1

    def __init__(
        self,
        setup: Setup,
        settings: FastAutoAugmentSettings,
        model: nn.Module,
        held_out: Split,
        values: Values,
    ) -> None:
        self._setup, self._settings = setup, settings
        self.model, self._held_out, self._values = model, held_out, values
        self._metrics: Metrics = {}

    @property
    def epoch(self) -> int:
        """1 when it is done."""
        return int(bool(self._metrics))

    def step(self) -> Metrics:
        """All draws; the means of their `val_loss` and other figures, and the cost."""
        settings, setup = self._settings, self._setup
        policy = settings.policy([self._values["params"]])
        generator = torch.Generator().manual_seed(self._values["seed"])
        found = [
            evaluate(self.model, setup, self._held_out, before=lambda x: policy(x, generator))
            for _ in range(settings.draws)
        ]
        means = {f"val_{key}": sum(one[key] for one in found) / len(found) for key in found[0]}
        if not math.isfinite(means["val_loss"]):
            raise NonFiniteLossError("validation", 1, 1)
        each = validation_cost(setup.search_images(), len(self._held_out))
        self._metrics = {**means, "epoch_equivalents": len(found) * each}
        return dict(self._metrics)

    def answer(self) -> Answer:
        """What the step returned, and `cost`, which is minimised."""
        by, metric = self._settings.objective, self._setup.task.metric
        return Answer({**self._metrics, "cost": cost(by, self._metrics, metric)})

    def state_dict(self) -> dict[str, Any]:
        """What was found."""
        return {"metrics": dict(self._metrics)}

    def load_state_dict(self, state: Values) -> None:
        """Continue from `state_dict`."""
        self._metrics = dict(state["metrics"])


def stratified_folds(
    labels: Tensor, count: int, seed: int, groups: Index | None = None
) -> list[Tensor]:
    """Divide images into folds, each class spread evenly over them.

    Args:
        labels: int64 [N].
        count: of folds.
        seed: decides which images go where.
        groups: which images belong together, int64 [N]; a group is in one fold.

    Returns:
        Indices of each fold, int64, ascending.

    Raises:
        RaysearchError: there are fewer images, or groups, than folds.
    """
    if groups is not None:
        folds = torch.from_numpy(grouped_folds(labels.cpu().numpy(), groups, count, seed))
        return [(folds == i).nonzero()[:, 0] for i in range(count)]
    if len(labels) < count:
        raise RaysearchError(f"method.folds={count}: there are only {len(labels)} images")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels.cpu()[order].sort(stable=True).indices]  # by class, at random within it
    fold = torch.empty_like(order)
    fold[order] = torch.arange(len(order)) % count
    return [(fold == i).nonzero()[:, 0] for i in range(count)]
