"""The training loop, its settings, its cost, and the setup that it works on."""

from __future__ import annotations

from raysearch.training._cost import FlopCounter, plain_step_flops, validation_cost
from raysearch.training._evaluate import (
    estimate_statistics,
    evaluate,
    evaluate_on_test,
    image_losses,
)
from raysearch.training._loop import Gradient, Loop
from raysearch.training._memory import keep_freed_memory
from raysearch.training._network import TrainedNetwork, load_network, network_document
from raysearch.training._setup import Predefined, Setup, derive_seed, seeded
from raysearch.training._sgd import SGDSettings, autocast, finite_mean
from raysearch.training._training import Training

__all__ = [
    "FlopCounter",
    "Gradient",
    "Loop",
    "Predefined",
    "SGDSettings",
    "Setup",
    "TrainedNetwork",
    "Training",
    "autocast",
    "derive_seed",
    "estimate_statistics",
    "evaluate",
    "evaluate_on_test",
    "finite_mean",
    "image_losses",
    "keep_freed_memory",
    "load_network",
    "network_document",
    "plain_step_flops",
    "seeded",
    "validation_cost",
]
