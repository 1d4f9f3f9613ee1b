"""A run's figures in words, the same on the terminal and in the HTML report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from raysearch.report._statistics import BASELINES, JOINT, LEARNED

NAMES = {
    "none": "no augmentation",
    "predefined": "predefined",
    "trivial_augment": "TrivialAugment",
    "cutout": "Cutout",
    "randaugment": "RandAugment (2, 9)",
    "autoaugment_cifar10": "AutoAugment (CIFAR-10)",
    "autoaugment_imagenet": "AutoAugment (ImageNet)",
    "autoaugment_svhn": "AutoAugment (SVHN)",
    "uniform": "uniform policy",
    "learned": "learned policy",
    "joint": "joint network",
}
PHRASES = {
    "predefined": "predefined augmentation",
    "uniform": "the uniform policy",
    "learned": "the learned policy",
    "joint": "the jointly trained network",
}
LEARNED_ROWS = (LEARNED, JOINT)

UNITS = {  # of the parameters of transformations; 0 always changes nothing
    "rotation": "degrees, counter-clockwise",
    **dict.fromkeys(("a11", "a12", "a21", "a22"), "matrix entry less the identity's"),
    **dict.fromkeys(("tx", "ty"), "half sides of the image"),
    "brightness": "added to values in [0, 1]",
    **dict.fromkeys(("contrast", "saturation"), "factor less 1"),
    "hue": "half turns",
}

GUESSING = 3.0  # standard errors below guessing, from which something has been learned
NOTHING = 0.005  # operations an image, below which a policy applies nothing


def label(row: str) -> str:
    """A policy's name for people, or that of the network which the search trained."""
    return NAMES.get(row, row)


def phrase(row: str) -> str:
    """The same within a sentence."""
    return PHRASES.get(row, label(row))


def short(row: str) -> str:
    """A row's name in the heading of a column of differences."""
    return row if row in LEARNED_ROWS else label(row)


def ordered(names: Mapping[str, Any]) -> list[str]:
    """Rows as they are listed: baselines, others, the learned policy, the joint network."""
    others = [name for name in names if name not in (*BASELINES, *LEARNED_ROWS)]
    return [name for name in (*BASELINES, *others, *LEARNED_ROWS) if name in names]


def percent(error: Mapping[str, Any]) -> str:
    """Mean ± standard deviation, where there is one; the unit stands elsewhere.

    >>> percent({"mean": 3.14159, "std": 0.2}), percent({"mean": 3.0, "std": None})
    ('3.14 ± 0.20', '3.00')
    """
    deviation = error.get("std")
    return f"{error['mean']:.2f}" + (f" ± {deviation:.2f}" if deviation is not None else "")


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign (a true minus).

    >>> signed(-0.5), signed(0.25), signed(-0.001)
    ('−0.50', '+0.25', '0.00')
    """
    text = f"{abs(value):.{digits}f}"
    return text if float(text) == 0 else ("−" if value < 0 else "+") + text


def difference(figures: Mapping[str, Any]) -> str:
    """A difference with its confidence interval, which one seed does not give.

    >>> difference({"mean": -0.5, "low": -0.75, "high": -0.25})
    '−0.50 [−0.75, −0.25]'
    >>> difference({"mean": 2.0, "low": -10.51, "high": 14.51})
    '+2.0 [−10.5, +14.5]'
    """
    known = [figures[key] for key in ("mean", "low", "high") if figures[key] is not None]
    digits = 2 if max(map(abs, known)) < 9.995 else 1
    mean, *interval = (signed(value, digits) for value in known)
    return f"{mean} [{', '.join(interval)}]" if interval else mean


def parameter(figures: Mapping[str, float], name: str) -> str:
    """A continuous parameter's mean ± standard deviation; its unit is in `UNITS`.

    >>> parameter({"mean": -0.0312, "std": 0.1}, "tx"), parameter({"mean": 4, "std": 9}, "rotation")
    ('−0.031 ± 0.100', '+4.0 ± 9.0')
    """
    digits = 1 if name == "rotation" else 3
    return f"{signed(figures['mean'], digits)} ± {figures['std']:.{digits}f}"


def times(ratio: float | None) -> str:
    """A relative cost, with about three digits; a dash where there is none.

    >>> times(1.0), times(5.274), times(61.23), times(None)
    ('1.00', '5.27', '61.2', '–')
    """
    if ratio is None:
        return "–"
    digits = 2 if ratio < 9.995 else 1 if ratio < 99.95 else 0
    return f"{ratio:.{digits}f}"


def unpaired(summary: Mapping[str, Any]) -> list[str]:
    """What cannot be compared, in words: rows whose seeds are not those of any other row."""
    errors = summary["errors"]
    return [
        f"{phrase(row).capitalize()} was tested on seeds {errors[row]['seeds']}, on which nothing "
        "else was: no difference can be paired. Give seeds and evaluation.seeds the same list."
        for row, key in (("joint", "joint_differences"),)
        if row in errors and len(errors) > 1 and not summary[key]
    ]


def applies_nothing(policy: Mapping[str, Any]) -> bool:
    """Whether a policy of operations, as a summary holds it, leaves images as they are.

    >>> applies_nothing({"operations": {"Rotate": 1.0}, "operations_per_image": 0.001})
    True
    """
    return bool(policy["operations"]) and policy["operations_per_image"] < NOTHING


def idle(summary: Mapping[str, Any]) -> list[str]:
    """That a search ended with a policy which applies nothing, in words."""
    if summary["row"] != "learned" or not applies_nothing(summary["policy"]):
        return []
    count = summary["policy"]["operations_per_image"]
    return [
        f"The learned policy applies nothing ({count:.3f} operations an image): the search found "
        "nothing that helps beyond the predefined augmentation."
    ]


def guessing(
    errors: Sequence[Mapping[str, Any]], guess: float | None, images: Mapping[str, int] | None
) -> list[str]:
    """That no training can be told from guessing, in words.

    Args:
        errors: of all policies, in percent.
        guess: the error of always naming the most frequent class; None where it is not known.
        images: how many there are, `test` among them; likewise.

    >>> guessing([{"mean": 88.0, "runs": [88.0]}], 90.0, {"test": 400})[0].partition(":")[0]
    'Nothing here can be told from guessing'
    >>> guessing([{"mean": 88.0, "runs": [88.0]}], 99.0, {"test": 10000})
    []
    """
    means = [error["mean"] for error in errors if error["runs"]]
    if guess is None or images is None or not means:
        return []
    noise = math.sqrt(guess * (100 - guess) / images["test"])
    if min(means) < guess - GUESSING * noise:
        return []
    return [
        f"Nothing here can be told from guessing: the lowest error is {min(means):.2f} %, that of "
        f"always naming the most frequent class {guess:.2f} %. Differences between policies mean "
        "nothing then; more epochs, another learning rate or a look at the labels come first."
    ]


def verdict(baseline: str, difference: Mapping[str, Any], row: str = "learned") -> str:
    """What a difference (`row` minus baseline, in points) says and what it leaves open.

    >>> verdict("none", {"mean": -1.0, "low": -1.5, "high": -0.5, "seeds": 5, "confidence": 0.95})
    'The learned policy beats no augmentation by 1.00 points (95 % CI −1.50 to −0.50, 5 seeds).'
    """
    name, own = phrase(baseline), phrase(row)
    subject = own[0].upper() + own[1:]
    mean, seeds = difference["mean"], difference["seeds"]
    size = f"{abs(mean):.2f} points"
    if difference["low"] is None:
        side = "below" if mean < 0 else "above"
        return (
            f"One seed: {own} is {size} {side} {name}, which settles nothing; "
            "use more evaluation seeds."
        )
    low, high = difference["low"], difference["high"]
    if low == high:
        side = "the same as" if mean == 0 else f"{size} {'below' if mean < 0 else 'above'}"
        return (
            f"On each of {seeds} seeds {own}'s error is {side} that with {name}: with so few test "
            "images or seeds that settles nothing."
        )
    share = f"{100 * difference['confidence']:.0f} % CI"
    facts = f"({share} {signed(low)} to {signed(high)}, {seeds} seeds)"
    if high < 0:
        return f"{subject} beats {name} by {size} {facts}."
    if low > 0:
        return f"{subject} is worse than {name} by {size} {facts}."
    side = "lower" if mean < 0 else "higher"
    return (
        f"Against {name} it is not settled: {own}'s error is {size} {side} {facts}, "
        "and the interval holds 0."
    )


def predefined_words(predefined: Mapping[str, Any]) -> str:
    """What a predefined augmentation does; nothing is the empty string.

    >>> predefined_words({"flip": True, "vertical_flip": False, "padding": 4, "cutout": 0})
    'mirroring left-right, random crops after padding by 4 pixels'
    """
    parts = {
        "flip": "mirroring left-right",
        "vertical_flip": "mirroring top-bottom",
        "padding": "random crops after padding by {} pixels",
        "cutout": "Cutout of {} pixels",
    }
    return ", ".join(
        words.format(predefined[key]) for key, words in parts.items() if predefined.get(key)
    )
