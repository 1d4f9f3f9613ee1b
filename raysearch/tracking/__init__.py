"""Watching a run: the observer interface, and MLflow behind it."""

from __future__ import annotations

from raysearch.tracking._observer import Observer, Stage, TrialInfo, TrialResult
from raysearch.tracking._tracker import Tracker

__all__ = ["Observer", "Stage", "Tracker", "TrialInfo", "TrialResult"]
