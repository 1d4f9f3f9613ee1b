"""What the engine is given to carry out, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysearch.errors import RaysearchError
from raysearch.policy import Policy
from raysearch.protocol import Build, Search, Values
from raysearch.trials import TrialInfo, TrialResult


@dataclass(frozen=True)
class Share:
    """What one trial holds of its node.

    Attributes:
        cpus: CPU cores.
        gpus: GPUs, in [0, 1]; fractions share one.
        device: "cpu" or "cuda": what it computes on.
    """

    cpus: float
    gpus: float
    device: str

    @property
    def of_device(self) -> float:
        """The share of the device that the trial computes on, for the cost account."""
        return self.gpus if self.device == "cuda" else self.cpus

    @property
    def threads(self) -> int:
        """Threads that PyTorch may use on the CPU."""
        return max(1, int(self.cpus))


@dataclass(frozen=True)
class Place:
    """What the proposals of a stage hold.

    Attributes:
        share: each one's.
        at_once: how many fit at the same time where nothing else runs.
    """

    share: Share
    at_once: int


@dataclass(frozen=True)
class Entry:
    """A search that the engine carries out.

    Attributes:
        id: unique in the experiment, fit as a folder's name, the same after a resume.
        method: whose it is; where it cannot go on, all entries of that method end.
        trial: what watchers know it as.
        search: asks and is told, on the driver.
        build: makes `Build` in a worker, from what all entries share (the data set); picklable.
        places: by `Proposal.stage`.
        size: cost in trainings; the largest goes first.
        shown: proposals, by id, that watchers know as trials, with their epochs: the only one of a
            search that asks once is the entry's own trial, AWS's shared training one beside it.
        given: files that are there already, by proposal: a shared checkpoint of another run.
    """

    id: str
    method: str
    trial: TrialInfo
    search: Search
    build: Callable[[Any], Build]
    places: Mapping[str, Place]
    size: float = 1.0
    shown: Mapping[str, TrialInfo] = field(default_factory=dict)
    given: Mapping[str, Values] = field(default_factory=dict)

    @property
    def asks_once(self) -> bool:
        """Whether the search is one proposal, whose epochs are its own."""
        return self.trial in self.shown.values()


@dataclass(frozen=True)
class Outcome:
    """A search that has ended.

    Attributes:
        entry: which.
        result: its trial's.
        beside: results of the other trials that watchers knew.
        policy: what it found; None of an evaluation, and where it failed.
        network: the file of what it trained, where that is a result.
        folder: the entry's, with its proposals' files.
    """

    entry: Entry
    result: TrialResult
    beside: tuple[TrialResult, ...]
    policy: Policy | None
    network: Path | None
    folder: Path

    @property
    def failed(self) -> str | None:
        """Why it came to nothing, where it diverged."""
        return self.result.error

    def file(self, proposal: str) -> Path:
        """What a proposal left for others to go on from; there while a round may need it."""
        return self.folder / proposal / "answer" / "file.pt"


@dataclass(frozen=True)
class Ended:
    """All that came of the entries.

    Attributes:
        outcomes: by the entries' ids.
        failed: why methods could not go on, by their names.
    """

    outcomes: Mapping[str, Outcome]
    failed: Mapping[str, RaysearchError]


class Interrupted(Exception):
    """Tune was asked to stop; what has been done is kept."""


class TrialError(RaysearchError):
    """A trial cannot go on, and its method with it, or everything.

    Attributes:
        reason: which, and why.
        expected: whether it is something that the user can mend.
        method: that asked for the trial, where one did.

    Args:
        last: where its last good checkpoint is; in the message, beside the reason.
    """

    def __init__(self, reason: str, last: str, expected: bool, method: str | None) -> None:
        super().__init__(f"{reason} (last good checkpoint: {last})")
        self.reason, self.expected, self.method = reason, expected, method
