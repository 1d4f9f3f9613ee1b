"""How a race between policies is laid out in a budget, and who wins it; plain arithmetic."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raysearch.errors import RaysearchError

THIRD = 1 / 3
SHORTEST = 1 / 8  # of a training: below, schedules say nothing
_BUDGET = re.compile(r"(\d+(?:\.\d+)?)x")


@dataclass(frozen=True)
class Heat:
    """A part of a race in which all who are left train, on the same images from the same weights.

    Attributes:
        entrants: how many they are.
        length: of their trainings, as a share of a full one, in (0, 1].
    """

    entrants: int
    length: float


def trainings(budget: str) -> float:
    """A budget in full trainings: 8 of "8x".

    Raises:
        RaysearchError: it is not a number above 0 followed by an x.
    """
    found = _BUDGET.fullmatch(budget)
    if found is None or float(found[1]) <= 0:
        raise RaysearchError(
            f"method.budget={budget}: give full trainings or a time, as in 8x, 30m or 2h"
        )
    return float(found[1])


def lay_out(candidates: int, budget: float) -> list[Heat]:
    """The heats of a race: successive halving (Jamieson & Talwalkar, 2016) by thirds.

    All candidates train for a part of the schedule, the best third three times as long, and so on;
    those that are left at the full length go on to other folds until the budget is spent. Where
    even the shortest trainings of all cost too much, the last candidates are left out.

    Args:
        candidates: how many there are.
        budget: in full trainings.

    Returns:
        At least one heat; they cost `budget` at most, unless even a single training does.
    """
    count = max(1, min(candidates, math.floor(budget / (3 * SHORTEST))))
    halvings = 2 if count > 4 else 1
    length = min(1.0, budget / ((halvings + 1) * count))
    heats = [Heat(count, length)]
    left = budget - count * length
    while left > 0 and count > 1:
        last = heats[-1]
        entrants = min(last.entrants, max(2, math.ceil(last.entrants / 3)))
        length = min(1.0, 3 * last.length)
        if entrants * length > left + 1e-9:
            length = left / entrants
            if length < last.length or (last.length == 1 and length < 1):
                break
        heats.append(Heat(entrants, length))
        left -= entrants * length
    return heats


def standing(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Candidates by their mean score over some heats that all of them have run, the best first.

    Args:
        scores: of each heat, by candidate, lower being better; infinite of what failed.
    """
    names = [name for name in scores[-1] if all(name in heat for heat in scores)]
    means = {name: float(np.mean([heat[name] for heat in scores])) for name in names}
    return dict(sorted(means.items(), key=lambda item: item[1]))
