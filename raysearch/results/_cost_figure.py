"""cost_error.png: every row's cost against its metric, with the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from raysearch.results._figures import COLOURS, png
from raysearch.results._statements import metric_of
from raysearch.results._words import digits, heading, phrase, short
from raysearch.tasks import Metric


class Point(NamedTuple):
    """A row in the plot: cost in plain trainings, and the metric."""

    cost: float
    mean: float
    std: float
    label: str
    on_front: bool


def cost_png(summary: Mapping[str, Any]) -> bytes | None:
    """Total cost in plain trainings (logarithmic) against the metric.

    Bars are standard deviations over seeds. The stepped line is the Pareto front: the best mean
    that a budget buys.

    Args:
        summary: see `summarise`.

    Returns:
        A PNG file; None where fewer than two rows have both.
    """
    points = [
        Point(
            row["total_trainings"],
            error["mean"],
            error["std"] or 0.0,
            row["label"],
            row["on_front"],
        )
        for name, row in summary["rows"].items()
        if (error := summary["errors"][name])["mean"] is not None and row["total_trainings"]
    ]
    if len(points) < 2:
        return None
    metric = metric_of(summary)
    figure = Figure(figsize=(8.0, max(4.2, 0.9 + 0.27 * len(points))), layout="constrained")
    axes = figure.add_subplot()
    for point in points:
        axes.errorbar(
            point.cost,
            point.mean,
            yerr=point.std or None,
            fmt="o",
            color=COLOURS[0] if point.on_front else "0.45",
            markersize=6,
            elinewidth=1,
        )
    low = min(point.cost for point in points) / 1.25
    high = max(point.cost for point in points) * 1.25
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    _step(axes, points, high)
    _name(axes, points, metric)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    plain = phrase(summary["plain_training"])
    axes.set_xlabel(f"cost of search and one training, in trainings with {plain}")
    axes.set_ylabel(heading(metric))
    axes.set_title(
        f"Cost against {short(metric)}; the line is what a budget buys", fontsize=10, loc="left"
    )
    return png(figure)


def _step(axes: Axes, points: Sequence[Point], end: float) -> None:
    front = sorted((point.cost, point.mean) for point in points if point.on_front)
    if front:
        costs, means = zip(*[*front, (end, front[-1][1])], strict=True)
        axes.step(costs, means, where="post", color=COLOURS[0], linewidth=1.6, alpha=0.6)


def _name(axes: Axes, points: Sequence[Point], metric: Metric) -> None:
    """Names in a column on the right, apart from each other, with a thin line to each point.

    Those of the best, which lie close, stay where they are; others make room.
    """
    low, high = axes.get_ylim()
    sign = 1 if metric.lower_is_better else -1
    step = max(0.055, 1.0 / 40) * (high - low)
    ordered = sorted(points, key=lambda point: sign * point.mean)
    heights: list[float] = []
    for point in ordered:
        least = sign * heights[-1] + step if heights else -math.inf
        heights.append(sign * max(sign * point.mean, least))
    for point, height in zip(ordered, heights, strict=True):
        axes.annotate(
            f"{point.label}  {point.mean:.{digits(metric)}f}",
            (point.cost, point.mean),
            xytext=(1.02, (height - low) / (high - low)),
            textcoords="axes fraction",
            fontsize=9,
            va="center",
            color=COLOURS[0] if point.on_front else "0.25",
            arrowprops={
                "arrowstyle": "-",
                "color": "0.8",
                "linewidth": 0.6,
                "shrinkA": 2,
                "shrinkB": 5,
                "relpos": (0, 0.5),  # to the name's left end
            },
            annotation_clip=False,
        )
