"""The table for other programs: CSV, LaTeX and HTML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from raysearch.results._statements import metric_of, references
from raysearch.results._words import difference, heading, times, value
from raysearch.trials import COSTS

_TEX = str.maketrans(
    {
        "_": "\\_",
        "%": "\\%",
        "&": "\\&",
        "#": "\\#",
        "±": "$\\pm$",
        "−": "$-$",
        "×": "$\\times$",
    }
)


def csv_table(summary: Mapping[str, Any]) -> str:
    """A line for each row: plain numbers, empty where there is none.

    Columns: `name`, `label`, `method`, `kind`, `about` (what its interval is about),
    `test_<metric>`, `test_<metric>_std`, `seeds`, `failed_seeds`, the search's cost
    (`search_wall_seconds`, `search_device_seconds`, `search_plain_epochs` and, as so many plain
    trainings, `trainings_bought`), its and one training's in plain trainings by arithmetic
    (`total_trainings`) and by device time (`total_time`), `on_front`, and `minus_<row>`, `..._low`,
    `..._high` for each other row that has differences.
    """
    table = pd.DataFrame([_numbers(name, summary) for name in summary["rows"]])
    return str(table.to_csv(index=False))


def latex_table(summary: Mapping[str, Any]) -> str:
    """A table for a paper, for the package booktabs; rows on the Pareto front are bold."""
    table = _readable(summary).map(lambda cell: cell.translate(_TEX))
    table.columns = table.columns.map(lambda column: column.translate(_TEX))
    for place, row in enumerate(summary["rows"].values()):
        if row["on_front"]:
            table.iloc[place] = [
                f"\\textbf{{{cell}}}" if cell else "" for cell in table.iloc[place]
            ]
    styler = table.style.hide(axis="index")
    return str(styler.to_latex(hrules=True, column_format="l" + "r" * (table.shape[1] - 1)))


def html_table(summary: Mapping[str, Any]) -> str:
    """The same table for a notebook."""
    return str(_readable(summary).to_html(index=False))


def _readable(summary: Mapping[str, Any]) -> pd.DataFrame:
    """The metric, differences and costs in words, a line for each row."""
    metric, rows = metric_of(summary), summary["rows"]
    others = references(summary)
    lines = []
    for name, row in rows.items():
        found = [summary["differences"][name].get(each) for each in others]
        bought = row["trainings_bought"]
        lines.append(
            [
                row["label"],
                value(summary["errors"][name], metric),
                *(difference(each, metric) if each else "" for each in found),
                times(bought) if bought else "",
            ]
        )
    differences = [f"− {rows[name]['label']}" for name in others]
    return pd.DataFrame(lines, columns=["", heading(metric), *differences, "search (trainings)"])


def _numbers(name: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    row, error = summary["rows"][name], summary["errors"][name]
    metric = f"test_{summary['metric']['name']}"
    units = {**{cost: cost for cost in COSTS}, "epoch_equivalents": "plain_epochs"}
    found = {
        "name": name,
        **{key: row[key] for key in ("label", "method", "kind", "about")},
        metric: error["mean"],
        f"{metric}_std": error["std"],
        "seeds": len(error["runs"]),
        "failed_seeds": len(error["failed"]),
        **{f"search_{units[cost]}": row["search"][cost] for cost in COSTS},
        **{
            key: row[key]
            for key in ("trainings_bought", "total_trainings", "total_time", "on_front")
        },
    }
    for other, figures in summary["differences"][name].items():
        found[f"minus_{other}"] = figures["mean"]
        found |= {f"minus_{other}_{end}": figures[end] for end in ("low", "high")}
    return found
