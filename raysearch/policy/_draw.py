"""A picture of a policy."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from raysearch.files import write_whole


def draw_shares(
    shares: Mapping[str, float], operations_per_image: float, path: str | os.PathLike[str]
) -> None:
    """Write a bar chart of each operation's share of all applications.

    Args:
        shares: share of each operation in [0, 1], strongest first.
        operations_per_image: expected number of applications, for the title.
        path: the picture's path; its ending chooses the format (`.png`, `.svg`, `.pdf`).
    """
    path = Path(path)
    figure = Figure(figsize=(6, 0.8 + 0.28 * len(shares)), layout="constrained")
    axes = figure.add_subplot()
    names = list(shares)[::-1]
    bars = axes.barh(names, [100 * shares[name] for name in names], color="#3b6ea5")
    axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    axes.axvline(100 / len(names), color="0.5", linewidth=1, linestyle="--")
    axes.set_xlabel("share of applications (%); dashed: uniform")
    axes.set_title(f"{operations_per_image:.2f} operations per image", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=150, format=path.suffix.lstrip(".") or "png")
    write_whole(path, picture.getvalue())
