"""Policies that are applied one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from raysearch.policy._base import Policy
from raysearch.policy._checks import Check, any_object, list_of
from raysearch.policy._compound import Compound


class Sequence(Compound):
    """Every image is augmented by all of several policies, in their order.

    Args:
        parts: the steps, of any kind but sequence, mixture and adaptive.

    Raises:
        ValueError: no steps, or one that is a sequence or a mixture.
    """

    kind: ClassVar[str] = "sequence"
    fields: ClassVar[Mapping[str, Check]] = {"steps": list_of(any_object, least=1, most=16)}
    key: ClassVar[str] = "steps"
    excluded: ClassVar[tuple[str, ...]] = ("sequence", "mixture", "adaptive")

    @property
    def steps(self) -> tuple[Policy, ...]:
        """The policies in their order."""
        return self.parts

    def _augment(
        self, images: Tensor, generator: torch.Generator | None, progress: float
    ) -> Tensor:
        """Each step with draws of its own; see `Policy.__call__`."""
        for step in self.steps:
            images = step._augment(images, generator, progress)
        return images

    def at(self, progress: float) -> Sequence:
        """The steps as they are at a point of the training."""
        return Sequence([step.at(progress) for step in self.steps])

    def moments(self) -> list[float]:
        """When any of the steps changes."""
        return sorted({moment for step in self.steps for moment in step.moments()})

    def operation_rates(self) -> dict[str, float]:
        """The sum over the steps."""
        rates: dict[str, float] = {}
        for step in self.steps:
            for name, rate in step.operation_rates().items():
                rates[name] = rates.get(name, 0.0) + rate
        return rates

    def parameters(self) -> dict[str, tuple[float, float]]:
        """Those of all steps; of one that several have, the last's."""
        return {name: one for step in self.steps for name, one in step.parameters().items()}

    def describe(self, most: int = 10) -> str:
        """Every step in short."""
        each = max(1, most // len(self))
        return "\n".join(f"{i + 1}. {step.describe(each)}" for i, step in enumerate(self.steps))
