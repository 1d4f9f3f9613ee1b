"""Several policies at once: what a search with several seeds returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from raysearch.policy._base import Policy, source
from raysearch.policy._checks import Check, any_object, list_of
from raysearch.policy._compound import Compound


class Mixture(Compound):
    """Every image is augmented by one of several policies, each of which is equally likely.

    Args:
        parts: the members, of any kind but mixture and adaptive; one may occur more than once.

    Raises:
        ValueError: no members, or one of another kind.
    """

    kind: ClassVar[str] = "mixture"
    fields: ClassVar[Mapping[str, Check]] = {"members": list_of(any_object, least=1, most=1_000)}
    key: ClassVar[str] = "members"
    excluded: ClassVar[tuple[str, ...]] = ("mixture", "adaptive")

    @property
    def members(self) -> tuple[Policy, ...]:
        """The policies."""
        return self.parts

    def _augment(
        self, images: Tensor, generator: torch.Generator | None, progress: float
    ) -> Tensor:
        """Draw a member for each image and let it augment its own; see `Policy.__call__`."""
        device, count = source(generator), len(self.members)
        drawn = torch.randint(count, (len(images),), device=device, generator=generator)
        result = torch.empty_like(images, memory_format=torch.contiguous_format)
        for i, member in enumerate(self.members):
            own = (drawn == i).nonzero().flatten().to(images.device)
            if len(own):
                result[own] = member._augment(images[own], generator, progress)
        return result

    def at(self, progress: float) -> Mixture:
        """The mixture of the members at a point of the training."""
        return Mixture([member.at(progress) for member in self.members])

    def moments(self) -> list[float]:
        """When any of the members changes."""
        return sorted({moment for member in self.members for moment in member.moments()})

    def describe(self, most: int = 10) -> str:
        """Each member in short."""
        count = len(self)
        heads = {i: f"member {i + 1} of {count} ({p.kind})" for i, p in enumerate(self.parts)}
        return self._described(heads, max(1, most // count))
