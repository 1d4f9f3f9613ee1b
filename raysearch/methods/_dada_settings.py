"""DADA's settings, checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from raysearch.methods._settings import RewardSettings


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
    magnitude_lr: float
    magnitude_interval: int
    temperature: float
    alpha: float
    probability: float
    magnitude: float
    keep: int

    def conditions(self) -> Iterable[tuple[str, bool, str]]:
        """The values that each number may take."""
        return (
            *super().conditions(),
            ("magnitude_lr", self.magnitude_lr >= 0, "at least 0"),
            ("magnitude_interval", self.magnitude_interval >= 1, "at least 1"),
            ("temperature", self.temperature > 0, "a number above 0"),
            ("alpha", self.alpha >= 0, "at least 0"),
            ("probability", 0 < self.probability < 1, "between 0 and 1"),
            ("magnitude", 0 <= self.magnitude <= 1, "from 0 to 1"),
            ("keep", self.keep >= 0, "at least 0"),
        )
