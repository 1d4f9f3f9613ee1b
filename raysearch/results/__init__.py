"""What was measured: one frame, and the page, the table, the files, the display and MLflow."""

from __future__ import annotations

from raysearch.results._augmented import augmented_png
from raysearch.results._display import Display
from raysearch.results._export import html_table
from raysearch.results._frame import Measured, MethodMeasured, frame, history
from raysearch.results._join import check_alike, join, without_others
from raysearch.results._statements import references
from raysearch.results._statistics import mean_and_std, paired_difference
from raysearch.results._summary import summarise
from raysearch.results._table import show
from raysearch.results._words import duration, plural
from raysearch.results._write import picture_file, read, write, write_policies
from raysearch.results.mlflow import Tracker, log_comparison, read_experiment

__all__ = [
    "Display",
    "Measured",
    "MethodMeasured",
    "Tracker",
    "augmented_png",
    "check_alike",
    "duration",
    "frame",
    "history",
    "html_table",
    "join",
    "log_comparison",
    "mean_and_std",
    "paired_difference",
    "picture_file",
    "plural",
    "read",
    "read_experiment",
    "references",
    "show",
    "summarise",
    "without_others",
    "write",
    "write_policies",
]
