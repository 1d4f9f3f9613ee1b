"""What a method that has its trials proposed needs for that: a study of what was tried.

Spaces, trials and pruning are plain data here; Optuna is the engine's, which hands `Studies` to
methods.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Choice:
    """One of some words."""

    options: tuple[str, ...]


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`, both included; `step` apart where that is given."""

    low: float
    high: float
    step: float | None = None


@dataclass(frozen=True)
class Whole:
    """A whole number from `low` to `high`, both included."""

    low: int
    high: int


Space = Mapping[str, Choice | Range | Whole]
"""What may be chosen for each parameter."""


@dataclass(frozen=True)
class Tried:
    """A trial that has ended.

    Attributes:
        params: what it was made with.
        value: what is minimised; None where it was given up or failed.
        intermediate: the value after some of its epochs, counted from 1.
        rungs: what the pruner remembers of it.
        notes: what else people may want to know of it.
        failed: whether it could not end.
    """

    params: Mapping[str, Any]
    value: float | None
    intermediate: Mapping[int, float] = field(default_factory=dict)
    rungs: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    failed: bool = False

    @property
    def last(self) -> float | None:
        """The value that was seen last."""
        if self.value is not None or not self.intermediate:
            return self.value
        return self.intermediate[max(self.intermediate)]


def ranked(tried: Sequence[Tried]) -> list[Tried]:
    """Trials from the best on: those given up come late, failed ones last, equal ones as tried."""
    last = [float("inf") if one.last is None else one.last for one in tried]
    order = sorted(
        range(len(last)), key=lambda i: (tried[i].failed, tried[i].value is None, last[i], i)
    )
    return [tried[i] for i in order]


@dataclass(frozen=True)
class Pruning:
    """When a trial is given up.

    Attributes:
        pruner: `median` (worse than the median of the trials before it at the same epoch), `asha`
            (asynchronous successive halving: not among the best quarter at a rung) or `none`.
        startup: trials before the first that may be given up.
        warmup: epochs of each trial before which it is not.
    """

    pruner: str
    startup: int
    warmup: int


class Study(Protocol):
    """Proposes parameters from the trials that there were; what is minimised is their value.

    What it proposes follows from its seed and the trials told about.

    Attributes:
        tried: the trials told about, in order.
    """

    @property
    def tried(self) -> Sequence[Tried]: ...

    def propose(self, count: int) -> list[dict[str, Any]]:
        """Parameters of the next trials, which may run at the same time."""

    def tell(self, tried: Sequence[Tried]) -> None:
        """Take the outcomes of trials, in the order in which they were proposed."""

    def state_dict(self) -> list[dict[str, Any]]:
        """All that `load_state_dict` needs: plain data."""

    def load_state_dict(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Go on from `state_dict`."""


class Watch(Protocol):
    """Tells whether a trial that is going on should be given up."""

    def hopeless(self, epoch: int, value: float) -> bool:
        """Whether to give up after an epoch, counted from 1, with this value."""

    def rungs(self) -> dict[str, Any]:
        """What is remembered of the trial; see `Tried.rungs`."""


class Studies:
    """Makes studies, and what watches over their trials; this one makes none. Picklable."""

    def study(self, name: str, space: Space, seed: int, sampler: str, startup: int) -> Study:
        """A study without trials.

        Args:
            name: what people know it as.
            space: what is proposed.
            seed: everything random follows from it.
            sampler: `tpe` or `random`.
            startup: trials at the beginning that are drawn at random.
        """
        raise NotImplementedError("nothing proposes trials")

    def watch(self, pruning: Pruning, before: bytes) -> Watch:
        """The watch over a trial at its beginning.

        Args:
            pruning: by which rule.
            before: what `packed` made of the trials that had ended when it was proposed. It knows
                no others, so the number of workers changes nothing.
        """
        raise NotImplementedError("nothing watches over trials")


def packed(tried: Sequence[Tried]) -> bytes:
    """Of ended trials, what a `Watch` needs."""
    return json.dumps(
        [[one.value, list(one.intermediate.items()), dict(one.rungs), one.failed] for one in tried]
    ).encode()


def unpacked(before: bytes) -> list[Tried]:
    """The trials again, without parameters and notes."""
    return [
        Tried({}, value, {int(epoch): seen for epoch, seen in intermediate}, rungs, failed=failed)
        for value, intermediate, rungs, failed in json.loads(before)
    ]
