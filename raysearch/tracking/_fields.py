"""How names and values are written in MLflow. Every run, parent or child, uses the same names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

PARAM_LIMIT = 6000  # MLflow 3: characters of a parameter's value
TAG_LIMIT = 8000
KEY_LIMIT = 250

COSTS = ("wall_seconds", "device_seconds", "epoch_equivalents")
"""What a run itself cost; on the parent, the search and all evaluations together."""

SEARCH_COSTS = tuple(f"search_{cost}" for cost in COSTS)
"""What finding the policy cost: 0 for the baselines, so that every evaluation is comparable."""

FIGURES = {
    "errors": ("test_error", ("mean", "std")),
    "differences": ("difference", ("mean", "low", "high")),
    "joint_differences": ("joint_difference", ("mean", "low", "high")),
    "relative_cost": ("relative_cost", ("epoch_equivalents", "device_seconds")),
}
"""Groups of a summary, one entry a policy: their name as a metric, and the figures logged."""


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as dotted parameter names and texts that MLflow takes.

    Lists and None are written as JSON; values over MLflow's limit are cut and end in an ellipsis.

    >>> list(flatten({"search": {"epochs": 20, "lr": 0.1}, "seeds": [0, 1]}))
    [('search.epochs', '20'), ('search.lr', '0.1'), ('seeds', '[0, 1]')]
    """
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            if value:
                yield from flatten(value, f"{name}.")
            continue
        if value is None or isinstance(value, bool | list | tuple):
            text = json.dumps(value, default=str)
        else:
            text = str(value)
        yield entity_key(name), cut(text, PARAM_LIMIT)


def cut(text: str, limit: int) -> str:
    """`text`, shortened to `limit` characters with an ellipsis where it is longer."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def entity_key(name: str) -> str:
    """`name` in MLflow's character set: letters, digits, `_ - . : /` and spaces.

    >>> entity_key("share/ShearX"), entity_key("error (%)"), entity_key("../x")
    ('share/ShearX', 'error ___', '_/x')
    """
    parts = re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII).split("/")
    safe = ["_" if part.strip(".") == "" else part for part in parts]
    return "/".join(safe)[:KEY_LIMIT]


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The entries of `values` that are numbers, under names that MLflow takes."""
    return {
        entity_key(name): float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def summary_metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """A finished run's figures for its parent run; see `raysearch.report.write_report`.

    `test_error` is the mean of the run's policy in percent, or the jointly trained network's where
    no policy was evaluated; `test_error/<policy>/mean` and `/std` hold every policy's and the
    network's (`joint`), `relative_cost/<policy>/epoch_equivalents` and `/device_seconds` the cost
    over that of a plain training. `difference/<baseline>/mean`, `/low` and `/high` are the run's
    policy's difference with its 95 % confidence interval, `joint_difference/...` the network's;
    `share/<Op>`, `mean/<parameter>` and `std/<parameter>` what the policy does.
    """
    found: dict[str, Any] = {}
    search = summary.get("search", {})
    evaluations: Sequence[Mapping[str, Any]] = list(summary.get("evaluations", {}).values())
    for cost, search_cost in zip(COSTS, SEARCH_COSTS, strict=True):
        if cost in search:
            found[search_cost] = search[cost]
            found[cost] = search[cost] + sum(part.get(cost, 0.0) for part in evaluations)
    stages = numbers(summary.get("wall_seconds", {}))
    if stages:  # trials overlap, so the stages' own time counts
        found["wall_seconds"] = stages.get("total", sum(stages.values()))
    errors = summary.get("errors", {})
    result = errors.get(summary.get("row", "learned")) or errors.get("joint") or {}
    found["test_error"], found["test_error_std"] = result.get("mean"), result.get("std")
    for group, (prefix, keys) in FIGURES.items():
        for name, figures in summary.get(group, {}).items():
            found |= {f"{prefix}/{name}/{key}": figures.get(key) for key in keys}
    policy = summary.get("policy", {})
    for name, share in policy.get("operations", {}).items():
        found[f"share/{name}"] = share
    for name, figures in policy.get("parameters", {}).items():
        found |= {f"mean/{name}": figures.get("mean"), f"std/{name}": figures.get("std")}
    return numbers(found)
