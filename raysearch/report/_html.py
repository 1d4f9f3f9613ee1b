"""report.html: one file that works offline."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from raysearch.console import duration
from raysearch.policy import Policy, SubPolicies
from raysearch.report._statistics import levels
from raysearch.report._words import (
    UNITS,
    difference,
    guessing,
    idle,
    label,
    ordered,
    parameter,
    percent,
    phrase,
    predefined_words,
    short,
    times,
    unpaired,
    verdict,
)

SUB_POLICIES = 15  # listed at most
WORDS = 90  # lines of a policy's description, shared by its members and phases
_SETTINGS = {"keep_trailing_newline": True, "trim_blocks": True, "lstrip_blocks": True}


def report_html(
    summary: Mapping[str, Any],
    policy: Policy,
    pictures: Mapping[str, bytes | None],
    size: Sequence[int],
) -> bytes:
    """The report as one HTML file: no script, nothing loaded from anywhere.

    Args:
        summary: see `write_report`.
        policy: the learned policy; its sub-policies are listed where it has any.
        pictures: PNG files `policy`, `augmented` and `curves`; None leaves one out.
        size: height and width of the images in pixels.
    """
    errors = summary["errors"]
    html = template("report.html.j2").render(
        summary=summary,
        policies=ordered(errors),
        best=min(errors, key=lambda name: errors[name]["mean"]) if errors else None,
        verdicts=guessing(list(errors.values()), summary["guess_error"], summary["images"])
        + [
            verdict(name, figures, row)
            for row, key in ((summary["row"], "differences"), ("joint", "joint_differences"))
            for name, figures in summary[key].items()
        ]
        + unpaired(summary)
        + idle(summary),
        differences=[
            (short(summary["row"]), summary["differences"]),
            (short("joint"), summary["joint_differences"]),
        ],
        chart=_dots(errors),
        operations=sorted(summary["policy"]["operations"].items(), key=lambda item: -item[1]),
        units=UNITS,
        levels=[f"{level:g}" for level in levels(summary["policy"]["uniform"])],
        predefined=predefined_words(summary["predefined"]),
        sub_policies=_sub_policies(policy),
        description=policy.describe(WORDS) if summary["policy"]["operations"] else "",
        height=size[0],
        width=size[1],
        folder=_train_folder(summary["configuration"]["data"]),
        pictures={name: data_url(png) for name, png in pictures.items() if png is not None},
        configuration=json.dumps(summary["configuration"], indent=2, ensure_ascii=False),
    )
    return html.encode("utf-8")


@cache
def template(name: str) -> jinja2.Template:
    """A page's template, with the filters that put figures into words."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("raysearch.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        **_SETTINGS,  # type: ignore[arg-type]
    )
    environment.filters.update(
        duration=duration,
        label=label,
        phrase=phrase,
        percent=percent,
        difference=difference,
        times=times,
        parameter=parameter,
    )
    return environment.get_template(name)


def data_url(png: bytes) -> str:
    """A picture as a part of a page."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _train_folder(data: Mapping[str, Any]) -> str:
    """The folder of training images where the data are one, or else an example."""
    if data.get("name") != "folder":
        return "photos/train"
    train = Path(data["root"]) / "train"
    return str(train if train.is_dir() else train.parent)


def _sub_policies(policy: Policy) -> list[dict[str, Any]]:
    """The heaviest sub-policies: `weight` and `operations` with name, probability, magnitude."""
    if not isinstance(policy, SubPolicies):
        return []
    listed: list[dict[str, Any]] = policy.top(SUB_POLICIES).body()["sub_policies"]
    heaviest = policy.weights.sort(descending=True).values.tolist()
    return [{**entry, "weight": weight} for entry, weight in zip(listed, heaviest, strict=False)]


def _dots(errors: Mapping[str, Any]) -> dict[str, Any] | None:
    """Places, in percent of the width, for a chart with a dot per run and a line at the mean."""
    runs: list[float] = [run for error in errors.values() for run in error["runs"]]
    if not runs:
        return None
    low, high = min(runs), max(runs)
    margin = 0.05 * (high - low) or 0.5
    low, high = max(0.0, low - margin), high + margin

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    return {
        "low": low,
        "high": high,
        "rows": [
            {
                "policy": name,
                "mean": place(errors[name]["mean"]),
                "runs": [place(run) for run in errors[name]["runs"]],
            }
            for name in ordered(errors)
        ],
    }
