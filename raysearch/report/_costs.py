"""What searches and trainings cost, and how that compares with a plain training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from raysearch.report._statistics import JOINT
from raysearch.tracking import COSTS, TrialResult

RELATIVE = ("epoch_equivalents", "device_seconds")
PLAIN = ("none", "predefined")  # a training with the first of these that there is costs 1

Relative = dict[str, dict[str, float | None]]


def total_cost(results: Sequence[TrialResult]) -> dict[str, Any]:
    """Cost summed over trials."""
    return {cost: math.fsum(getattr(result, cost) for result in results) for cost in COSTS}


def evaluation_costs(evaluations: Sequence[TrialResult]) -> dict[str, Any]:
    """Per policy the cost of its evaluations: summed over the seeds, and of each seed."""
    return {
        name: {
            **total_cost(results),
            "runs": [
                {"seed": result.trial.seed, **{c: getattr(result, c) for c in COSTS}}
                for result in sorted(results, key=lambda result: result.trial.seed)
            ],
        }
        for name, results in _by_policy(evaluations).items()
    }


def relative_costs(
    search: Sequence[TrialResult], evaluations: Sequence[TrialResult], rows: Iterable[str]
) -> tuple[str | None, Relative]:
    """The whole cost of each row over that of one plain training.

    A baseline costs its own training; the learned policy all searches whose mixture it is and a
    training; the jointly trained network one search. Failed trainings do not count.

    Args:
        search: the search's trials.
        evaluations: the evaluations' trials.
        rows: of the test errors.

    Returns:
        The policy whose training is the plain one: none, else predefined, else the one that took
        the least device time, None where nothing was evaluated. And for each row
        `epoch_equivalents` and `device_seconds`, None where the plain training's is 0.
    """
    trainings = {
        name: _mean([result for result in results if result.error is None])
        for name, results in _by_policy(evaluations).items()
        if any(result.error is None for result in results)
    }
    if not trainings:
        return None, {}
    cheapest = min(trainings, key=lambda name: trainings[name]["device_seconds"])
    plain = next((name for name in PLAIN if name in trainings), cheapest)
    searches, one_search = total_cost(search), _mean(search)
    none = dict.fromkeys(RELATIVE, 0.0)
    found: Relative = {}
    for row in rows:
        before = {"learned": searches, JOINT: one_search}.get(row, none)
        training = none if row == JOINT else trainings[row]
        found[row] = {
            cost: (before[cost] + training[cost]) / trainings[plain][cost]
            if trainings[plain][cost] > 0
            else None
            for cost in RELATIVE
        }
    return plain, found


def _by_policy(evaluations: Sequence[TrialResult]) -> dict[str, list[TrialResult]]:
    groups: dict[str, list[TrialResult]] = {}
    for result in evaluations:
        groups.setdefault(str(result.trial.policy), []).append(result)
    return groups


def _mean(results: Sequence[TrialResult]) -> Mapping[str, float]:
    """Cost of one of several like trials; 0 where there are none."""
    return {
        cost: fmean(getattr(result, cost) for result in results) if results else 0.0
        for cost in RELATIVE
    }
