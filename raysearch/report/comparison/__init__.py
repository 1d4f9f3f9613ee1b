"""Several runs on one page: rows, table, plot, HTML, CSV and LaTeX."""

from __future__ import annotations

from raysearch.report.comparison._rows import (
    Entry,
    check_alike,
    check_images,
    compare,
    leaves,
)
from raysearch.report.comparison._table import comparison_lines, comparison_table
from raysearch.report.comparison._write import write_comparison

__all__ = [
    "Entry",
    "check_alike",
    "check_images",
    "compare",
    "comparison_lines",
    "comparison_table",
    "leaves",
    "write_comparison",
]
