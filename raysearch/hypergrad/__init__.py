"""The mathematics of single-pass policy search, as functions of tensors."""

from __future__ import annotations

from raysearch.hypergrad._estimators import (
    Choices,
    ControlVariate,
    Gradient,
    choose,
    gumbel_softmax,
    reinforce,
    relax,
)
from raysearch.hypergrad._rewards import (
    Network,
    OneStep,
    Parameters,
    cross_entropy_per_image,
    one_step_rewards,
    step_along,
)

__all__ = [
    "Choices",
    "ControlVariate",
    "Gradient",
    "Network",
    "OneStep",
    "Parameters",
    "choose",
    "cross_entropy_per_image",
    "gumbel_softmax",
    "one_step_rewards",
    "reinforce",
    "relax",
    "step_along",
]
