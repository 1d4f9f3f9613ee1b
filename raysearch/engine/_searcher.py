"""Tune asks for trials, and is given the searches' proposals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from ray.tune.search import Searcher

from raysearch.engine._entries import Entry, Share
from raysearch.engine._pool import Assignment, Pool


class AskAndTell(Searcher):
    """Hands the searches' proposals to Tune, and Tune's results to the searches.

    Args:
        pool: the searches.
        share: what processes hold that start before the first proposal is handed out.
        processes: how many these are.

    Attributes:
        asked: what is worked on, by Tune's trial.
        error: why nothing can go on; Tune would take it for a trial's and repeat that.
    """

    def __init__(self, pool: Pool, share: Share, processes: int) -> None:
        super().__init__(metric="done", mode="max")
        self.pool = pool
        self.processes = processes
        self.asked: dict[str, Assignment] = {}
        self.error: Exception | None = None
        self._share, self._to_start = share, processes
        self._starting: set[str] = set()  # Tune's trials
        self._builds: dict[str, ray.ObjectRef[Any]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """A proposal, where there is one and room for it; first of all, processes."""
        if self._to_start:
            self._starting.add(trial_id)
            self._to_start -= 1
            return {"trial": {"id": "process", "share": self._share}}
        try:
            asked = self.pool.ask(self._room)
        except Exception as problem:
            self.error = problem
            return None
        if asked is None:
            return Searcher.FINISHED if self.pool.finished else None  # type: ignore[return-value]
        self.asked[trial_id] = asked
        entry = asked.entry
        if entry.id not in self._builds:
            self._builds[entry.id] = ray.put(entry.build)
        return {
            "trial": {
                "id": f"{entry.id}-{asked.proposal.id}",
                "share": asked.place.share,
                "entry": entry.id,
                "folder": str(asked.folder.path.parent),
                "proposal": ray.put(asked.proposal),
                "build": self._builds[entry.id],
            }
        }

    def _room(self, entry: Entry, stage: str) -> bool:
        """Whether another proposal fits beside those that are worked on."""
        taken = sum(1 / asked.place.at_once for asked in self.asked.values())
        return taken + 1 / entry.places[stage].at_once <= 1 + 1e-6

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Epochs have ended."""
        if trial_id in self.asked:
            self.pool.progress(self.asked[trial_id], result["rows"])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A proposal has its answer, or its process has died."""
        if trial_id in self._starting:
            self._starting.remove(trial_id)
            self._to_start += error
            return
        asked = self.asked.pop(trial_id, None)
        if asked is None:
            return
        try:
            if error or result is None or not result.get("done"):
                self.pool.retract(asked)
                return
            self.pool.progress(asked, result["rows"])
            self.pool.tell(asked)
        except Exception as problem:  # e.g. a full disk
            self.error = problem

    def save(self, checkpoint_path: str) -> None:
        """Nothing: Tune's copy of the experiment is not used to continue a run."""
        Path(checkpoint_path).write_bytes(b"")

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""

    def __getstate__(self) -> dict[str, Any]:
        """See `save`."""
        return {}
