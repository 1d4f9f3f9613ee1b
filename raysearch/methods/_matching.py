"""Fast AutoAugment's work: a network for each fold, and policies tried on what it does not know."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from raysearch.data import Split
from raysearch.errors import NonFiniteLossError
from raysearch.methods._validated import Goal, ValidatedTraining, cost, snapshot
from raysearch.policy import Policy
from raysearch.protocol import Answer, Metrics, Values
from raysearch.training import Setup, evaluate, validation_cost


class FoldTraining(ValidatedTraining):
    """The training of a fold's network on the others, validated on the fold at the end, as work."""

    def answer(self) -> Answer:
        """The metrics of the last epoch; the network is the file."""
        return Answer(self.metrics, file={"model": snapshot(self.training.model.state_dict())})


class Try:
    """A policy tried on held-out images, which it augments: work of one step.

    Args:
        setup: data, network, device and seed.
        model: the network; does not change.
        held_out: the images.
        policy: augments them.
        seed: of the policy's draws.
        draws: how often each image is augmented and classified.
        by: what the policy is judged by.
    """

    epochs = 1

    def __init__(
        self,
        setup: Setup,
        model: nn.Module,
        held_out: Split,
        *,
        policy: Policy,
        seed: int,
        draws: int,
        by: Goal,
    ) -> None:
        self._setup, self.model, self._held_out = setup, model, held_out
        self._policy, self._seed, self._draws, self._by = policy, seed, draws, by
        self._metrics: Metrics = {}

    @property
    def epoch(self) -> int:
        """1 when it is done."""
        return int(bool(self._metrics))

    def step(self) -> Metrics:
        """All draws; the means of their `val_loss` and other figures, and the cost."""
        setup, policy = self._setup, self._policy
        generator = torch.Generator().manual_seed(self._seed)
        found = [
            evaluate(self.model, setup, self._held_out, before=lambda x: policy(x, generator))
            for _ in range(self._draws)
        ]
        means = {f"val_{key}": sum(one[key] for one in found) / len(found) for key in found[0]}
        if not math.isfinite(means["val_loss"]):
            raise NonFiniteLossError("validation", 1, 1)
        each = validation_cost(setup.search_images(), len(self._held_out))
        self._metrics = {**means, "epoch_equivalents": len(found) * each}
        return dict(self._metrics)

    def answer(self) -> Answer:
        """What the step returned, and `cost`, which is minimised."""
        found = cost(self._by, self._metrics, self._setup.task.metric)
        return Answer({**self._metrics, "cost": found})

    def state_dict(self) -> dict[str, Any]:
        """What was found."""
        return {"metrics": dict(self._metrics)}

    def load_state_dict(self, state: Values) -> None:
        """Continue from `state_dict`."""
        self._metrics = dict(state["metrics"])
