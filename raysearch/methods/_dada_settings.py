"""DADA's settings, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from raysearch.methods._settings import RewardSettings
from raysearch.settings import Between, Count, NotNegative, Positive, Probability, WholeNumber


@dataclass(frozen=True)
class DadaSettings(RewardSettings):
    """The `method` group of the configuration; `lr` is that of α, β and the control variate.

    Attributes:
        estimator: `relax`, `gumbel_softmax` or `reinforce`.
        magnitude_lr: Adam's learning rate for m; 0 keeps the starting magnitudes.
        magnitude_interval: steps from one update of m to the next, at least 1; the derivative
            for m costs a backward pass.
        temperature: τ of the relaxations, > 0.
        alpha: standard deviation of the starting logits α.
        probability: starting value of every σ(β), in (0, 1).
        magnitude: starting value of every m, in [0, 1].
        keep: sub-policies of largest α in the final policy; 0 keeps all.
    """

    estimator: Literal["relax", "gumbel_softmax", "reinforce"]
    magnitude_lr: NotNegative
    magnitude_interval: Count
    temperature: Positive
    alpha: NotNegative
    probability: Between
    magnitude: Probability
    keep: WholeNumber
