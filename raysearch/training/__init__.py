"""The plain training loop, its settings, its cost, and the task that it works on."""

from __future__ import annotations

from raysearch.training._cost import FlopCounter, plain_step_flops
from raysearch.training._task import Predefined, Task, derive_seed, seeded
from raysearch.training._training import (
    SGDSettings,
    Training,
    autocast,
    evaluate,
    finite_mean,
)

__all__ = [
    "FlopCounter",
    "Predefined",
    "SGDSettings",
    "Task",
    "Training",
    "autocast",
    "derive_seed",
    "evaluate",
    "finite_mean",
    "plain_step_flops",
    "seeded",
]
