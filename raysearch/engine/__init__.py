"""The engine: carries out searches on Ray Tune, and finds what it needs of Ray."""

from __future__ import annotations

from raysearch.engine._cluster import JOB, Capacity, Wish, cluster, local_capacity, trial_share
from raysearch.engine._entries import (
    Ended,
    Entry,
    Interrupted,
    Outcome,
    Place,
    Share,
    TrialError,
)
from raysearch.engine._files import has_work
from raysearch.engine._optuna import OptunaStudies
from raysearch.engine._run import run

__all__ = [
    "JOB",
    "Capacity",
    "Ended",
    "Entry",
    "Interrupted",
    "OptunaStudies",
    "Outcome",
    "Place",
    "Share",
    "TrialError",
    "Wish",
    "cluster",
    "has_work",
    "local_capacity",
    "run",
    "trial_share",
]
