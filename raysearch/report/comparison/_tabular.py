"""A comparison for other programs: CSV and LaTeX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from raysearch.report._words import difference, percent, times
from raysearch.report.comparison._words import row_label


def comparison_csv(comparison: Mapping[str, Any]) -> str:
    """A line for each row: plain numbers, empty where there is none.

    Columns: `name`, `method`, `run`, `test_error`, `test_error_std`, `seeds`, the search's cost
    (`search_wall_seconds`, `search_device_seconds`, `search_plain_epochs` and, as so many plain
    trainings, `trainings_bought`), its and one training's in plain trainings by arithmetic
    (`total_trainings`) and by device time (`total_time`), `on_front`, and `minus_<reference>`,
    `..._low`, `..._high` for each reference.
    """
    return str(
        pd.DataFrame([_numbers(row, comparison) for row in comparison["rows"]]).to_csv(index=False)
    )


def comparison_latex(comparison: Mapping[str, Any]) -> str:
    """A table for a paper, for the package booktabs; rows on the Pareto front are bold."""
    columns = ["", "test error (\\%)"]
    columns += [f"$-$ {_tex(row_label({'name': name}))}" for name in comparison["references"]]
    columns += ["search (trainings)"]
    rows = []
    for row in comparison["rows"]:
        cells = [_tex(row_label(row)), _tex(percent(row["error"]))]
        for name in comparison["references"]:
            found = row["differences"].get(name)
            cells.append(_tex(difference(found)) if found else "")
        cells.append(_tex(times(row["trainings_bought"])) if row["trainings_bought"] else "")
        bold = row["name"] in comparison["front"]
        rows.append([f"\\textbf{{{cell}}}" if bold and cell else cell for cell in cells])
    styler = pd.DataFrame(rows, columns=columns).style.hide(axis="index")
    return str(styler.to_latex(hrules=True, column_format="l" + "r" * (len(columns) - 1)))


def _numbers(row: Mapping[str, Any], comparison: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        "name": row["name"],
        "method": row["method"],
        "run": row["run"],
        "test_error": row["error"]["mean"],
        "test_error_std": row["error"]["std"],
        "seeds": len(row["error"]["runs"]),
        "search_wall_seconds": row["search"]["wall_seconds"],
        "search_device_seconds": row["search"]["device_seconds"],
        "search_plain_epochs": row["search"]["epoch_equivalents"],
        "trainings_bought": row["trainings_bought"],
        "total_trainings": row["total_trainings"],
        "total_time": row["total_time"],
        "on_front": row["name"] in comparison["front"],
    }
    for name in comparison["references"]:
        figures = row["differences"].get(name, {})
        found[f"minus_{name}"] = figures.get("mean")
        found |= {f"minus_{name}_{end}": figures.get(end) for end in ("low", "high")}
    return found


def _tex(text: str) -> str:
    for character, spelled in {
        "_": "\\_",
        "%": "\\%",
        "&": "\\&",
        "#": "\\#",
        "±": "$\\pm$",
        "−": "$-$",
        "×": "$\\times$",
    }.items():
        text = text.replace(character, spelled)
    return text
