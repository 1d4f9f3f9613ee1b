"""Writes a comparison's files, each whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raysearch.errors import RaysearchError
from raysearch.files import write_whole
from raysearch.report.comparison._html import comparison_html
from raysearch.report.comparison._plot import cost_error_png
from raysearch.report.comparison._table import PAGE
from raysearch.report.comparison._tabular import comparison_csv, comparison_latex


def write_comparison(folder: Path, comparison: Mapping[str, Any]) -> list[Path]:
    """Write `comparison.html`, `.csv`, `.tex`, `cost_error.png` and, last, `comparison.json`.

    Args:
        folder: exists.
        comparison: see `compare`.

    Returns:
        The files, the page first.

    Raises:
        RaysearchError: one of them cannot be written; those before it are whole.
    """
    plot = cost_error_png(comparison)
    contents = {
        PAGE: comparison_html(comparison, plot),
        "comparison.csv": comparison_csv(comparison).encode(),
        "comparison.tex": comparison_latex(comparison).encode(),
        "cost_error.png": plot,
        "comparison.json": (json.dumps(comparison, indent=2, allow_nan=False) + "\n").encode(),
    }
    for name, content in contents.items():
        try:
            write_whole(folder / name, content)
        except OSError as error:
            where = folder / name
            raise RaysearchError(f"cannot write {where}: {error.strerror or error}") from None
    return [folder / name for name in contents]
