"""A search by a population, as far as it is: its state, its members' checkpoints, its history."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from raysearch.files import write_whole
from raysearch.methods import Levels, Population
from raysearch.tune._checkpoints import POLICY, Progress
from raysearch.tune._kept import go_back, keep, kept
from raysearch.tune._observe import Watcher

Result = Mapping[str, Any]


@dataclass
class Start:
    """From where a member goes on.

    Attributes:
        policy: what it follows.
        checkpoint: folder, relative to the population's; None at the search's start.
    """

    policy: Levels
    checkpoint: str | None = None


@dataclass
class Search:
    """A population and how far it is.

    Its state is on disk at every synchronisation, with the one before it, as are the checkpoints
    that both name; what members have done since then they find again by themselves.

    Attributes:
        rules: the population's.
        trial: what it is to the watchers.
        folder: its own.
        watchers: told about epochs when the members have synchronised after them.
        starts: from where the members go on, in order.
        progress: history of the members that were best; time and epoch-equivalents of all.
        results: of the members that have ended the present interval.
        marked: when time was last counted, on the monotonic clock.
    """

    rules: Population
    trial: Any
    folder: Path
    watchers: Sequence[Watcher[Any]]
    starts: list[Start] = field(default_factory=list)
    progress: Progress = field(default_factory=lambda: Progress(epochs=0))
    results: dict[int, Result] = field(default_factory=dict)
    marked: float = field(default_factory=time.monotonic)

    def load(self) -> None:
        """Go on from the last synchronisation, or begin."""
        self.results = {}
        found = kept(self.folder, self.trial.name, "the synchronisation before", self.watchers)
        if found is not None:
            state, newest = found
            self.starts = [Start(**start) for start in state["starts"]]
            self.progress = Progress(**state["progress"])
            if not newest:  # members would find what others than they then were have done
                self._forget(self.starts)
                go_back(self.folder)
        else:
            self.starts = [Start(self.rules.start(member)) for member in range(self.rules.size)]
            self.progress = Progress(epochs=self.rules.epochs)

    def trials(self) -> list[dict[str, Any]]:
        """The members' configurations."""
        return [
            {
                "id": f"{self.trial.id}-{self._name(member)}",
                "name": f"{self.trial.name} member {member + 1}",
                "member": member,
                "seed": self.trial.seed,
                "policy": start.policy,
                "checkpoint": start.checkpoint and str(self.folder / start.checkpoint),
                "folder": str(self.folder / self._name(member)),
            }
            for member, start in enumerate(self.starts)
        ]

    @staticmethod
    def _name(member: int) -> str:
        return f"member-{member + 1:02d}"

    @property
    def synchronised(self) -> bool:
        """Whether all members have ended the present interval."""
        return len(self.results) == self.rules.size

    def synchronise(self, starts: Sequence[Start]) -> None:
        """Keep what the members have done and from where they go on, and tell the watchers.

        Args:
            starts: of all members; of none when the search has ended.
        """
        best = self.results[self._best()]
        now = time.monotonic()
        progress = self.progress
        progress.epoch = best["epoch"]
        progress.wall_seconds += now - self.marked
        progress.device_seconds += sum(one["device_seconds"] for one in self.results.values())
        self.marked = now
        rows = self._rows(best)
        progress.history += rows
        if progress.finished:
            write_whole(self.folder / POLICY, (Path(best["folder"]) / POLICY).read_bytes())
        before, self.starts, self.results = self.starts, list(starts), {}
        state = {"starts": [asdict(one) for one in self.starts], "progress": asdict(progress)}
        self.folder.mkdir(parents=True, exist_ok=True)
        keep(self.folder, state)
        self._forget([*before, *self.starts])
        self._tell(rows)

    def _best(self) -> int:
        """The member with the highest score, the last of several."""
        return max(self.results, key=lambda member: (self.results[member]["score"], member))

    def _rows(self, best: Result) -> list[dict[str, float]]:
        """The best member's epochs, each with the cost of all and its interval's validation."""
        last = best["rows"][-1]
        found = {key: last[key] for key in ("val_loss", "val_error", "score")}
        costs = zip(
            *([row["epoch_equivalents"] for row in one["rows"]] for one in self.results.values()),
            strict=True,
        )
        return [
            {**row, **found, "epoch_equivalents": sum(cost)}
            for row, cost in zip(best["rows"], costs, strict=True)
        ]

    def _forget(self, starts: Sequence[Start]) -> None:
        """Remove the checkpoints from which no member goes on."""
        needed = {start.checkpoint for start in starts}
        for folder in self.folder.glob("member-*/epoch-*"):
            if str(folder.relative_to(self.folder)) not in needed:
                shutil.rmtree(folder, ignore_errors=True)

    def _tell(self, rows: Sequence[Mapping[str, float]]) -> None:
        progress = self.progress
        for watcher in self.watchers:
            for row in rows:
                watcher.trial_progress(self.trial, int(row["epoch"]), row)
            if progress.finished:
                costs = {
                    "wall_seconds": progress.wall_seconds,
                    "device_seconds": progress.device_seconds,
                }
                watcher.trial_finished(self.trial, None, {**progress.metrics, **costs})
