"""DDAS's settings, checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from raysearch.methods._settings import RewardSettings


@dataclass(frozen=True)
class DdasSettings(RewardSettings):
    """The `method` group of the configuration; `lr` is that of the candidates' logits a.

    Attributes:
        levels: magnitudes, in [0, 2] of AutoAugment's ranges, at which operations that have a
            magnitude are candidates; the others are one candidate each.
        candidates: S ≥ 1, pairs that a step tries where sampling is `batch`.
        exploration: share in [0, 1] of the uniform policy in what is drawn from, at both levels.
        augment: starting value of t, in (0, 1).
        augment_lr: Adam's learning rate for τ₀; 0 keeps t.
        equal: which are equally likely at the start, where exploration and prior stay too:
            `candidates`, or `operations`, whose levels share what each gets.
    """

    levels: tuple[float, ...]
    candidates: int
    exploration: float
    augment: float
    augment_lr: float
    equal: Literal["operations", "candidates"]

    def conditions(self) -> Iterable[tuple[str, bool, str]]:
        """The values that each number may take."""
        return (
            *super().conditions(),
            ("levels", len(set(self.levels)) == len(self.levels) >= 1, "one or more, each once"),
            (
                "levels",
                all(0 <= level <= 2 for level in self.levels),
                "magnitudes from 0 to 2, of AutoAugment's ranges",
            ),
            ("candidates", self.candidates >= 1, "at least 1"),
            ("exploration", 0 <= self.exploration <= 1, "from 0 to 1"),
            ("augment", 0 < self.augment < 1, "between 0 and 1"),
            ("augment_lr", self.augment_lr >= 0, "at least 0"),
        )
