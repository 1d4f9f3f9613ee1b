"""A distribution over ordered pairs of elements, operations at fixed magnitudes: AWS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from raysearch import ops
from raysearch.policy._base import Json, Policy, source
from raysearch.policy._operations import (
    Draws,
    OperationPolicy,
    listed,
    normalised,
    random_draws,
    rates_by_operation,
)

ELEMENTS, PAIRS = 5, 12  # that a description names
MAX_ELEMENTS = 300  # in a file


class Pairs(OperationPolicy):
    """Each image gets an ordered pair of elements, both always applied.

    That is AWS's policy (Tian et al., NeurIPS 2020, section 3), an element being an operation at
    a magnitude: 36 elements, 1,296 pairs. Element i comes first, then j, with probability p_ij.

    Args:
        operations: N operation names; a name occurs once for each of its magnitudes.
        magnitudes: in [0, 1], [N].
        probabilities: p, [N, N], non-negative, not all zero; normalised to sum to 1.
        ranges: the ranges that magnitudes refer to.

    Raises:
        ValueError: shapes that do not fit or numbers outside their range.
        RaysearchError: an unknown operation.
    """

    kind: ClassVar[str] = "pairs"

    def __init__(
        self,
        operations: Sequence[str],
        magnitudes: Tensor,
        probabilities: Tensor,
        ranges: str = "autoaugment",
    ) -> None:
        self.operations = tuple(operations)
        self.magnitudes = magnitudes.detach().cpu().double()
        self.probabilities = probabilities.detach().cpu().double()
        self.ranges = ranges
        self._ids = torch.tensor([ops.operation_id(name) for name in operations])
        self._check()
        self.probabilities = normalised(self.probabilities, "probabilities")
        self._cumulative = self.probabilities.flatten().cumsum(0)

    def _check(self) -> None:
        n = len(self.operations)
        if not n or self.magnitudes.shape != (n,) or self.probabilities.shape != (n, n):
            raise ValueError(
                f"{n} elements, magnitudes {tuple(self.magnitudes.shape)} and probabilities "
                f"{tuple(self.probabilities.shape)}: need N > 0, [N] and [N, N]"
            )
        if not bool(((self.magnitudes >= 0) & (self.magnitudes <= 1)).all()):
            raise ValueError("a magnitude is outside [0, 1]")

    @classmethod
    def uniform(cls, operations: Sequence[str], levels: int = 3) -> Pairs:
        """All pairs alike, over each operation at the magnitudes 1/levels, 2/levels, ..., 1.

        An operation whose magnitude does not matter is one element.

        Args:
            operations: names, each once.
            levels: magnitudes of an operation, at least 1.
        """
        elements = [
            (name, level / levels)
            for name in operations
            for level in range(1, levels + 1)
            if name in ops.AUTOAUGMENT_RANGES or level == levels
        ]
        names = [name for name, _ in elements]
        magnitudes = torch.tensor([m for _, m in elements], dtype=torch.float64)
        return cls(names, magnitudes, torch.ones(len(names), len(names)))

    def __len__(self) -> int:
        return len(self.operations)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pairs) and self.body() == other.body()

    def __hash__(self) -> int:
        return hash((self.operations, self.ranges))

    @property
    def elements(self) -> list[str]:
        """The elements by name, e.g. `Rotate(0.67)`; without a magnitude where none matters."""
        return [
            f"{name}({m:.2f})" if name in ops.AUTOAUGMENT_RANGES else name
            for name, m in zip(self.operations, self.magnitudes.tolist(), strict=True)
        ]

    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        progress: float = 0.0,
    ) -> Draws:
        """Draw a pair for each of n images; `sub_policy` is its index i·N + j."""
        uniform = torch.rand(n, dtype=torch.float64, device=source(generator), generator=generator)
        cumulative = self._cumulative.to(uniform.device)
        pair = torch.searchsorted(cumulative, uniform * cumulative[-1], right=True)
        return self.draws_for(pair.clamp_max(len(self) ** 2 - 1), generator)

    def draws_for(self, pair: Tensor, generator: torch.Generator | None = None) -> Draws:
        """The draw in which image i gets the pair of index `pair[i]`; signs are random.

        Args:
            pair: i·N + j, int64 [n].
            generator: source of randomness on that tensor's device.
        """
        chosen = torch.stack([pair // len(self), pair % len(self)], dim=1)
        return replace(
            random_draws(len(pair), 2, generator),
            sub_policy=pair,
            operation=self._ids.to(pair.device)[chosen],
            magnitude=self.magnitudes.float().to(pair.device)[chosen],
        )

    def element_rates(self) -> Tensor:
        """Expected number of times that each element is applied to an image, float64 [N]."""
        return self.probabilities.sum(0) + self.probabilities.sum(1)

    def operation_rates(self) -> dict[str, float]:
        """Each operation's elements together."""
        return rates_by_operation(self._ids, self.element_rates())

    def without(self, elements: Sequence[int]) -> Pairs:
        """The policy given that none of some elements is drawn.

        Args:
            elements: their positions.

        Raises:
            ValueError: nothing is left.
        """
        probabilities = self.probabilities.clone()
        probabilities[list(elements)] = 0
        probabilities[:, list(elements)] = 0
        return self.with_probabilities(probabilities)

    def with_probabilities(self, probabilities: Tensor) -> Pairs:
        """Another distribution over the same elements; raises like the constructor."""
        return Pairs(self.operations, self.magnitudes, probabilities, self.ranges)

    @classmethod
    def merge(cls, policies: Sequence[Policy]) -> Policy:
        """The equal mixture, which over the same elements is the mean of the probabilities."""
        same = [p for p in policies if isinstance(p, Pairs)]
        if len(same) < len(policies) or len({(p.operations, p.ranges) for p in same}) != 1:
            return super().merge(policies)
        first = same[0]
        if not all(bool((p.magnitudes == first.magnitudes).all()) for p in same):
            return super().merge(policies)
        mean = torch.stack([p.probabilities for p in same]).mean(0)
        return first.with_probabilities(mean)

    def describe(self, most: int = 10) -> str:
        """The strongest elements in a line, then the likeliest pairs, one a line."""
        names, n = self.elements, len(self)
        rates = self.element_rates() / 2
        first = rates.argsort(descending=True, stable=True)[:ELEMENTS].tolist()
        strongest = ", ".join(f"{names[i]} {100 * float(rates[i]):.1f} %" for i in first)
        most = min(most, PAIRS)
        pairs = self.probabilities.flatten().argsort(descending=True, stable=True)[:most]
        lines = (
            f"{float(self.probabilities[k // n, k % n]):7.4f}  {names[k // n]}, then {names[k % n]}"
            for k in pairs.tolist()
        )
        return "\n".join(
            [
                f"ordered pairs of {n} elements, of which the strongest: {strongest}",
                f"likeliest pairs and their probabilities (uniform: {1 / n**2:.4f}):",
                *listed(lines, n * n - len(pairs)),
            ]
        )

    def body(self) -> Json:
        """The constructor's arguments, elements as parallel arrays."""
        return {
            "ranges": self.ranges,
            "operations": list(self.operations),
            "magnitudes": self.magnitudes.tolist(),
            "probabilities": self.probabilities.tolist(),
        }

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Pairs:
        """The policy from the JSON form that `body` gives; raises like the constructor."""
        rows = body["probabilities"]
        if any(len(row) != len(rows[0]) for row in rows):
            raise ValueError("rows of probabilities differ in length")
        return cls(
            body["operations"],
            torch.tensor(body["magnitudes"], dtype=torch.float64),
            torch.tensor(rows, dtype=torch.float64),
            body["ranges"],
        )
