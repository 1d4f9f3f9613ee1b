"""Candidates, operations at fixed magnitudes, drawn from one categorical distribution: DDAS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from raysearch.policy import _checks as checks
from raysearch.policy._base import uniform
from raysearch.policy._operations import (
    Draws,
    Numbers,
    OperationPolicy,
    drawn,
    normalised,
    numbers,
    random_draws,
    rates_by_operation,
    strongest,
)

MAX_MAGNITUDE = 2.0
MAX_CANDIDATES = 10_000  # in a file


class Candidates(OperationPolicy):
    """With probability t an image gets `count` candidates, each drawn independently by p.

    That is DDAS's two-level policy (Liu et al., ICCV 2021): whether to augment at all, and then
    with which candidates, a candidate being an operation at a magnitude.

    Args:
        operations: N operation names; a name occurs once for each of its magnitudes.
        magnitudes: in [0, 2], [N]; beyond 1 the ranges are extrapolated (DDAS goes to 1.4).
        probabilities: p, N non-negative numbers, not all zero; normalised to sum to 1.
        augment: t, the probability that an image is augmented, in [0, 1].
        count: candidates per augmented image, at least 1.
        ranges: the ranges that magnitudes refer to.

    Raises:
        ValueError: shapes that do not fit or numbers outside their range.
        RaysearchError: an unknown operation.
    """

    kind: ClassVar[str] = "candidates"
    fields: ClassVar[Mapping[str, checks.Check]] = {
        "ranges": checks.RANGE,
        "augment": checks.UNIT,
        "count": checks.COUNT,
        "operations": checks.list_of(checks.NAME, least=1, most=MAX_CANDIDATES),
        "magnitudes": checks.list_of(checks.number(0, MAX_MAGNITUDE), least=1, most=MAX_CANDIDATES),
        "probabilities": checks.list_of(checks.POSITIVE, least=1, most=MAX_CANDIDATES),
    }

    def __init__(
        self,
        operations: Sequence[str],
        magnitudes: Numbers,
        probabilities: Numbers,
        augment: float,
        count: int = 2,
        ranges: str = "autoaugment",
    ) -> None:
        super().__init__(operations, ranges)
        if count < 1 or not 0 <= augment <= 1:
            raise ValueError(f"need count >= 1 and augment in [0, 1]; got {count}, {augment}")
        self.augment, self.count = float(augment), count
        self.magnitudes = numbers(magnitudes, "magnitudes", len(self), high=MAX_MAGNITUDE)
        self.probabilities = normalised(probabilities, "probabilities", len(self))

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Draws:
        """Draw for each of n images whether it is augmented, and its candidates."""
        augmented = uniform(n, 1, generator=generator) < self.augment
        chosen = drawn(self.probabilities, uniform(n, self.count, generator=generator))
        draws = self.draws_for(chosen, generator)
        return replace(draws, applied=augmented.expand_as(chosen))

    def draws_for(self, chosen: Tensor, generator: torch.Generator | None = None) -> Draws:
        """The draw in which image i gets candidates `chosen[i]`; signs and centres are random.

        Args:
            chosen: indices of candidates, int64 [n, K].
            generator: source of randomness on that tensor's device.
        """
        return replace(
            random_draws(len(chosen), chosen.shape[1], generator),
            operation=self._ids.to(chosen.device)[chosen],
            magnitude=self.magnitudes.float().to(chosen.device)[chosen],
        )

    def operation_rates(self) -> dict[str, float]:
        """t · count · Σ p over each operation's candidates."""
        return rates_by_operation(self._ids, self.augment * self.count * self.probabilities)

    def describe(self, most: int = 10) -> str:
        """How often how many candidates, then the likeliest, one a line."""
        head = f"with probability {self.augment:.2f}, {self.count} of these candidates:\n"
        return head + strongest(
            self.probabilities,
            most,
            lambda i: f"{self.operations[i]}(m={self.magnitudes[i]:.2f})",
        )
