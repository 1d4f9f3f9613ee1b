"""A run's figures in words, the same on the terminal and in the HTML report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMES = {
    "none": "no augmentation",
    "predefined": "predefined",
    "trivial_augment": "TrivialAugment",
    "uniform": "uniform policy",
    "learned": "learned policy",
}
PHRASES = {"predefined": "predefined augmentation", "uniform": "the uniform policy"}


def label(policy: str) -> str:
    """A policy's name for people."""
    return NAMES.get(policy, policy)


def percent(error: Mapping[str, Any]) -> str:
    """Mean ± standard deviation, where there is one; the unit stands elsewhere.

    >>> percent({"mean": 3.14159, "std": 0.2}), percent({"mean": 3.0, "std": None})
    ('3.14 ± 0.20', '3.00')
    """
    deviation = error.get("std")
    return f"{error['mean']:.2f}" + (f" ± {deviation:.2f}" if deviation is not None else "")


def signed(value: float) -> str:
    """A difference with its sign (a true minus).

    >>> signed(-0.5), signed(0.25), signed(-0.001)
    ('−0.50', '+0.25', '0.00')
    """
    text = f"{abs(value):.2f}"
    return text if text == "0.00" else ("−" if value < 0 else "+") + text


def interval(difference: Mapping[str, Any]) -> str:
    """The confidence interval in brackets; a dash where one seed gives none."""
    if difference["low"] is None:
        return "–"
    return f"[{signed(difference['low'])}, {signed(difference['high'])}]"


def verdict(baseline: str, difference: Mapping[str, Any]) -> str:
    """What a difference (learned minus baseline, in points) says and what it leaves open.

    >>> verdict("none", {"mean": -1.0, "low": -1.5, "high": -0.5, "seeds": 5, "confidence": 0.95})
    'The learned policy beats no augmentation by 1.00 points (95 % CI −1.50 to −0.50, 5 seeds).'
    """
    name = PHRASES.get(baseline, label(baseline))
    mean, seeds = difference["mean"], difference["seeds"]
    size = f"{abs(mean):.2f} points"
    if difference["low"] is None:
        side = "below" if mean < 0 else "above"
        return f"One seed: {size} {side} {name}, which settles nothing; use more evaluation seeds."
    low, high = difference["low"], difference["high"]
    share = f"{100 * difference['confidence']:.0f} % CI"
    facts = f"({share} {signed(low)} to {signed(high)}, {seeds} seeds)"
    if high < 0:
        return f"The learned policy beats {name} by {size} {facts}."
    if low > 0:
        return f"The learned policy is worse than {name} by {size} {facts}."
    side = "lower" if mean < 0 else "higher"
    return (
        f"Against {name} it is not settled: the learned policy's error is {size} {side} {facts}, "
        "and the interval holds 0."
    )
