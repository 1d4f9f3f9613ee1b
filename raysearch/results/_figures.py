"""What pictures have in common; drawn without pyplot's global state."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

COLOURS = ("#1f77b4", "#d95f02", "#1b9e77", "#c22f7a", "#7570b3", "#a6761d")

NAME_HEIGHT = 0.055  # of a name beside a figure, in heights of its axes

Point = tuple[float, float, str, str]
Values = npt.NDArray[np.float64]  # [seed, epoch]; NaN where a trial ended early


def series(search: pd.DataFrame, prefix: str) -> dict[str, Values]:
    """The metrics of a search whose names begin with `prefix`, or the one of that name.

    Args:
        search: the history of its trials, one a seed.
        prefix: ends in a slash, and is left out of the names then.
    """
    several = prefix.endswith("/")
    names = [
        name
        for name in search.columns
        if (name.startswith(prefix) if several else name == prefix) and search[name].notna().any()
    ]
    if not names:
        return {}
    table = search.pivot(index=["seed", "trial"], columns="epoch", values=names)
    return {name.partition("/")[2] or name: table[name].to_numpy() for name in names}


def mean(values: Values) -> Values:
    """Over the seeds that came so far, [epoch]; NaN where none has the metric."""
    return np.asarray(pd.DataFrame(values).mean())


def plot(axes: Axes, values: Values, colour: str, label: str | None = None) -> None:
    """The mean over seeds against the epoch, and thin lines for the single seeds."""
    epochs = np.arange(1, values.shape[1] + 1)
    if len(values) > 1:
        axes.plot(epochs, values.T, color=colour, linewidth=0.7, alpha=0.4)
    marker = "o" if len(epochs) < 2 else ""
    axes.plot(epochs, mean(values), color=colour, linewidth=2.2, marker=marker, label=label)
    axes.set_xlim(1, max(len(epochs), 2))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.spines[["top", "right"]].set_visible(False)


def name_points(
    axes: Axes, points: Sequence[Point], left: float, upwards: bool = False, **line: Any
) -> None:
    """Write names in a column on the right, at the heights of their points but apart.

    Args:
        axes: with the limits that they will have.
        points: height, place on the horizontal axis, name and colour of each.
        left: of the column, in widths of the axes.
        upwards: the lowest names stay where they are, and others make room; else the highest.
        line: how a line from name to point looks; none is drawn without.
    """
    low, high = axes.get_ylim()
    sign = 1 if upwards else -1
    points = sorted(points, reverse=not upwards)
    heights: list[float] = []
    for y, *_ in points:
        least = heights[-1] + sign * NAME_HEIGHT * (high - low) if heights else y
        heights.append(sign * max(sign * y, sign * least))
    shortfall = max(0.0, low + NAME_HEIGHT * (high - low) / 2 - heights[-1])
    for height, (y, x, name, colour) in zip(heights, points, strict=True):
        axes.annotate(
            name,
            (x, y),
            xytext=(left, (height + shortfall - low) / (high - low)),
            textcoords="axes fraction",
            color=colour,
            fontsize=9,
            va="center",
            arrowprops=line or None,
            annotation_clip=False,
        )


def panels(count: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with `count` small panels in rows, each `height` inches high."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(8.0, 0.3 + height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[count:]:
        axes.set_visible(False)
    for axes in grid.flat[:count]:
        axes.tick_params(labelsize=8)
    return figure, list(grid.flat[:count])


def png(figure: Figure, dpi: float = 130.0) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()
