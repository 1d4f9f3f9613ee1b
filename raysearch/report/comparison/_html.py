"""comparison.html: one file that works offline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raysearch.report._html import data_url, template
from raysearch.report._words import NOTHING, UNITS, phrase
from raysearch.report.comparison._words import best_by_budget, remarks, row_label

AUGMENTED = "augmented.png"  # of a run's folder
DARKEST = 55  # percent of the accent colour behind the largest share


def comparison_html(comparison: Mapping[str, Any], plot: bytes) -> bytes:
    """The comparison as one HTML file: no script, nothing loaded from anywhere.

    Args:
        comparison: see `compare`; runs' pictures are taken from their folders, where they are.
        plot: see `cost_error_png`.
    """
    rows = comparison["rows"]
    policies = [row for row in rows if row["policy"] and _does_something(row["policy"])]
    continuous = [row for row in policies if row["policy"]["parameters"]]
    shown = template("comparison.html.j2").render(
        comparison=comparison,
        references=comparison["references"],
        labels={row["name"]: row_label(row) for row in rows},
        plain=phrase(comparison["plain_training"]),
        budgets=[*best_by_budget(comparison), *remarks(comparison)],
        plot=data_url(plot),
        shares=_shares([row for row in policies if row["policy"]["operations"]]),
        continuous=continuous,
        parameters=dict.fromkeys(
            name for row in continuous for name in row["policy"]["parameters"]
        ),
        units=UNITS,
        nothing=NOTHING,
        pictures=_pictures(comparison, policies),
    )
    return shown.encode("utf-8")


def _does_something(policy: Mapping[str, Any]) -> bool:
    return bool(set(policy["operations"]) - {"Identity"} or policy["parameters"])


def _shares(rows: list[Any]) -> dict[str, Any]:
    """Operations' shares in percent, [operation, row]; None where a policy lacks an operation."""
    totals: dict[str, float] = {}
    for row in rows:
        for name, share in row["policy"]["operations"].items():
            totals[name] = totals.get(name, 0.0) + share
    names = sorted(totals, key=lambda name: -totals[name])
    most = max((max(row["policy"]["operations"].values()) for row in rows), default=0.0) or 1.0
    return {
        "rows": [row["name"] for row in rows],
        "per_image": [row["policy"]["operations_per_image"] for row in rows],
        "operations": [
            {
                "name": name,
                "cells": [
                    None
                    if (share := row["policy"]["operations"].get(name)) is None
                    else {"percent": 100 * share, "shade": round(DARKEST * share / most)}
                    for row in rows
                ],
            }
            for name in names
        ],
    }


def _pictures(comparison: Mapping[str, Any], rows: list[Any]) -> list[tuple[str, str]]:
    """Name and picture of augmented images, of each run that has one."""
    folders = {run["name"]: run["folder"] for run in comparison["runs"]}
    found = []
    for row in rows:
        folder = folders.get(row["name"])
        path = Path(folder) / AUGMENTED if folder else None
        if path is not None and path.is_file():
            found.append((row["name"], data_url(path.read_bytes())))
    return found
