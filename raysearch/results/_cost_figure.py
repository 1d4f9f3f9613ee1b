"""cost_error.png: every row's cost against its metric, with the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from raysearch.results._figures import COLOURS, name_points, png
from raysearch.results._statements import metric_of
from raysearch.results._words import digits, heading, phrase, short

LINE = {  # from a point to the left end of its name
    "arrowstyle": "-",
    "color": "0.8",
    "linewidth": 0.6,
    "shrinkA": 2,
    "shrinkB": 5,
    "relpos": (0, 0.5),
}


def cost_png(summary: Mapping[str, Any]) -> bytes | None:
    """Total cost in plain trainings (logarithmic) against the metric.

    Bars are standard deviations over seeds. The stepped line is the Pareto front: the best mean
    that a budget buys.

    Args:
        summary: see `summarise`.

    Returns:
        A PNG file; None where fewer than two rows have both.
    """
    errors, metric = summary["errors"], metric_of(summary)
    rows = {
        name: row
        for name, row in summary["rows"].items()
        if errors[name]["mean"] is not None and row["total_trainings"]
    }
    if len(rows) < 2:
        return None
    figure = Figure(figsize=(8.0, max(4.2, 0.9 + 0.27 * len(rows))), layout="constrained")
    axes = figure.add_subplot()
    points = []
    for name, row in rows.items():
        cost, mean, std = row["total_trainings"], errors[name]["mean"], errors[name]["std"]
        colour = COLOURS[0] if row["on_front"] else "0.45"
        axes.errorbar(
            cost, mean, yerr=std or None, fmt="o", color=colour, markersize=6, elinewidth=1
        )
        shown = f"{row['label']}  {mean:.{digits(metric)}f}"
        points.append((mean, cost, shown, COLOURS[0] if row["on_front"] else "0.25"))
    costs = [row["total_trainings"] for row in rows.values()]
    axes.set_xscale("log")
    axes.set_xlim(min(costs) / 1.25, 1.25 * max(costs))
    front = [name for name in summary["front"] if name in rows]
    if front:  # to the right end
        steps = [rows[name]["total_trainings"] for name in front] + [1.25 * max(costs)]
        means = [errors[name]["mean"] for name in [*front, front[-1]]]
        axes.step(steps, means, where="post", color=COLOURS[0], linewidth=1.6, alpha=0.6)
    name_points(axes, points, 1.02, upwards=metric.lower_is_better, **LINE)
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
