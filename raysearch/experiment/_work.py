"""Makes searches' work in a worker, from what was sent there; each is picklable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from raysearch.methods import Groups, Method
from raysearch.policy import Policy
from raysearch.training import Predefined, Setup, Training

if TYPE_CHECKING:
    from raysearch.data import Dataset
    from raysearch.protocol import Build, Proposal, Values

Model = str | Callable[..., torch.nn.Module]
"""A name that `raysearch.models.build` knows, or what builds a network with its arguments."""


@dataclass(frozen=True)
class SearchWork:
    """Makes what does the work of a method's search.

    Attributes:
        setup: makes the setup, given `dataset` and `seed`.
        method: the method.
        groups: the settings that it reads.
        seed: the search's.
    """

    setup: partial[Setup]
    method: type[Method]
    groups: Groups
    seed: int

    def __call__(self, dataset: Dataset) -> Build:
        """See the class; called once in each process that works for the search."""
        from raysearch.engine._optuna import give_up

        setup = self.setup(dataset=dataset, seed=self.seed)
        return self.method.build(setup, self.groups, give_up)


@dataclass(frozen=True)
class EvaluationWork:
    """Makes the training that tells what a policy is worth.

    Attributes:
        setup: makes the setup, given `dataset` and `seed`.
        evaluation: the `evaluation` group.
        policy: what is evaluated, or None.
        predefined: the predefined augmentation that goes with it, or None.
        seed: the training's.
    """

    setup: partial[Setup]
    evaluation: Mapping[str, Any]
    policy: Policy | None
    predefined: Predefined | None
    seed: int

    def __call__(self, dataset: Dataset) -> Build:
        """See the class."""
        setup = self.setup(dataset=dataset, seed=self.seed)
        setup = replace(setup, predefined=self.predefined or Predefined())

        def build(proposal: Proposal, files: Mapping[str, Values]) -> Training:
            return Training(setup, self.evaluation, self.policy, self.predefined is not None)

        return build
