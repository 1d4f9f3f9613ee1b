"""Makes searches' work in a worker, from what was sent there; each is picklable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from raysearch import methods, tasks
from raysearch.errors import RaysearchError
from raysearch.methods import Groups
from raysearch.policy import Policy
from raysearch.training import Predefined, Setup, Training

if TYPE_CHECKING:
    from raysearch.data import Dataset
    from raysearch.protocol import Build, Proposal, Values
    from raysearch.tasks import Task

Model = str | Callable[..., torch.nn.Module]
"""A name that `raysearch.models.build` knows, or what builds a network with its arguments."""


@dataclass(frozen=True)
class Setting:
    """What all trials have in common, beside the data.

    Attributes:
        model: what they train.
        device: "cpu" or "cuda".
        predefined: the predefined augmentation, fields of `Predefined`.
        val_fraction: share of the train split that a search validates on.
        task: see `raysearch.tasks.names`; None is as the data have it.
        metric: what a network is judged by; None is the task's own.
    """

    model: Model
    device: str
    predefined: Mapping[str, Any]
    val_fraction: float
    task: str | None = None
    metric: str | None = None

    def setup(self, dataset: Dataset, seed: int) -> Setup:
        """The setup of the trial with this seed."""
        return Setup(
            dataset=dataset,
            model=self.model,
            device=torch.device(self.device),
            seed=seed,
            predefined=Predefined.of(self.predefined),
            val_fraction=self.val_fraction,
            task=self.task_of(dataset),
        )

    def task_of(self, dataset: Dataset) -> Task:
        """What is predicted: as asked for, or as the data's targets have it.

        Raises:
            RaysearchError: the data have no such targets, or the task no such metric.
        """
        fits = "multi_label" if dataset.kind == "multi" else "classification"
        if self.task not in (None, fits):
            has = "any number of labels" if dataset.kind == "multi" else "one class"
            raise RaysearchError(f"task={self.task}: an image of {dataset.name} has {has} ({fits})")
        return tasks.find(fits, self.metric)


@dataclass(frozen=True)
class SearchWork:
    """Makes what does the work of a method's search.

    Attributes:
        setting: what all trials have in common.
        method: the method's name.
        groups: the settings that it reads.
        seed: the search's.
    """

    setting: Setting
    method: str
    groups: Groups
    seed: int

    def __call__(self, dataset: Dataset) -> Build:
        """See the class; called once in each process that works for the search."""
        from raysearch.engine._optuna import give_up

        setup = self.setting.setup(dataset, self.seed)
        return methods.find(self.method).build(setup, self.groups, give_up)


@dataclass(frozen=True)
class EvaluationWork:
    """Makes the training that tells what a policy is worth.

    Attributes:
        setting: what all trials have in common.
        evaluation: the `evaluation` group.
        policy: what is evaluated, or None.
        predefined: the predefined augmentation that goes with it, or None.
        seed: the training's.
    """

    setting: Setting
    evaluation: Mapping[str, Any]
    policy: Policy | None
    predefined: Predefined | None
    seed: int

    def __call__(self, dataset: Dataset) -> Build:
        """See the class."""
        setup = self.setting.setup(dataset, self.seed)
        setup = replace(setup, predefined=self.predefined or Predefined())

        def build(proposal: Proposal, files: Mapping[str, Values]) -> Training:
            return Training(setup, self.evaluation, self.policy, self.predefined is not None)

        return build
