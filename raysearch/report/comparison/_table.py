"""A comparison on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from raysearch.console import duration
from raysearch.report._table import titled_table
from raysearch.report._words import applies_nothing, difference, label, percent, phrase, times
from raysearch.report.comparison._words import best_by_budget, remarks, row_label

PAGE = "comparison.html"
STRONGEST = 4  # operations of a policy that are listed


def comparison_table(
    comparison: Mapping[str, Any], files: Sequence[str], view: str | None = None
) -> RenderableType:
    """Errors, differences and costs of all rows, what a budget buys, and where the files are.

    Args:
        comparison: see `compare`.
        files: that hold the comparison.
        view: how to see it in MLflow.
    """
    lines = [Text(line) for line in (*best_by_budget(comparison), *remarks(comparison))]
    places = Table.grid(padding=(0, 2))
    for file in files:
        places.add_row(Text(file, overflow="fold"))
    if view:
        places.add_row(Text(f"MLflow: {view}", overflow="fold"))
    tables = []
    if comparison["references"] and len(comparison["rows"]) > 1:
        tables.append(_differences(comparison))
    if any(_has_operations(row) for row in comparison["rows"]):
        tables.append(_policies(comparison))
    spaced = [piece for table in tables for piece in (Text(""), table)]
    return Group(Text(""), _costs(comparison), *lines, *spaced, Text(""), places)


def comparison_lines(comparison: Mapping[str, Any], files: Sequence[str]) -> Iterator[str]:
    """The comparison in two lines, for `--quiet`."""
    listed = (f"{row_label(row)} {percent(row['error'])}" for row in comparison["rows"])
    yield f"test error in %: {', '.join(listed)}"
    yield from files[:1]


def _costs(comparison: Mapping[str, Any]) -> Table:
    """Errors and what the searches cost."""
    rows = comparison["rows"]
    seeds = _seeds(rows)
    table = titled_table(
        f"Test error in %, mean ± standard deviation over {seeds} seed{'s' if seeds != 1 else ''}",
        "* nothing cheaper is as good (Pareto front of cost and mean error)\n"
        "search in trainings: how many, with "
        f"{phrase(comparison['plain_training'])}, cost as much as the search",
    )
    table.add_column("policy", overflow="fold")
    table.add_column("test error", justify="right", no_wrap=True)
    table.add_column("search in\ntrainings", justify="right", no_wrap=True)
    table.add_column("its device\ntime", justify="right", no_wrap=True)
    table.add_column("its wall\ntime", justify="right", no_wrap=True)
    for row in rows:
        cells = [_name(row, comparison, seeds), percent(row["error"])]
        if row["search"]["epoch_equivalents"] > 0:
            cells.append(times(row["trainings_bought"]))
            cells += [duration(row["search"][f"{kind}_seconds"]) for kind in ("device", "wall")]
        style = "bold" if row["name"] in comparison["front"] else ""
        table.add_row(*(Text(cell) for cell in cells), style=style)
    return table


def _differences(comparison: Mapping[str, Any]) -> Table:
    """Every row's differences from the references."""
    rows = comparison["rows"]
    table = titled_table("Difference in points, paired by seed, with 95 % interval")
    table.add_column("policy", overflow="fold")
    for name in comparison["references"]:
        table.add_column(f"− {label(name)}", justify="right", no_wrap=True)
    for row in rows:
        found = [row["differences"].get(name) for name in comparison["references"]]
        cells = [row_label(row), *(difference(each) if each else "" for each in found)]
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _policies(comparison: Mapping[str, Any]) -> Table:
    """The policies side by side: each one's strongest operations."""
    table = titled_table(
        f"Strongest operations, share of applications in % (all are in {PAGE})",
    )
    table.add_column("policy", overflow="fold")
    table.add_column("an image", justify="right")
    table.add_column("operations", overflow="fold")
    for row in comparison["rows"]:
        if not _has_operations(row):
            continue
        policy = row["policy"]
        shares = policy["operations"]
        if applies_nothing(policy):
            table.add_row(row_label(row), "0.00", "applies nothing")
            continue
        strongest = sorted(shares.items(), key=lambda item: -item[1])[:STRONGEST]
        alike = len({round(share, 4) for share in shares.values()}) == 1
        words = ", ".join(f"{name} {100 * share:.1f}" for name, share in strongest)
        count = f"{policy['operations_per_image']:.2f}"
        table.add_row(row_label(row), count, f"all {len(shares)} alike" if alike else words)
    return table


def _has_operations(row: Mapping[str, Any]) -> bool:
    """Whether a row's policy has operations to list."""
    return bool(row["policy"] and set(row["policy"]["operations"]) - {"Identity"})


def _name(row: Mapping[str, Any], comparison: Mapping[str, Any], seeds: int) -> str:
    """With how many seeds it has, where others have more, and a star on the Pareto front."""
    count = len(row["error"]["runs"])
    partial = f" ({count}/{seeds})" if count != seeds else ""
    return row_label(row) + partial + (" *" if row["name"] in comparison["front"] else "")


def _seeds(rows: Sequence[Mapping[str, Any]]) -> int:
    return max(len(row["error"]["runs"]) for row in rows)
