"""A race between policies, heat by heat: who ran, how they did, who fell when."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from raysearch.results._words import value_alone
from raysearch.tasks import Metric

LOSS, RANK = "val_loss/", "rank/"


@dataclass(frozen=True)
class Race:
    """What a page shows of the race of one search.

    Attributes:
        seed: the search's.
        heats: a heading for each.
        rows: each candidate, the winner first, and for each heat validation loss and metric in
            words; empty where it did not run.
    """

    seed: int
    heats: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def races(search: pd.DataFrame, metric: Metric) -> list[Race]:
    """The races in the history of a method's searches; none where it holds no race.

    Args:
        search: a row a trial and heat; `val_loss/NAME`, `val_<metric>/NAME` and `rank/NAME` of each
            who ran, `length`, the share of a full training.
        metric: the task's.
    """
    names = [column.removeprefix(RANK) for column in search.columns if column.startswith(RANK)]
    if not names:
        return []
    found = []
    for seed, table in search.groupby("seed"):
        heats = [row for _, row in table.sort_values("epoch").iterrows()]
        ran = {n: [i for i, h in enumerate(heats) if pd.notna(h[RANK + n])] for n in names}
        order = sorted(
            (name for name in names if ran[name]),
            key=lambda name: (-len(ran[name]), heats[ran[name][-1]][RANK + name]),
        )
        headings = tuple(
            f"heat {i + 1}: {heat['length']:.0%} of a training" for i, heat in enumerate(heats)
        )
        rows = tuple((n, tuple(_words(heat, n, metric) for heat in heats)) for n in order)
        found.append(Race(int(str(seed)), headings, rows))
    return found


def _words(heat: pd.Series[float], name: str, metric: Metric) -> str:
    if pd.isna(heat[RANK + name]):
        return ""
    if pd.isna(heat.get(LOSS + name)):
        return "diverged"
    figure = heat[f"val_{metric.name}/{name}"]
    return f"{heat[LOSS + name]:.3f} / {value_alone(figure, metric)}"
