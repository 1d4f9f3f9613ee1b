"""A comparison in words, the same on the terminal, in the plot and on the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raysearch.report._words import difference, guessing, label, predefined_words, times

METHODS = {
    "dada": "DADA",
    "ddas": "DDAS",
    "bilevel": "online bilevel",
    "stn": "STN",
    "aws": "AWS",
    "ohl": "OHL",
    "pba": "PBA",
    "fast_autoaugment": "Fast AutoAugment",
    "validated_magnitude": "validated magnitude",
    "randaugment": "RandAugment",
}


def row_label(row: Mapping[str, Any]) -> str:
    """A row's name for people: the method's, with the run's where that says more.

    >>> row_label({"name": "dada", "method": "dada"}), row_label({"name": "dada_paper",
    ... "method": "dada"}), row_label({"name": "none", "method": "none"})
    ('DADA', 'dada_paper', 'no augmentation')
    """
    name: str = row["name"]
    base, _, rest = name.partition(" (")
    known = METHODS.get(base) or label(base)
    return f"{known} ({rest}" if rest else known


def best_by_budget(comparison: Mapping[str, Any]) -> list[str]:
    """What to take with how much to spend, from the Pareto front."""
    rows = {row["name"]: row for row in comparison["rows"]}
    front = [rows[name] for name in comparison["front"]]
    lines = []
    for row, following in zip(front, [*front[1:], None], strict=True):
        budget = (
            f"below {times(following['total_trainings'])} plain trainings"
            if following is not None
            else f"from {times(row['total_trainings'])} plain trainings on"
        )
        lines.append(
            f"With a budget {budget}: {row_label(row)}, {row['error']['mean']:.2f} % "
            f"(search and one training cost {times(row['total_trainings'])})."
            + _doubt(comparison["steps"].get(row["name"]))
        )
    return lines


def _doubt(step: Mapping[str, Any] | None) -> str:
    """Whether a row of the front is told apart from the one before it, which is cheaper."""
    if step is None or (step["high"] is not None and step["high"] < 0):
        return ""
    return f" That it beats what is cheaper is not settled: {difference(step)} points."


def remarks(comparison: Mapping[str, Any]) -> list[str]:
    """What goes with all policies, which methods could not go on, and that nothing was learned."""
    words = predefined_words(comparison["settings"]["data"].get("predefined") or {})
    others = {
        row_label(row): predefined_words(row["predefined"])
        for row in comparison["rows"]
        if row["predefined"] is not None and row["name"] != "none"
    }
    lines = []
    if words and any(row["name"] != "none" for row in comparison["rows"]):
        line = f"Every policy but no augmentation goes with the predefined one: {words}"
        for name, own in others.items():
            if own != words:
                line += f"; {name} with this instead: {own}" if own else f"; {name} goes without it"
        lines.append(f"{line}.")
    for name, reason in comparison["failed"].items():
        method = METHODS.get(name) or label(name)
        lines.append(f"{method} could not go on and is left out: {reason}.")
    errors = [row["error"] for row in comparison["rows"]]
    lines += guessing(errors, comparison["guess_error"], comparison["images"])
    return lines
