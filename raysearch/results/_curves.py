"""policy.png and the other curves: how a search went, epoch by epoch."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from raysearch.policy import Policy
from raysearch.results._figures import COLOURS, Values, mean, name_points, panels, plot, png, series
from raysearch.results._statistics import levels

PANELS = {
    "kl_uniform": "KL divergence from uniform (nats)",
    "entropy": "entropy of the policy (nats)",
    "augment": "t: probability of any augmentation",
    "reward": "reward, the mean of the trials",
    "val_loss": "validation loss",
    "train_loss": "training loss",
}
FIGURES = {"mean/": ("mean", COLOURS[0]), "std/": ("standard deviation", COLOURS[1])}


def policy_png(search: pd.DataFrame, policy: Policy, uniform: Mapping[str, float]) -> bytes:
    """The policy over the search's epochs, the mean over its seeds; thin lines are single seeds.

    Each operation's share of all applications, or mean and standard deviation of each
    continuous parameter. Where the search has no such metrics, the policy itself. Dashed lines
    are the shares that operations have in the uniform policy.

    Args:
        search: the history of its trials.
        policy: what was found.
        uniform: each operation's share in the uniform policy.
    """
    shares = series(search, "share/")
    if shares:
        return png(_shares(shares, _unit(search), levels(uniform)))
    parameters = {figure: series(search, figure) for figure in FIGURES}
    if all(parameters.values()):
        return png(_parameters(parameters))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.png"
        policy.draw(path)
        return path.read_bytes()


def curves_png(search: pd.DataFrame, trained: bool = False) -> bytes | None:
    """How far the policy moved, and the losses, over the search; None where neither is known.

    Args:
        search: the history of its trials.
        trained: the search's own networks are a result, so that their training loss is shown.
    """
    found = {key: series(search, key) for key in PANELS}
    shown = [key for key in PANELS if found[key] and (key != "train_loss" or trained)]
    if not shown:
        return None
    figure, grid = panels(len(shown), 2 if len(shown) == 4 else 3, 2.2)
    for axes, key in zip(grid, shown, strict=True):
        plot(axes, found[key][key], COLOURS[0])
        axes.set_title(PANELS[key], fontsize=9, loc="left")
    figure.supxlabel(_unit(search), fontsize=8)
    return png(figure)


def _shares(curves: dict[str, Values], unit: str, uniform: Sequence[float]) -> Figure:
    """Operations as lines: those that end strongest in colour, the others in grey."""
    names = sorted(curves, key=lambda name: -np.nan_to_num(mean(curves[name])[-1]))
    figure = Figure(figsize=(8.0, 4.6), layout="constrained")
    axes = figure.add_subplot()
    epochs = np.arange(1, curves[names[0]].shape[1] + 1)
    for name in names[len(COLOURS) :][::-1]:
        axes.plot(epochs, 100 * mean(curves[name]), color="0.78", linewidth=1)
    end = float(epochs[-1])
    ends = [(level, end, f"uniform  {level:.1f} %", "0.35") for level in uniform]
    for level in uniform:
        axes.axhline(level, color="0.35", linewidth=1, linestyle="--")
    for name, colour in zip(names, COLOURS, strict=False):
        plot(axes, 100 * curves[name], colour)
        last = 100 * float(mean(curves[name])[-1])
        ends.append((last, end, f"{name}  {last:.1f} %", colour))
    axes.set_ylim(bottom=0)
    name_points(axes, ends, 1.015)
    axes.set_xlabel(unit)
    axes.set_ylabel("share of applications (%)")
    more = len(names) - len(COLOURS)
    others = f", the other {more} in grey" if more > 0 else ""
    title = f"Operations over the search ({_seeds(curves[names[0]])}{others})"
    axes.set_title(title, fontsize=10, loc="left")
    return figure


def _parameters(curves: dict[str, dict[str, Values]]) -> Figure:
    """A panel for each continuous parameter: its mean and its standard deviation."""
    names = list(curves["mean/"])
    figure, grid = panels(len(names), 4, 1.7)
    for axes, name in zip(grid, names, strict=True):
        for kind, (label, colour) in FIGURES.items():
            if name in curves[kind]:
                plot(axes, curves[kind][name], colour, label)
        axes.axhline(0, color="0.5", linewidth=1, linestyle="--", zorder=1.5, label="0: no change")
        axes.set_title(f"{name} (°)" if name == "rotation" else name, fontsize=9, loc="left")
    figure.legend(
        *grid[0].get_legend_handles_labels(),
        loc="outside upper left",
        ncols=3,
        frameon=False,
        fontsize=9,
        title=f"Parameters over the search ({_seeds(next(iter(curves['mean/'].values())))})",
        title_fontsize=10,
        alignment="left",
    )
    figure.supxlabel("search epoch", fontsize=9)
    return figure


def _unit(search: pd.DataFrame) -> str:
    """What the search's history counts."""
    return "update of the policy" if series(search, "reward") else "search epoch"


def _seeds(values: Values) -> str:
    return f"mean of {len(values)} seeds, thin: each seed" if len(values) > 1 else "one seed"
