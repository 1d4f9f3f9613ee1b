"""Who copies whom in a population: the exploit step of Population Based Training."""

from __future__ import annotations

import math
from collections.abc import Sequence

Levels = list[list[int]]
"""A policy as a member is told: whole numbers in lists."""


def exploit(
    scores: Sequence[float | None], quantile: float
) -> tuple[list[int], dict[int, list[int]]]:
    """Members in order, and those that copy (Jaderberg et al. 2017, truncation selection).

    The quantiles are those of Ray Tune's `PopulationBasedTraining` where it is synchronous: so
    many members as `quantile` of all, rounded up, but no more than half. Of equal scores that of
    the later member counts as higher.

    Args:
        scores: of the members, higher is better; None of those that failed, of which not all did.
        quantile: share of the members that copy, and share that may be copied, in (0, 0.5].

    Returns:
        The members from the worst to the best; and for each of the worst quantile, and for every
        one that failed, those of the best quantile that it may copy, in that order.
    """
    size = len(scores)
    ranks = [-math.inf if score is None else score for score in scores]
    order = sorted(range(size), key=lambda i: (scores[i] is not None, ranks[i], i))
    count = min(math.ceil(size * quantile), size // 2)
    best = [member for member in order[size - count :] if scores[member] is not None]
    worst = [
        member
        for place, member in enumerate(order)
        if (place < count or scores[member] is None) and member not in best
    ]
    return order, dict.fromkeys(worst, best)
