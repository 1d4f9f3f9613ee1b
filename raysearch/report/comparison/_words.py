"""A comparison in words, the same on the terminal, in the plot and on the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raysearch.report._words import label, times

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
        )
    return lines
