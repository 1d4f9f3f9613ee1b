"""A picture of a policy."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raysearch.files import write_whole
from raysearch.results._figures import COLOURS

MeanStd = tuple[float, float]

BLUE = "#3b6ea5"
COLUMNS = 4  # of small panels


def draw_policy(
    path: str | os.PathLike[str],
    starts: Sequence[float],
    shares: Sequence[Mapping[str, float]],
    operations_per_image: Sequence[float],
    parameters: Sequence[Mapping[str, MeanStd]],
) -> None:
    """Draw operations and parameters: bars where a policy never changes, else lines over time.

    Args:
        path: the picture's path; its ending chooses the format (`.png`, `.svg`, `.pdf`).
        starts: T points of a training in [0, 1), from each of which on the next entries hold.
        shares: T times the share of each operation in all applications, in [0, 1].
        operations_per_image: T times the expected number of applications.
        parameters: T times mean and standard deviation of each continuous parameter.
    """
    lasting = len(starts) == 1
    operations = list(dict.fromkeys(name for point in shares for name in point))
    continuous = list(dict.fromkeys(name for point in parameters for name in point))
    heights = []
    if operations:
        heights.append(0.8 + 0.28 * len(operations) if lasting else 4.2)
    if continuous:
        rows = -(-len(continuous) // COLUMNS)
        heights.append(0.8 + 0.28 * len(continuous) if lasting else 0.3 + 1.7 * rows)
    figure = Figure(figsize=(6 if lasting else 8, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    if operations and lasting:
        _bars(parts[0].subplots(), shares[0], operations_per_image[0])
    elif operations:
        _lines(parts[0], starts, shares, operations_per_image)
    if continuous and lasting:
        _means(parts[-1], parameters[0])
    elif continuous:
        points = {key: [point.get(key, (0.0, 0.0)) for point in parameters] for key in continuous}
        _bands(parts[-1], starts, points)
    path = Path(path)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=150, format=path.suffix.lstrip(".") or "png")
    write_whole(path, picture.getvalue())


def _bars(axes: Axes, shares: Mapping[str, float], operations_per_image: float) -> None:
    """Each operation's share, the strongest on top."""
    names = list(shares)[::-1]
    bars = axes.barh(names, [100 * shares[name] for name in names], color=BLUE)
    axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    axes.axvline(100 / len(names), color="0.5", linewidth=1, linestyle="--")
    axes.set_xlabel("share of applications (%); dashed: all alike")
    axes.set_title(f"{operations_per_image:.2f} operations per image", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _means(part: Any, parameters: Mapping[str, MeanStd]) -> None:
    """Means and standard deviations, the rotation on a scale of degrees of its own."""
    plain = {name: point for name, point in parameters.items() if name != "rotation"}
    turned = {name: point for name, point in parameters.items() if name == "rotation"}
    groups = [
        (group, unit) for group, unit in ((turned, "degrees"), (plain, "0: no change")) if group
    ]
    panels = part.subplots(
        len(groups), 1, squeeze=False, height_ratios=[len(group) + 1 for group, _ in groups]
    )
    for axes, (group, unit) in zip(panels[:, 0], groups, strict=True):
        names = list(group)[::-1]
        axes.axvline(0, color="0.5", linewidth=1, linestyle="--")
        axes.errorbar(
            [group[name][0] for name in names],
            names,
            xerr=[group[name][1] for name in names],
            fmt="o",
            color=BLUE,
            capsize=3,
        )
        axes.margins(y=0.6 / len(names))
        axes.set_xlabel(f"mean ± standard deviation ({unit})")
        axes.spines[["top", "right"]].set_visible(False)


def _lines(
    part: Any,
    starts: Sequence[float],
    shares: Sequence[Mapping[str, float]],
    operations_per_image: Sequence[float],
) -> None:
    """Each operation's share over the training, the strongest in colour; below how many there are.

    The strongest are those with the largest mean share.
    """
    names = {name: [point.get(name, 0.0) for point in shares] for point in shares for name in point}
    order = sorted(names, key=lambda name: -sum(names[name]))
    upper, lower = part.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    for name in order[len(COLOURS) :]:
        _steps(upper, starts, [100 * share for share in names[name]], color="0.8", linewidth=1)
    for name, colour in zip(order, COLOURS, strict=False):
        values = [100 * share for share in names[name]]
        _steps(upper, starts, values, color=colour, linewidth=2, label=name)
    others = len(order) - len(COLOURS)
    if others > 0:
        upper.plot([], [], color="0.8", label=f"{others} others")
    upper.axhline(100 / len(order), color="0.5", linewidth=1, linestyle="--", label="all alike")
    upper.set_ylabel("share of applications (%)")
    upper.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
    _steps(lower, starts, operations_per_image, color=BLUE, linewidth=2)
    lower.set_ylabel("operations\nper image")
    lower.set_ylim(bottom=0)
    lower.set_xlabel("share of the training done (%)")


def _bands(part: Any, starts: Sequence[float], parameters: Mapping[str, Sequence[MeanStd]]) -> None:
    """A panel for each parameter: its mean over the training, and one standard deviation."""
    rows = -(-len(parameters) // COLUMNS)
    panels = part.subplots(rows, min(COLUMNS, len(parameters)), squeeze=False)
    for axes in panels.flat[len(parameters) :]:
        axes.set_visible(False)
    for axes, (name, points) in zip(panels.flat, parameters.items(), strict=False):
        low = [mean - std for mean, std in points]
        high = [mean + std for mean, std in points]
        axes.axhline(0, color="0.5", linewidth=1, linestyle="--")
        times = [*_percent(starts), 100]
        low, high = [*low, low[-1]], [*high, high[-1]]
        axes.fill_between(times, low, high, step="post", color=BLUE, alpha=0.25, linewidth=0)
        _steps(axes, starts, [mean for mean, _ in points], color=BLUE, linewidth=1.5)
        axes.set_title(f"{name} (°)" if name == "rotation" else name, fontsize=9)
        axes.tick_params(labelsize=7)
    part.supxlabel("share of the training done (%); mean ± standard deviation", fontsize=9)


def _percent(starts: Sequence[float]) -> list[float]:
    return [100 * start for start in starts]


def _steps(axes: Axes, starts: Sequence[float], values: Sequence[float], **style: Any) -> None:
    """Values that hold from each start to the next, the last to the end of the training."""
    axes.step([*_percent(starts), 100], [*values, values[-1]], where="post", **style)
    axes.set_xlim(0, 100)
    axes.spines[["top", "right"]].set_visible(False)
