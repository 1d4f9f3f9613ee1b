"""Names and numbers in words, the same on the terminal, in the plots and on the page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from raysearch import methods
from raysearch.tasks import Metric

LEARNED = "learned"
"""The usual row of the policy that the only method of an experiment found."""
JOINT = "joint"
"""The row of the networks that the only method's searches trained themselves."""

OWN = {LEARNED: "learned policy", JOINT: "joint network"}
PHRASES = {
    "predefined": "predefined augmentation",
    "uniform": "the uniform policy",
    LEARNED: "the learned policy",
    JOINT: "the jointly trained network",
}
UNITS = {  # of the parameters of transformations; 0 always changes nothing
    "rotation": "degrees, counter-clockwise",
    **dict.fromkeys(("a11", "a12", "a21", "a22"), "matrix entry less the identity's"),
    **dict.fromkeys(("tx", "ty"), "half sides of the image"),
    "brightness": "added to values in [0, 1]",
    **dict.fromkeys(("contrast", "saturation"), "factor less 1"),
    "hue": "half turns",
}


def label(name: str, kind: str = "baseline") -> str:
    """A row's name for people.

    Args:
        name: the row's; what follows it in parentheses stays.
        kind: a baseline, or what was searched for; see `Row`.

    >>> label("none"), label("randaugment"), label("randaugment", "policy"), label("dada (network)")
    ('no augmentation', 'RandAugment (2, 9)', 'RandAugment', 'DADA (network)')
    """
    base, bracket, rest = name.partition(" (")
    if base in methods.BASELINES and (kind == "baseline" or base in methods.FIXED):
        base = methods.BASELINES[base].title
    elif base in methods.names():
        base = methods.find(base).title or base
    else:
        base = OWN.get(base, base)
    return base + bracket + rest


def method_label(method: str) -> str:
    """A method's name for people."""
    return label(method, "policy")


def network_name(method: str) -> str:
    """The row of the networks that a method's searches trained, in an experiment of several."""
    return f"{method} (network)"


def phrase(name: str, shown: str | None = None) -> str:
    """A row's name within a sentence; `shown` is its label."""
    return PHRASES.get(name) or shown or label(name)


def digits(metric: Metric) -> int:
    """Decimals of a metric: two of a percentage, four of a number in [0, 1]."""
    return 2 if metric.unit == "%" else 4


def short(metric: Metric) -> str:
    """A metric's label without its unit: "test error"."""
    return metric.label.removesuffix(f" in {metric.unit}")


def heading(metric: Metric) -> str:
    """A metric's label and, where more is better, its direction.

    >>> heading(Metric("error", "test error in %", "%", True))
    'test error in %'
    >>> heading(Metric("auroc", "test AUROC", "", False))
    'test AUROC (higher is better)'
    """
    return metric.label + ("" if metric.lower_is_better else " (higher is better)")


def with_unit(value: float, metric: Metric) -> str:
    """A value of the metric with its unit: "4.06 %"."""
    return f"{value:.{digits(metric)}f}" + (f" {metric.unit}" if metric.unit else "")


def value(error: Mapping[str, Any], metric: Metric) -> str:
    """Mean ± standard deviation, where there is one; or which seeds have failed.

    >>> percent = Metric("error", "test error in %", "%", True)
    >>> value({"mean": 3.14159, "std": 0.2, "failed": []}, percent)
    '3.14 ± 0.20'
    >>> value({"mean": None, "std": None, "failed": [{"seed": 3}]}, percent)
    'seed 3 failed'
    """
    if error["failed"]:
        seeds = [str(each["seed"]) for each in error["failed"]]
        return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)} failed"
    places = digits(metric)
    std = error["std"]
    return f"{error['mean']:.{places}f}" + (f" ± {std:.{places}f}" if std is not None else "")


def signed(number: float, places: int = 2) -> str:
    """A number with its sign (a true minus).

    >>> signed(-0.5), signed(0.25), signed(-0.001)
    ('−0.50', '+0.25', '0.00')
    """
    text = f"{abs(number):.{places}f}"
    return text if float(text) == 0 else ("−" if number < 0 else "+") + text


def difference(figures: Mapping[str, Any], metric: Metric) -> str:
    """A difference with its confidence interval, which one seed does not give.

    >>> percent = Metric("error", "test error in %", "%", True)
    >>> difference({"mean": -0.5, "low": -0.75, "high": -0.25}, percent)
    '−0.50 [−0.75, −0.25]'
    >>> difference({"mean": 2.0, "low": -10.51, "high": 14.51}, percent)
    '+2.0 [−10.5, +14.5]'
    """
    known = [figures[key] for key in ("mean", "low", "high") if figures[key] is not None]
    places = digits(metric) - (max(map(abs, known)) >= 9.995)
    mean, *interval = (signed(number, places) for number in known)
    return f"{mean} [{', '.join(interval)}]" if interval else mean


def parameter(figures: Mapping[str, float], name: str) -> str:
    """A continuous parameter's mean ± standard deviation; its unit is in `UNITS`.

    >>> parameter({"mean": -0.0312, "std": 0.1}, "tx"), parameter({"mean": 4, "std": 9}, "rotation")
    ('−0.031 ± 0.100', '+4.0 ± 9.0')
    """
    places = 1 if name == "rotation" else 3
    return f"{signed(figures['mean'], places)} ± {figures['std']:.{places}f}"


def times(ratio: float | None) -> str:
    """A relative cost, with about three digits; a dash where there is none.

    >>> times(1.0), times(5.274), times(61.23), times(None)
    ('1.00', '5.27', '61.2', '–')
    """
    if ratio is None:
        return "–"
    return f"{ratio:.{2 if ratio < 9.995 else 1 if ratio < 99.95 else 0}f}"


def duration(seconds: float) -> str:
    """A length of time.

    >>> duration(3.21), duration(75), duration(7260), duration(864000)
    ('3.2 s', '1 min 15 s', '2 h 1 min', '10 days')
    """
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours >= 72:
        return f"{hours / 24:.0f} days"
    return f"{hours} h {minutes} min"


def capital(text: str) -> str:
    """With a capital first letter."""
    return text[0].upper() + text[1:]


def plural(count: int, what: str) -> str:
    """A number of things.

    >>> plural(1, "trial"), plural(0, "epoch")
    ('1 trial', '0 epochs')
    """
    return f"{count} {what}" + ("s" if count != 1 else "")


def predefined_words(predefined: Mapping[str, Any]) -> str:
    """What a predefined augmentation does; nothing is the empty string.

    >>> predefined_words({"flip": True, "vertical_flip": False, "padding": 4, "cutout": 0})
    'mirroring left-right, random crops after padding by 4 px'
    """
    parts = {
        "flip": "mirroring left-right",
        "vertical_flip": "mirroring top-bottom",
        "padding": "random crops after padding by {} px",
        "cutout": "Cutout of {} px",
    }
    return ", ".join(
        words.format(predefined[key]) for key, words in parts.items() if predefined.get(key)
    )
