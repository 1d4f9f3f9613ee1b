"""What is measured of a trial."""

from __future__ import annotations

from raysearch.trials import TrialInfo, TrialResult, Watcher

__all__ = ["COSTS", "TrialInfo", "TrialResult", "Watcher"]

COSTS = ("wall_seconds", "device_seconds", "epoch_equivalents")
"""The three units of a cost: `device_seconds` are wall seconds times the share of the device held,
`epoch_equivalents` arithmetic over that of one plain training epoch on the search split."""
