"""The plain training loop, its settings, its cost, and the setup that it works on."""

from __future__ import annotations

from raysearch.training._cost import FlopCounter, plain_step_flops, validation_cost
from raysearch.training._memory import keep_freed_memory
from raysearch.training._network import TrainedNetwork, load_network, network_document
from raysearch.training._setup import Predefined, Setup, derive_seed, seeded
from raysearch.training._training import (
    SGDSettings,
    Training,
    autocast,
    estimate_statistics,
    evaluate,
    finite_mean,
)

__all__ = [
    "FlopCounter",
    "Predefined",
    "SGDSettings",
    "Setup",
    "TrainedNetwork",
    "Training",
    "autocast",
    "derive_seed",
    "estimate_statistics",
    "evaluate",
    "finite_mean",
    "keep_freed_memory",
    "load_network",
    "network_document",
    "plain_step_flops",
    "seeded",
    "validation_cost",
]
