"""report.html: one file that works offline."""

from __future__ import annotations

import base64
import inspect
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from raysearch.policy import Policy, SubPolicies
from raysearch.results import _words
from raysearch.results._frame import Measured
from raysearch.results._statements import (
    NOTHING,
    best,
    metric_of,
    references,
    searched,
    several,
    statements,
)
from raysearch.results._statistics import levels
from raysearch.results._words import UNITS, digits, predefined_words
from raysearch.tasks import Metric

SUB_POLICIES = 15  # listed at most
WORDS = 90  # lines of a policy's description, shared by its members and phases
DARKEST = 55  # percent of the accent colour behind the largest share

Pictures = Mapping[str, bytes | None]


def page(
    summary: Mapping[str, Any],
    measured: Measured,
    pictures: Mapping[str, Pictures],
    cost: bytes | None,
) -> bytes:
    """The page as one HTML file: no script, nothing loaded from anywhere.

    Args:
        summary: of `measured`, see `summarise`.
        measured: whose policies are described.
        pictures: PNG files `policy`, `augmented` and `curves` of each method; None leaves one out.
        cost: cost against the metric, likewise.
    """
    rows, metric = summary["rows"], metric_of(summary)
    use = _to_use(summary)
    html = _template().render(
        summary=summary,
        metric=metric,
        points=" in percentage points," if metric.unit == "%" else "",
        best=best(list(rows), summary),
        statements=statements(summary),
        references=references(summary),
        between=[name for name in searched(summary) if summary["differences"][name]],
        any_searched=bool(searched(summary)),
        chart=_dots(summary, metric),
        cost=_data_url(cost) if cost else None,
        several=several(summary),
        side_by_side=_side_by_side(summary) if several(summary) else None,
        units=UNITS,
        methods={
            name: _method(measured.methods[name].policy, method, pictures.get(name, {}))
            for name, method in summary["methods"].items()
        },
        use=use,
        predefined=predefined_words(summary["methods"][use]["predefined"]) if use else "",
        folder=_train_folder(summary["configuration"].get("data") or {}),
        configuration=json.dumps(_settings(summary), indent=2, ensure_ascii=False),
    )
    return html.encode("utf-8")


@cache
def _template() -> jinja2.Template:
    """The page's template, with the filters that put figures into words."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("raysearch.results", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= dict(inspect.getmembers(_words, inspect.isfunction))
    return environment.get_template("page.html.j2")


def _data_url(png: bytes) -> str:
    """A picture as a part of a page."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _method(policy: Policy, figures: Mapping[str, Any], pictures: Pictures) -> dict[str, Any]:
    """What the page says about one method beside its figures."""
    shares = figures["policy"]["operations"]
    return {
        "operations": sorted(shares.items(), key=lambda item: -item[1]),
        "levels": [f"{level:g}" for level in levels(figures["policy"]["uniform"])],
        "sub_policies": _sub_policies(policy),
        "description": policy.describe(WORDS) if shares else "",
        "pictures": {name: _data_url(png) for name, png in pictures.items() if png is not None},
    }


def _to_use(summary: Mapping[str, Any]) -> str | None:
    """The method whose policy the page says how to use: the best that was tested."""
    methods = summary["methods"]
    by_row = {method["row"]: name for name, method in methods.items()}
    row = best([row for row in by_row if row in summary["errors"]], summary)
    return by_row[row] if row is not None else next(iter(methods), None)


def _train_folder(data: Mapping[str, Any]) -> str:
    """The folder of training images where the data are one, or else an example."""
    if data.get("name") != "folder":
        return "photos/train"
    train = Path(data["root"]) / "train"
    return str(train if train.is_dir() else train.parent)


def _settings(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What all methods share, and each one's own."""
    own = {name: method["configuration"] for name, method in summary["methods"].items()}
    if not several(summary):
        return {**summary["configuration"], **next(iter(own.values()))}
    return {**summary["configuration"], "methods": own}


def _sub_policies(policy: Policy) -> list[dict[str, Any]]:
    """The heaviest sub-policies: `weight` and `operations` with name, probability, magnitude."""
    if not isinstance(policy, SubPolicies):
        return []
    listed: list[dict[str, Any]] = policy.top(SUB_POLICIES).body()["sub_policies"]
    heaviest = policy.weights.sort(descending=True).values.tolist()
    return [{**entry, "weight": weight} for entry, weight in zip(listed, heaviest, strict=False)]


def _side_by_side(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The policies of several methods in two tables: operations and continuous parameters.

    `shares` are the operations', [operation, method], the largest first; NaN where a policy lacks
    one. The largest of all has the shade `darkest`, in percent.
    """
    policies = {
        name: method["policy"]
        for name, method in summary["methods"].items()
        if set(method["policy"]["operations"]) - {"Identity"} or method["policy"]["parameters"]
    }
    discrete = {name: each for name, each in policies.items() if each["operations"]}
    shares = pd.DataFrame({name: each["operations"] for name, each in discrete.items()})
    order = shares.sum(axis=1).sort_values(ascending=False, kind="stable").index
    return {
        "discrete": discrete,
        "shares": shares.loc[order],
        "darkest": DARKEST / max(shares.max(), default=1.0),
        "continuous": {name: each for name, each in policies.items() if each["parameters"]},
        "parameters": dict.fromkeys(
            name for each in policies.values() for name in each["parameters"]
        ),
        "nothing": NOTHING,
    }


def _dots(summary: Mapping[str, Any], metric: Metric) -> dict[str, Any] | None:
    """The ends of the axis of a chart with a dot per run, and how they are written."""
    runs = [run for error in summary["errors"].values() for run in error["runs"]]
    if not runs:
        return None
    margin = 0.05 * (max(runs) - min(runs)) or (0.5 if metric.unit == "%" else 0.005)
    low, high = max(0.0, min(runs) - margin), max(runs) + margin
    ends = [f"{end:.{digits(metric) - 1}f} {metric.unit}".strip() for end in (low, high)]
    return {"low": low, "width": high - low, "ends": ends}
