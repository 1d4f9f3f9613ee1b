"""policy.png, augmented.png and the report's curves, drawn without pyplot's global state."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torch.nn import functional

from raysearch.policy import Policy
from raysearch.tracking import TrialResult

PREFIX = "share/"
LABELLED = 6  # operations drawn in colour
COLOURS = ("#1f77b4", "#d95f02", "#1b9e77", "#c22f7a", "#7570b3", "#a6761d")
COLUMNS = 8  # images in a row of augmented.png
DRAWS = 5  # rows of augmented images
CELL = 96  # pixels of an image's longer side, about
Curves = dict[str, npt.NDArray[np.float64]]


def policy_png(search: Sequence[TrialResult], policy: Policy) -> bytes:
    """Each operation's share of all applications over the search, the mean over its seeds.

    Thin lines are the single seeds. A search without `share/<Op>` metrics gets a bar
    chart of the policy itself.
    """
    curves = _curves(search, PREFIX)
    if not curves:
        return _png(_bars(policy.marginals()))
    names = sorted(curves, key=lambda name: -float(np.nanmean(curves[name][:, -1])))
    figure = Figure(figsize=(8.0, 4.6), layout="constrained")
    axes = figure.add_subplot()
    epochs = np.arange(1, curves[names[0]].shape[1] + 1)
    for name in names[LABELLED:][::-1]:
        axes.plot(epochs, _mean(curves[name]), color="0.78", linewidth=1)
    uniform = 100 / len(names)
    ends = [(uniform, f"uniform  {uniform:.1f} %", "0.35")]
    axes.axhline(uniform, color="0.35", linewidth=1, linestyle="--")
    for name, colour in zip(names[:LABELLED], COLOURS, strict=False):
        values = 100 * curves[name]
        mean = np.nanmean(values, axis=0)
        if len(values) > 1:
            axes.plot(epochs, values.T, color=colour, linewidth=0.7, alpha=0.4)
        axes.plot(epochs, mean, color=colour, linewidth=2.2, marker="o" if len(epochs) < 2 else "")
        ends.append((float(mean[-1]), f"{name}  {mean[-1]:.1f} %", colour))
    axes.set_ylim(bottom=0)
    _label_ends(axes, float(epochs[-1]), ends)
    axes.set_xlim(float(epochs[0]), max(float(epochs[-1]), 2.0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("search epoch")
    axes.set_ylabel("share of applications (%)")
    seeds = len(curves[names[0]])
    others = f", the other {len(names) - LABELLED} in grey" if len(names) > LABELLED else ""
    spread = f"mean of {seeds} seeds, thin: each seed" if seeds > 1 else "one seed"
    axes.set_title(f"Operations over the search ({spread}{others})", fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def curves_png(search: Sequence[TrialResult]) -> bytes | None:
    """How far the policy moved (KL from uniform) and the validation loss, over the search."""
    panels = [
        ("kl_uniform", "KL divergence from uniform (nats)"),
        ("entropy", "entropy of the policy (nats)"),
        ("val_loss", "validation loss"),
    ]
    shown = [(key, title) for key, title in panels if key in _curves(search, key)]
    if not shown:
        return None
    figure = Figure(figsize=(8.0, 2.5), layout="constrained")
    for axes, (key, title) in zip(
        np.atleast_1d(figure.subplots(1, len(shown))), shown, strict=True
    ):
        values = _curves(search, key)[key]
        epochs = np.arange(1, values.shape[1] + 1)
        for line in values:
            axes.plot(epochs, line, color="0.75", linewidth=1)
        axes.plot(epochs, np.nanmean(values, axis=0), color=COLOURS[0], linewidth=2)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xlabel("search epoch", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def augmented_png(policy: Policy, samples: Tensor, seed: int = 0) -> bytes:
    """A row of images as they are, and rows of them as the policy augments them.

    Args:
        policy: draws anew for every image and row.
        samples: uint8 [N, C, H, W]; the first 8 are shown.
        seed: of the draws, so that the same run gives the same picture.
    """
    images = samples[:COLUMNS].cpu()
    generator = torch.Generator().manual_seed(seed)
    drawn = [images, *(policy(images, generator=generator) for _ in range(DRAWS))]
    rows = [_thumbnails(row) for row in drawn]
    labels = ["original"] + [f"draw {i}" for i in range(1, DRAWS + 1)]
    height, width = rows[0].shape[1:3]
    gap, extra = 6, 10  # the originals stand apart
    canvas = np.full(
        (len(rows) * (height + gap) + extra, len(images) * (width + gap), 3), 255, dtype=np.uint8
    )
    ticks = []
    for r, row in enumerate(rows):
        top = r * (height + gap) + (extra if r > 0 else 0)
        ticks.append(top + height / 2)
        for c, pixels in enumerate(row):
            left = c * (width + gap)
            canvas[top : top + height, left : left + width] = pixels
    dpi = 100.0
    size = (canvas.shape[1] / dpi + 0.8, canvas.shape[0] / dpi + 0.1)
    figure = Figure(figsize=size, dpi=dpi, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(canvas, interpolation="nearest")
    axes.set_yticks(ticks, labels, fontsize=9)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return _png(figure, dpi)


def _thumbnails(images: Tensor) -> npt.NDArray[np.uint8]:
    """RGB [N, h, w, 3] of about `CELL` pixels: small images enlarged, large ones averaged."""
    factor = CELL / max(images.shape[-2:])
    colour = images.expand(-1, 3, -1, -1)
    if factor < 1:
        size = [max(1, round(factor * side)) for side in images.shape[-2:]]
        small = functional.interpolate(colour.float(), size, mode="bilinear", antialias=True)
        colour = small.round().clamp(0, 255).to(torch.uint8)
    pixels = colour.permute(0, 2, 3, 1).numpy()
    whole = max(1, round(factor))
    return np.asarray(pixels.repeat(whole, axis=1).repeat(whole, axis=2))


def _curves(search: Sequence[TrialResult], prefix: str) -> Curves:
    """Per metric an array [seed, epoch]; NaN where a trial ended early."""
    search = [result for result in search if result.history]
    length = max((len(result.history) for result in search), default=0)
    names = dict.fromkeys(
        key
        for result in search
        for record in result.history
        for key in record
        if key.startswith(prefix)
    )
    whole = prefix.endswith("/")
    return {
        name.removeprefix(prefix) if whole else name: np.array(
            [
                [record.get(name, math.nan) for record in result.history]
                + [math.nan] * (length - len(result.history))
                for result in search
            ]
        )
        for name in names
    }


def _mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean over seeds in percent."""
    return np.asarray(100 * np.nanmean(values, axis=0))


def _label_ends(axes: Axes, x: float, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write each line's name at its right end, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    step = 0.055 * (high - low)
    places: list[float] = []
    ends = sorted(ends, reverse=True)
    for y, _, _ in ends:
        places.append(min(y, places[-1] - step) if places else y)
    shortfall = max(0.0, low + step / 2 - places[-1])
    for place, (y, text, colour) in zip(places, ends, strict=True):
        axes.annotate(
            text,
            (x, y),
            xytext=(1.015, (place + shortfall - low) / (high - low)),
            textcoords="axes fraction",
            color=colour,
            fontsize=9,
            va="center",
            annotation_clip=False,
        )


def _bars(shares: Mapping[str, float]) -> Figure:
    """A bar chart of operation shares."""
    figure = Figure(figsize=(8.0, 0.8 + 0.26 * len(shares)), layout="constrained")
    axes = figure.add_subplot()
    names = sorted(shares, key=lambda name: shares[name])
    bars = axes.barh(names, [100 * shares[name] for name in names], color=COLOURS[0])
    axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    axes.set_xlabel("share of applications (%)")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _png(figure: Figure, dpi: float = 130.0) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()
