"""What a run would do and cost, without doing it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from raysearch.cli._compose import to_yaml
from raysearch.cli._forecast import Forecast
from raysearch.cli._plan import Place, Plan
from raysearch.cli._words import plural

START_SECONDS = 12.0  # Ray, its workers, the report


def describe(plan: Plan, places: Mapping[str, Place] | None) -> str:
    """The composed configuration, the trials, what they hold, and an estimate of the cost.

    Args:
        plan: the trials.
        places: what they hold; None when a running cluster decides.
    """
    lines = [to_yaml(plan.configuration).rstrip(), "", "# trials"]
    seconds: float | None = START_SECONDS
    total = 0.0
    for group in Forecast(plan, places).groups():
        place = group.place
        lines.append(
            f"{group.stage}: {plural(group.count, 'trial')} of {plural(group.epochs, 'epoch')}, "
            f"{_holding(place)}"
        )
        lines.append("  " + _names(group.names))
        if group.cost is None:
            seconds = None
            lines.append("  cost: not known before it runs")
            continue
        equivalents = group.cost.equivalents * group.epochs
        total += equivalents * group.count
        lines.append(
            f"  cost: {equivalents:.1f} epoch-equivalents each, "
            f"{equivalents * group.count:.1f} in all; {_duration(group.cost.seconds)} an epoch on "
            "one CPU thread of this machine"
        )
        if place is None or place.share.device != "cpu":
            seconds = None
        elif seconds is not None:
            rounds = math.ceil(group.count / place.at_once)
            seconds += rounds * group.epochs * group.cost.seconds / place.share.threads
    for seed, given in plan.given.items():
        equivalents = given["metrics"]["epoch_equivalents"]
        total += equivalents
        lines.append(
            f"shared checkpoint of seed {seed}, given: {equivalents:.1f} epoch-equivalents"
        )
    lines += ["", "# cost", f"{total:.0f} epoch-equivalents (one: a plain training epoch on the"]
    lines[-1] += " search's train split)"
    if seconds is not None:
        lines.append(f"about {_duration(seconds)}, from a few training steps timed just now")
    else:
        lines.append("time: depends on the GPUs or the cluster, which were not asked")
    return "\n".join(lines)


def _holding(place: Place | None) -> str:
    if place is None:
        return "as many at once as the cluster has room for"
    share = place.share
    gpus = f" and {share.gpus:g} GPU" if share.gpus else ""
    return f"{place.at_once} at once, each with {share.cpus:g} CPU{gpus}, on {share.device}"


def _names(names: list[str]) -> str:
    return ", ".join(names if len(names) <= 8 else [*names[:6], "...", names[-1]])


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
