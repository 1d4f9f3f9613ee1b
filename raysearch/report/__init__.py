"""What a run leaves behind: statistics, files, pictures, the HTML report and the result table."""

from __future__ import annotations

from raysearch.report._statistics import paired_difference, spread
from raysearch.report._table import result_lines, result_table
from raysearch.report._write import write_report

__all__ = ["paired_difference", "result_lines", "result_table", "spread", "write_report"]
