"""How a race between policies is laid out in a budget, and who wins it; plain arithmetic."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from raysearch.errors import RaysearchError

TINY = 1e-9
SHORTEST = 1 / 3  # of a training: shorter schedules rank policies otherwise
Judged = tuple[float, float]
"""What held-out images say of a training: the loss, and the metric as a cost; lower is better."""
FAILED = (math.inf, math.inf)
_BUDGET = re.compile(r"(\d+(?:\.\d+)?)([xsmh])")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Heat:
    """A part of a race in which all who are left train, on the same images from the same weights.

    Attributes:
        entrants: how many they are.
        length: of their trainings, as a share of a full one, in (0, 1].
    """

    entrants: int
    length: float

    @property
    def cost(self) -> float:
        """In full trainings."""
        return self.entrants * self.length


def check_budget(budget: str) -> str:
    """A budget, in trainings or as a time.

    Raises:
        RaysearchError: it is neither.
    """
    found = _BUDGET.fullmatch(budget)
    if found is None or float(found[1]) <= 0:
        raise RaysearchError(
            f"method.budget={budget}: give full trainings or a time, as in 8x, 30m or 2h"
        )
    return budget


def trainings(budget: str) -> float:
    """A budget in full trainings: 8 of "8x".

    Raises:
        ValueError: it is a time.
    """
    number, unit = check_budget(budget)[:-1], budget[-1]
    if unit != "x":
        raise ValueError(f"{budget} has not been converted to trainings")
    return float(number)


def budget_seconds(budget: str) -> float | None:
    """A budget in seconds: 1,800 of "30m"; None of one in trainings."""
    number, unit = check_budget(budget)[:-1], budget[-1]
    return None if unit == "x" else float(number) * _SECONDS[unit]


def lay_out(candidates: int, budget: float) -> list[Heat]:
    """The heats of a race: successive halving (Jamieson & Talwalkar, 2016).

    All candidates train for a part of the schedule, the best third three times as long, and so on.
    At the full length halves are dropped until two are left; each of these stages costs about as
    much and has as many heats, each on another fold, as that allows. Where even the shortest
    trainings of all cost too much, the last candidates are left out.

    Args:
        candidates: how many there are.
        budget: in full trainings.

    Returns:
        At least one heat; they cost `budget` at most, unless even a single training does.
    """
    count = max(1, min(candidates, math.floor(budget / (3 * SHORTEST))))
    halvings = 2 if count > 4 else 1
    heats = [Heat(count, min(1.0, budget / ((halvings + 1) * count)))]
    left = budget - heats[0].cost
    while left > 0 and count > 1:
        kept = 2 if heats[-1].length == 1 else 3  # one in so many
        count = min(count, max(2, math.ceil(count / kept)))
        length = min(1.0, 3 * heats[-1].length)
        if count * length > left + TINY:
            length = left / count
            if length < heats[-1].length or heats[-1].length == 1:
                break
        stages = max(1, math.ceil(math.log2(count)))  # that are left, this one among them
        times = max(1, math.floor(left / stages / (count * length) + TINY)) if length == 1 else 1
        heats += [Heat(count, length)] * times
        left -= times * count * length
    return heats


def scores(found: Mapping[str, Judged], objective: str) -> dict[str, float]:
    """How good candidates were in a heat, lower being better; infinite of who failed.

    Args:
        found: of each.
        objective: `loss`, of which the logarithm counts; `metric`, where the loss decides between
            equals; or `both`, each in standard deviations over the candidates.
    """
    ended = [name for name, judged in found.items() if math.isfinite(judged[0])]
    if not ended:
        return dict.fromkeys(found, math.inf)
    loss, cost = np.array([found[name] for name in ended]).T
    loss = np.log(np.maximum(loss, TINY))
    both = _standardised(loss) + _standardised(cost)
    score = {"loss": loss, "metric": cost + TINY * loss, "both": both}[objective]
    known = dict(zip(ended, score.tolist(), strict=True))
    return {name: known.get(name, math.inf) for name in found}


def _standardised(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    spread = float(values.std())
    return (values - values.mean()) / spread if spread > 0 else values * 0.0


def standing(heats: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Candidates by their mean score over some heats that all of them have run, the best first.

    Args:
        heats: the scores of each, by candidate, lower being better; infinite of what failed.
    """
    names = [name for name in heats[-1] if all(name in heat for heat in heats)]
    means = {name: float(np.mean([heat[name] for heat in heats])) for name in names}
    return dict(sorted(means.items(), key=lambda item: item[1]))


def simplest(
    order: Sequence[str],
    losses: Mapping[str, npt.NDArray[np.float64]],
    simplicity: Callable[[str], Any],
) -> str:
    """The best of some, or the simplest of those that are within a standard error of it.

    The one-standard-error rule (Breiman et al., "Classification and Regression Trees", 1984), with
    the error of the mean difference over the images, as all were judged on the same ones.

    Args:
        order: the best first.
        losses: of each held-out image, in the same order of images for all.
        simplicity: smaller is simpler.
    """
    best, equal = order[0], [order[0]]
    for name in order[1:]:
        if name not in losses or best not in losses:
            continue
        difference = losses[name] - losses[best]
        error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
        if float(difference.mean()) <= error:
            equal.append(name)
    return min(equal, key=simplicity)
