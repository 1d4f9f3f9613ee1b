"""A policy that changes over a training: what DDAS and an online search of it return."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from raysearch.policy._base import Policy
from raysearch.policy._checks import Check, any_object, list_of
from raysearch.policy._compound import Compound


class Schedule(Compound):
    """Policies for equal parts of a training: phase i of n for progress in [i/n, (i+1)/n).

    A search that keeps the policy of each of its epochs has it replayed over the matching part of
    a training of any length.

    Args:
        parts: the phases in order, of any kind but schedule, sequence, mixture and
            adaptive.

    Raises:
        ValueError: no phases, or one of another kind.
    """

    kind: ClassVar[str] = "schedule"
    fields: ClassVar[Mapping[str, Check]] = {"phases": list_of(any_object, least=1, most=10_000)}
    key: ClassVar[str] = "phases"
    excluded: ClassVar[tuple[str, ...]] = ("schedule", "sequence", "mixture", "adaptive")

    @property
    def phases(self) -> tuple[Policy, ...]:
        """The policies in the order in which they come into force."""
        return self.parts

    def _augment(
        self, images: Tensor, generator: torch.Generator | None, progress: float
    ) -> Tensor:
        """What the phase at `progress` does, with the same draws; see `Policy.__call__`."""
        return self.at(progress)._augment(images, generator, progress)

    def at(self, progress: float) -> Policy:
        """The phase at a point of the training; 1 belongs to the last.

        Raises:
            ValueError: `progress` is outside [0, 1].
        """
        if not 0 <= progress <= 1:
            raise ValueError(f"progress must lie in [0, 1], got {progress}")
        return self.phases[bisect(self.moments(), progress) - 1]

    def moments(self) -> list[float]:
        """The starts of the phases."""
        return [i / len(self) for i in range(len(self))]

    def describe(self, most: int = 10) -> str:
        """The first, the middle and the last phase, `most` lines of each."""
        count = len(self)
        shown = sorted({0, count // 2, count - 1})
        return self._described({i: f"phase {i + 1} of {count}" for i in shown}, most)
