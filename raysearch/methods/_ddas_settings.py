"""DDAS's settings, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from raysearch.methods._settings import RewardSettings
from raysearch.settings import Between, Count, NotNegative, Probability

Level = Annotated[float, Field(ge=0, le=2)]


def _each_once(levels: tuple[float, ...]) -> tuple[float, ...]:
    if not 1 <= len(levels) == len(set(levels)):
        raise ValueError("expected one or more, each once")
    return levels


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

    levels: Annotated[tuple[Level, ...], AfterValidator(_each_once)]
    candidates: Count
    exploration: Probability
    augment: Between
    augment_lr: NotNegative
    equal: Literal["operations", "candidates"]
