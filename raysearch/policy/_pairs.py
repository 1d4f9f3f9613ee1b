"""A distribution over ordered pairs of elements, operations at fixed magnitudes: AWS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from raysearch import ops
from raysearch.policy import _checks as checks
from raysearch.policy._base import Policy, source
from raysearch.policy._operations import (
    Draws,
    Numbers,
    OperationPolicy,
    normalised,
    numbers,
    random_draws,
    rates_by_operation,
    strongest,
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
    fields: ClassVar[Mapping[str, checks.Check]] = {
        "ranges": checks.RANGE,
        "operations": checks.list_of(checks.NAME, least=1, most=MAX_ELEMENTS),
        "magnitudes": checks.list_of(checks.UNIT, least=1, most=MAX_ELEMENTS),
        "probabilities": checks.list_of(
            checks.list_of(checks.POSITIVE, least=1, most=MAX_ELEMENTS), least=1, most=MAX_ELEMENTS
        ),
    }

    def __init__(
        self,
        operations: Sequence[str],
        magnitudes: Numbers,
        probabilities: Numbers,
        ranges: str = "autoaugment",
    ) -> None:
        super().__init__(operations, ranges)
        self.magnitudes = numbers(magnitudes, "magnitudes", len(self))
        self.probabilities = normalised(probabilities, "probabilities", len(self), len(self))
        self._cumulative = self.probabilities.flatten().cumsum(0)

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
        names, magnitudes = zip(*elements, strict=True)
        return cls(names, magnitudes, [[1.0] * len(names)] * len(names))

    @property
    def elements(self) -> list[str]:
        """The elements by name, e.g. `Rotate(0.67)`; without a magnitude where none matters."""
        return [
            f"{name}({m:.2f})" if name in ops.AUTOAUGMENT_RANGES else name
            for name, m in zip(self.operations, self.magnitudes.tolist(), strict=True)
        ]

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Draws:
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
        elements = ", ".join(f"{names[i]} {100 * float(rates[i]):.1f} %" for i in first)
        return (
            f"ordered pairs of {n} elements, of which the strongest: {elements}\n"
            f"likeliest pairs and their probabilities (uniform: {1 / n**2:.4f}):\n"
        ) + strongest(
            self.probabilities.flatten(),
            min(most, PAIRS),
            lambda k: f"{names[k // n]}, then {names[k % n]}",
        )
