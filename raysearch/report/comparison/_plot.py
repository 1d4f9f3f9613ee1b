"""cost_error.png: every row's cost against its error, with the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from raysearch.report._figures import COLOURS, png
from raysearch.report._words import phrase
from raysearch.report.comparison._words import row_label

Point = tuple[float, float, float, str, bool]  # cost, error, deviation, label, on the front


def cost_error_png(comparison: Mapping[str, Any]) -> bytes:
    """Total cost in plain trainings (logarithmic) against the test error in percent.

    Bars are standard deviations over seeds. The stepped line is the Pareto front: the lowest mean
    error that a budget buys.

    Args:
        comparison: see `compare`.
    """
    points = [
        (
            row["total_trainings"],
            row["error"]["mean"],
            row["error"]["std"] or 0.0,
            row_label(row),
            row["name"] in comparison["front"],
        )
        for row in comparison["rows"]
        if row["total_trainings"]
    ]
    figure = Figure(figsize=(8.0, max(4.2, 0.9 + 0.27 * len(points))), layout="constrained")
    axes = figure.add_subplot()
    for cost, error, deviation, _, on_front in points:
        colour = COLOURS[0] if on_front else "0.45"
        axes.errorbar(
            cost, error, yerr=deviation or None, fmt="o", color=colour, markersize=6, elinewidth=1
        )
    costs = [point[0] for point in points]
    low, high = min(costs, default=1.0) / 1.25, max(costs, default=1.0) * 1.25
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    _step(axes, points, high)
    _name(axes, points)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    plain = phrase(comparison["plain_training"])
    axes.set_xlabel(f"cost of search and one training, in trainings with {plain}")
    axes.set_ylabel("test error (%)")
    axes.set_title("Cost against error; the line is what a budget buys", fontsize=10, loc="left")
    return png(figure)


def _step(axes: Axes, points: Sequence[Point], end: float) -> None:
    front = sorted(point[:2] for point in points if point[4])
    if front:
        costs, errors = zip(*[*front, (end, front[-1][1])], strict=True)
        axes.step(costs, errors, where="post", color=COLOURS[0], linewidth=1.6, alpha=0.6)


def _name(axes: Axes, points: Sequence[Point]) -> None:
    """Names in a column on the right, apart from each other, with a thin line to each point."""
    low, high = axes.get_ylim()
    step = max(0.055, 1.0 / 40) * (high - low)
    ordered = sorted(points, key=lambda point: -point[1])
    places: list[float] = []
    for _, error, *_ in ordered:
        places.append(min(error, places[-1] - step) if places else error)
    shift = max(0.0, low + step / 2 - places[-1]) if places else 0.0
    for (cost, error, _, name, on_front), place in zip(ordered, places, strict=True):
        axes.annotate(
            f"{name}  {error:.2f}",
            (cost, error),
            xytext=(1.02, (place + shift - low) / (high - low)),
            textcoords="axes fraction",
            fontsize=9,
            va="center",
            color=COLOURS[0] if on_front else "0.25",
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
