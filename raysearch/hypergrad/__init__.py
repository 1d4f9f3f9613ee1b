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
    one_step_rewards,
    step_along,
    validate,
)
from raysearch.hypergrad._second_order import SecondOrder
from raysearch.hypergrad._unrolled import SGDRule, TrainStep, image_gradients, train_step

__all__ = [
    "Choices",
    "ControlVariate",
    "Gradient",
    "Network",
    "OneStep",
    "Parameters",
    "SGDRule",
    "SecondOrder",
    "TrainStep",
    "choose",
    "gumbel_softmax",
    "image_gradients",
    "one_step_rewards",
    "reinforce",
    "relax",
    "step_along",
    "train_step",
    "validate",
]
