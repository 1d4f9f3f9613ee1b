"""Watching a run: the observer interface, and MLflow behind it."""

from __future__ import annotations

from raysearch.tracking._experiment import log_comparison, read_summaries
from raysearch.tracking._fields import COSTS
from raysearch.tracking._observer import Observer, Stage, TrialInfo, TrialResult
from raysearch.tracking._tracker import Tracker

__all__ = [
    "COSTS",
    "Observer",
    "Stage",
    "Tracker",
    "TrialInfo",
    "TrialResult",
    "log_comparison",
    "read_summaries",
]
