"""What policies that are made of other policies have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from raysearch.policy._base import Policy


class Compound(Policy):
    """Policies with equal shares in a whole: of the images, or of the training.

    One whose parts are all applied has rates and parameters of its own.

    Args:
        parts: at least one policy.

    Attributes:
        key: the parts' name, in JSON too.
        excluded: kinds that a part may not be of, which bounds the nesting.

    Raises:
        ValueError: no parts, or one of an excluded kind.
    """

    key: ClassVar[str]
    excluded: ClassVar[tuple[str, ...]]

    def __init__(self, parts: Sequence[Policy]) -> None:
        self.parts = tuple(parts)
        if not self.parts:
            raise ValueError(f"a {self.kind} needs {self.key}")
        for part in self.parts:
            if part.kind in self.excluded:
                raise ValueError(f"{self.key} of a {self.kind} cannot be of kind {part.kind}")

    def operation_rates(self) -> dict[str, float]:
        """The mean over the parts."""
        rates: dict[str, float] = {}
        for part in self.parts:
            for name, rate in part.operation_rates().items():
                rates[name] = rates.get(name, 0.0) + rate / len(self.parts)
        return rates

    def parameters(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation over the mixture of the parts.

        A part that does not have a parameter leaves images as they are: 0 throughout.
        """
        parts = [part.parameters() for part in self.parts]
        result = {}
        for name in dict.fromkeys(name for part in parts for name in part):
            moments = [part.get(name, (0.0, 0.0)) for part in parts]
            mean = math.fsum(mean for mean, _ in moments) / len(parts)
            square = math.fsum(std**2 + (own - mean) ** 2 for own, std in moments)
            result[name] = (mean, math.sqrt(square / len(parts)))
        return result

    def __len__(self) -> int:
        return len(self.parts)

    def _described(self, heads: Mapping[int, str], most: int) -> str:
        """Some of the parts under their heads, `most` lines of each."""
        lines = []
        for i, head in heads.items():
            words = self.parts[i].describe(most).splitlines()
            lines += [f"{head}:", *(f"  {line}" for line in words)]
        return "\n".join(lines)

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Compound:
        """The policy of a body whose parts have been read, so that they are policies already."""
        return cls(body[cls.key])
