"""MLflow: a parent run for an experiment or a method, with a child run for each trial."""

from __future__ import annotations

from raysearch.results.mlflow._experiment import log_comparison, read_experiment
from raysearch.results.mlflow._tracker import Tracker

__all__ = ["Tracker", "log_comparison", "read_experiment"]
