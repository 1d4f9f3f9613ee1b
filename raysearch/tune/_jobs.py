"""What a trial of each stage works on, made in the worker process from what was sent there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import ray
import torch

from raysearch import methods
from raysearch.data import Dataset
from raysearch.methods import Member, SearchMethod, Worker
from raysearch.policy import Policy
from raysearch.training import Predefined, Setup, Training


@dataclass(frozen=True)
class Setting:
    """What search and evaluation have in common.

    Attributes:
        dataset: the splits.
        model: name of the network.
        device: "cpu" or "cuda".
        predefined: the predefined augmentation, fields of `Predefined`.
        val_fraction: share of the train split that a search validates on.
    """

    dataset: Dataset
    model: str
    device: str
    predefined: Mapping[str, Any]
    val_fraction: float

    def setup(self, seed: int) -> Setup:
        """The setup of the trial with this seed."""
        return Setup(
            dataset=self.dataset,
            model=self.model,
            device=torch.device(self.device),
            seed=seed,
            predefined=Predefined(**self.predefined),
            val_fraction=self.val_fraction,
        )


@dataclass(frozen=True)
class SearchJob:
    """Builds the search of a seed."""

    setting: Setting
    search: Mapping[str, Any]
    method: Mapping[str, Any]

    def __call__(self, policy: str | None, seed: int) -> SearchMethod:
        return methods.build(
            self.method["name"], self.setting.setup(seed), self.search, self.method
        )


@dataclass(frozen=True)
class MemberJob:
    """Builds a member of a seed's population."""

    setting: Setting
    search: Mapping[str, Any]
    method: Mapping[str, Any]

    def __call__(self, seed: int, member: int) -> Member:
        cls = methods.find_members(self.method["name"])
        assert cls is not None
        return cls(self.setting.setup(seed), self.search, self.method, member)


@dataclass(frozen=True)
class WorkerJob:
    """Builds what carries out the trials of a seed's search.

    Attributes:
        training: how the trials train; see `TrialSearch`.
        prepared: what a search's preparation left, or where Ray has that, by seed; of a
            `PreparedTrialSearch`.
    """

    setting: Setting
    method: Mapping[str, Any]
    training: Mapping[str, Any]
    prepared: Mapping[int, Mapping[str, Any] | ray.ObjectRef[Any]]

    def __call__(self, seed: int) -> Worker:
        cls, prepared = methods.find_trials(self.method["name"]), self.prepared.get(seed, {})
        assert cls is not None
        if isinstance(prepared, ray.ObjectRef):  # every worker fetches but its own seed's
            prepared = ray.get(prepared)
        return cls.worker(self.setting.setup(seed), self.method, self.training, prepared)


@dataclass(frozen=True)
class EvaluationJob:
    """Builds the training of a policy, by its name, on a seed.

    Attributes:
        policies: for each name the policy or None, and the predefined augmentation that goes
            with it or None.
    """

    setting: Setting
    evaluation: Mapping[str, Any]
    policies: Mapping[str, tuple[Policy | None, Predefined | None]]

    def __call__(self, policy: str | None, seed: int) -> Training:
        assert policy is not None
        augmentation, predefined = self.policies[policy]
        setup = replace(self.setting.setup(seed), predefined=predefined or Predefined())
        return Training(setup, self.evaluation, augmentation, predefined is not None)
