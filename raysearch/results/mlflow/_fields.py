"""How names and values are written in MLflow. Every run, parent or child, uses the same names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from raysearch.trials import COSTS

PARAM_LIMIT = 6000  # MLflow 3: characters of a parameter's value
TAG_LIMIT = 8000
KEY_LIMIT = 250

SEARCH_COSTS = tuple(f"search_{cost}" for cost in COSTS)
"""What finding the policy cost: 0 for the baselines, so that every evaluation is comparable."""


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


def summary_metrics(summary: Mapping[str, Any], method: str | None = None) -> dict[str, float]:
    """A finished experiment's figures for its parent run, or those of one of its methods.

    With classification's error as the metric: `test_error` is the mean of the method's policy, or
    of its jointly trained networks where the policy was not evaluated, and `test_error_std`;
    `test_error/<row>/mean` and `/std` hold every row's. `difference/<row>/mean`, `/low` and `/high`
    are the method's difference from each baseline with its 95 % confidence interval,
    `joint_difference/...` that of its networks; `relative_cost/<row>/epoch_equivalents` and
    `/device_seconds` are a row's cost over that of a plain training. `trainings_bought` and
    `total_trainings` are the method's cost in plain trainings, `share/<Op>`, `mean/<parameter>` and
    `std/<parameter>` what its policy does.

    Args:
        summary: see `summarise`.
        method: whose run it is; None where the run is the whole experiment's.
    """
    methods, rows = summary["methods"], summary["rows"]
    name = method if method is not None else (next(iter(methods)) if len(methods) == 1 else None)
    found = _costs(summary, method)
    prefix = f"test_{summary['metric']['name']}"
    for row, error in summary["errors"].items():
        if method is None or rows[row]["method"] == method:
            found |= {f"{prefix}/{row}/{key}": error[key] for key in ("mean", "std")}
            found[f"relative_cost/{row}/epoch_equivalents"] = rows[row]["total_trainings"]
            found[f"relative_cost/{row}/device_seconds"] = rows[row]["total_time"]
    if name is None:
        return numbers(found)
    own = main_row(summary, name)
    if own is not None:
        found[prefix] = summary["errors"][own]["mean"]
        found[f"{prefix}_std"] = summary["errors"][own]["std"]
        found |= row_figures(summary, own)
    for row, known in rows.items():
        if known["kind"] == "network" and known["method"] == name:
            found |= _differences(summary, row, "joint_difference")
    policy = methods[name]["policy"]
    found |= {f"share/{key}": share for key, share in policy["operations"].items()}
    for key, figures in policy["parameters"].items():
        found |= {f"mean/{key}": figures["mean"], f"std/{key}": figures["std"]}
    return numbers(found)


def main_row(summary: Mapping[str, Any], method: str) -> str | None:
    """The row that stands for a method: that of its policy, or of its networks."""
    row = summary["methods"][method]["row"]
    if row in summary["rows"]:
        return str(row)
    own = (name for name, each in summary["rows"].items() if each["method"] == method)
    return next(own, None)


def row_figures(summary: Mapping[str, Any], row: str) -> dict[str, float]:
    """What a row costs in plain trainings, and its differences from the baselines."""
    figures = {key: summary["rows"][row][key] for key in ("trainings_bought", "total_trainings")}
    return numbers({**figures, **_differences(summary, row, "difference")})


def search_costs(summary: Mapping[str, Any], row: str) -> dict[str, float]:
    """What finding a row's policy cost, as measured; 0 for a baseline."""
    known = summary["rows"][row]
    if known["kind"] == "baseline":
        return dict.fromkeys(SEARCH_COSTS, 0.0)
    method = summary["methods"][known["method"]]
    share = known["searches"] / len(method["searches"])
    return {f"search_{cost}": share * method["search"][cost] for cost in COSTS}


def _differences(summary: Mapping[str, Any], row: str, prefix: str) -> dict[str, Any]:
    """A row's differences from the baselines, and a network's from its method's policy."""
    is_network = summary["rows"][row]["kind"] == "network"
    return {
        f"{prefix}/{other}/{key}": difference[key]
        for other, difference in summary["differences"][row].items()
        for key in ("mean", "low", "high")
        if is_network or summary["rows"][other]["kind"] == "baseline"
    }


def _costs(summary: Mapping[str, Any], method: str | None) -> dict[str, Any]:
    """What the search cost, and the search with all evaluations."""
    search = summary["search"] if method is None else summary["methods"][method]["search"]
    rows = summary["rows"]
    evaluations = [
        part
        for row, part in summary["evaluations"].items()
        if method is None or rows[row]["method"] == method
    ]
    found: dict[str, Any] = {f"search_{cost}": search[cost] for cost in COSTS}
    found |= {cost: search[cost] + sum(part[cost] for part in evaluations) for cost in COSTS}
    stages = numbers(summary["wall_seconds"])
    if method is None and stages:  # trials overlap, so the experiment's own time counts
        found["wall_seconds"] = stages.get("total", sum(stages.values()))
    return found
