"""Policies that need no search: operations drawn uniformly, magnitudes from a range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch

from raysearch.policy import _checks as checks
from raysearch.policy._base import source
from raysearch.policy._operations import (
    Draws,
    OperationPolicy,
    random_draws,
)


class RandomOperations(OperationPolicy):
    """`count` operations per image, each drawn uniformly, each always applied.

    The magnitude of each is drawn uniformly from `levels` equidistant values between `low` and
    `high`. TrivialAugment Wide is one operation at 31 levels of the wide ranges (Müller and
    Hutter, ICCV 2021); RandAugment is N operations at one magnitude (Cubuk et al. 2020).

    Args:
        operations: names to draw from, without repetition of meaning (each equally likely).
        count: operations per image, at least 1.
        low, high: ends of the magnitude range, 0 ≤ low ≤ high ≤ 1.
        levels: number of magnitudes, at least 1; 1 means `high` always.
        ranges: the ranges that magnitudes refer to.

    Raises:
        ValueError: a number outside its range, or no operations.
        RaysearchError: an unknown operation.
    """

    kind: ClassVar[str] = "random_operations"
    fields: ClassVar[Mapping[str, checks.Check]] = {
        "ranges": checks.RANGE,
        "operations": checks.list_of(checks.NAME, least=1, most=checks.MAX_VALUES),
        "count": checks.COUNT,
        "magnitude": checks.object_of(
            low=checks.UNIT, high=checks.UNIT, levels=checks.number(1, 1_000_000, whole=True)
        ),
    }

    def __init__(
        self,
        operations: Sequence[str],
        count: int = 1,
        low: float = 0.0,
        high: float = 1.0,
        levels: int = 31,
        ranges: str = "wide",
    ) -> None:
        super().__init__(operations, ranges)
        if count < 1 or levels < 1 or not 0 <= low <= high <= 1:
            raise ValueError(
                "need count >= 1, levels >= 1 and 0 <= low <= high <= 1; "
                f"got {count}, {levels}, {low}, {high}"
            )
        self.count, self.low, self.high, self.levels = count, float(low), float(high), levels

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Draws:
        """Operations and magnitudes, each uniformly, of n images; see `OperationPolicy.sample`."""
        device = source(generator)
        shape = (n, self.count)
        draws = random_draws(n, self.count, generator)
        index = torch.randint(len(self._ids), shape, device=device, generator=generator)
        level = torch.randint(self.levels, shape, device=device, generator=generator).float()
        step = (self.high - self.low) / max(1, self.levels - 1)
        magnitude = self.low + step * level if self.levels > 1 else level * 0.0 + self.high
        return replace(draws, operation=self._ids.to(device)[index], magnitude=magnitude)

    def operation_rates(self) -> dict[str, float]:
        """`count` over the number of operations, for each of them."""
        return dict.fromkeys(self.operations, self.count / len(self.operations))

    def describe(self, most: int = 10) -> str:
        """One line: how many operations of which, and the magnitudes."""
        magnitude = f"{self.low:g} to {self.high:g} in {self.levels} levels"
        if self.levels == 1 or self.low == self.high:
            magnitude = f"{self.high:.3g}"
        drawn = f"{self.count} of {len(self.operations)} operations per image, uniformly"
        return f"{drawn} ({', '.join(self.operations)}); magnitude {magnitude}"

    @property
    def magnitude(self) -> dict[str, float]:
        """What magnitudes are drawn from."""
        return {"low": self.low, "high": self.high, "levels": self.levels}

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> RandomOperations:
        """See `Policy.from_body`."""
        return cls(body["operations"], body["count"], **body["magnitude"], ranges=body["ranges"])


TRIVIAL_AUGMENT_OPERATIONS = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)


def trivial_augment() -> RandomOperations:
    """TrivialAugment Wide: one of 14 operations, 31 magnitudes of the wide ranges."""
    return RandomOperations(TRIVIAL_AUGMENT_OPERATIONS)


def rand_augment(
    n: int = 2, m: float = 9, operations: Sequence[str] = TRIVIAL_AUGMENT_OPERATIONS
) -> RandomOperations:
    """RandAugment (Cubuk et al. 2020): N operations per image, all at magnitude M of 30.

    Args:
        n: N, at least 1.
        m: M, in [0, 30].
        operations: to draw from; by default the paper's 14.

    Raises:
        ValueError: a number outside its range.
    """
    return RandomOperations(operations, n, m / 30, m / 30, 1, ranges="autoaugment")
