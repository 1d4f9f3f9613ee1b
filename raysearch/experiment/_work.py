"""Makes searches' work in a worker, from what was sent there; each is picklable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from raysearch.methods import UNCHANGED, Context, Method
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
        context: what it works with.
        seed: the search's.
    """

    setup: partial[Setup]
    method: Method
    context: Context
    seed: int

    def __call__(self, dataset: Dataset) -> Build:
        """See the class; called once in each process that works for the search."""
        return self.method.build(self.setup(dataset=dataset, seed=self.seed), self.context)


@dataclass(frozen=True)
class EvaluationWork:
    """Makes the training that tells what a policy is worth.

    Attributes:
        setup: makes the setup, given `dataset` and `seed`.
        evaluation: the `evaluation` group.
        policy: what is evaluated.
        predefined: the predefined augmentation that goes with it.
        seed: the training's.
    """

    setup: partial[Setup]
    evaluation: Mapping[str, Any]
    policy: Policy
    predefined: Predefined
    seed: int

    def __call__(self, dataset: Dataset) -> Build:
        """See the class."""
        setup = replace(self.setup(dataset=dataset, seed=self.seed), predefined=self.predefined)
        policy = None if self.policy == UNCHANGED else self.policy

        def build(proposal: Proposal, files: Mapping[str, Values]) -> Training:
            return Training(setup, self.evaluation, policy, predefined=True)

        return build
