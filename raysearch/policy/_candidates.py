"""Candidates, operations at fixed magnitudes, drawn from one categorical distribution: DDAS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from raysearch import ops
from raysearch.policy._base import Json, source
from raysearch.policy._operations import (
    Draws,
    OperationPolicy,
    drawn,
    listed,
    normalised,
    random_draws,
    rates_by_operation,
)

MAX_MAGNITUDE = 2.0


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

    def __init__(
        self,
        operations: Sequence[str],
        magnitudes: Tensor,
        probabilities: Tensor,
        augment: float,
        count: int = 2,
        ranges: str = "autoaugment",
    ) -> None:
        self.operations = tuple(operations)
        self.magnitudes = magnitudes.detach().cpu().double()
        self.probabilities = probabilities.detach().cpu().double()
        self.augment, self.count, self.ranges = float(augment), count, ranges
        self._ids = torch.tensor([ops.operation_id(name) for name in operations])
        self._check()
        self.probabilities = normalised(self.probabilities, "probabilities")

    def _check(self) -> None:
        if not self.operations or self.count < 1 or not 0 <= self.augment <= 1:
            raise ValueError(
                "need candidates, count >= 1 and augment in [0, 1]; "
                f"got {len(self.operations)}, {self.count}, {self.augment}"
            )
        for name, tensor in (
            ("magnitudes", self.magnitudes),
            ("probabilities", self.probabilities),
        ):
            if tensor.shape != self._ids.shape:
                raise ValueError(f"{name}: shape {tuple(tensor.shape)} for {len(self)} candidates")
        if not bool(((self.magnitudes >= 0) & (self.magnitudes <= MAX_MAGNITUDE)).all()):
            raise ValueError(f"a magnitude is outside [0, {MAX_MAGNITUDE:g}]")

    def __len__(self) -> int:
        return len(self.operations)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidates) and self.body() == other.body()

    def __hash__(self) -> int:
        return hash((self.operations, self.augment))

    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        progress: float = 0.0,
    ) -> Draws:
        """Draw for each of n images whether it is augmented, and its candidates."""
        device = source(generator)
        augmented = torch.rand(n, 1, device=device, generator=generator) < self.augment
        uniform = torch.rand(n, self.count, device=device, generator=generator)
        chosen = drawn(self.probabilities, uniform)
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
        strongest = self.probabilities.argsort(descending=True, stable=True)[:most].tolist()
        lines = (
            f"{float(self.probabilities[i]):7.4f}  {self.operations[i]}(m={self.magnitudes[i]:.2f})"
            for i in strongest
        )
        head = f"with probability {self.augment:.2f}, {self.count} of these candidates:"
        return "\n".join([head, *listed(lines, len(self) - len(strongest))])

    def body(self) -> Json:
        """The constructor's arguments, candidates as parallel arrays."""
        return {
            "ranges": self.ranges,
            "augment": self.augment,
            "count": self.count,
            "operations": list(self.operations),
            "magnitudes": self.magnitudes.tolist(),
            "probabilities": self.probabilities.tolist(),
        }

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Candidates:
        """The policy from the JSON form that `body` gives; raises like the constructor."""
        return cls(
            body["operations"],
            torch.tensor(body["magnitudes"], dtype=torch.float64),
            torch.tensor(body["probabilities"], dtype=torch.float64),
            body["augment"],
            body["count"],
            body["ranges"],
        )
