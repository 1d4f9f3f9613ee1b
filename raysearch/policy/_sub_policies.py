"""Weighted sub-policies: what DADA, AutoAugment and Fast AutoAugment search for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from raysearch.policy import _checks as checks
from raysearch.policy._base import Json, Policy, uniform
from raysearch.policy._operations import (
    Draws,
    Numbers,
    OperationPolicy,
    numbers,
    positive_total,
    random_draws,
    rates_by_operation,
    strongest,
)


class SubPolicies(OperationPolicy):
    """A mixture of sub-policies: one is drawn by weight, its operations apply in order.

    Operation k of sub-policy s is applied with probability β_sk at magnitude m_sk (DADA, Li et
    al. 2020, section 3.1).

    Args:
        operations: N sub-policies of K operation names each.
        weights: N non-negative numbers, not all zero; normalised to sum to 1.
        probabilities: apply probabilities in [0, 1], [N, K].
        magnitudes: in [0, 1], [N, K].
        ranges: the ranges that magnitudes refer to.

    Raises:
        ValueError: shapes that do not fit or numbers outside their range.
        RaysearchError: an unknown operation.
    """

    kind: ClassVar[str] = "sub_policies"
    fields: ClassVar[Mapping[str, checks.Check]] = {
        "ranges": checks.RANGE,
        "sub_policies": checks.list_of(
            checks.object_of(
                weight=checks.POSITIVE,
                operations=checks.list_of(
                    checks.object_of(
                        name=checks.NAME, probability=checks.UNIT, magnitude=checks.UNIT
                    ),
                    least=1,
                    most=16,
                ),
            ),
            least=1,
            most=checks.MAX_VALUES,
        ),
    }

    def __init__(
        self,
        operations: Sequence[Sequence[str]],
        weights: Numbers,
        probabilities: Numbers,
        magnitudes: Numbers,
        ranges: str = "autoaugment",
    ) -> None:
        super().__init__([name for names in operations for name in names], ranges)
        if len({len(names) for names in operations}) != 1:
            raise ValueError("all sub-policies must have the same number of operations")
        self.operations = tuple(tuple(names) for names in operations)
        self._ids = self._ids.view(len(self), -1)
        self.probabilities = numbers(probabilities, "probabilities", *self._ids.shape)
        self.magnitudes = numbers(magnitudes, "magnitudes", *self._ids.shape)
        found = numbers(weights, "weights", len(self), high=math.inf)
        self.weights = found / positive_total(found, "weights")

    @classmethod
    def pairs(
        cls,
        names: Sequence[str],
        weights: Numbers | None = None,
        probabilities: Numbers | None = None,
        magnitudes: Numbers | None = None,
    ) -> SubPolicies:
        """All unordered pairs of `names` (15 give DADA's 105); uniform where nothing is given.

        The starting values are DADA's: equal weights, probabilities and magnitudes of 0.5.
        """
        operations = list(itertools.combinations(names, 2))
        half = [[0.5, 0.5]] * len(operations)
        return cls(
            operations,
            [1.0] * len(operations) if weights is None else weights,
            half if probabilities is None else probabilities,
            half if magnitudes is None else magnitudes,
        )

    @classmethod
    def merge(cls, policies: Sequence[Policy]) -> SubPolicies:
        """The equal mixture of several policies, for one search run with several seeds.

        Raises:
            ValueError: no policies, or policies of another kind, different lengths or ranges.
        """
        alike = [policy for policy in policies if isinstance(policy, SubPolicies)]
        shapes = {(policy.ranges, policy._ids.shape[1]) for policy in alike}
        if len(alike) < len(policies) or len(shapes) != 1:
            raise ValueError("only sub-policies of one range and length can be merged")
        return cls(
            [names for policy in alike for names in policy.operations],
            torch.cat([policy.weights for policy in alike]),
            torch.cat([policy.probabilities for policy in alike]),
            torch.cat([policy.magnitudes for policy in alike]),
            alike[0].ranges,
        )

    def top(self, count: int) -> SubPolicies:
        """The `count` sub-policies of largest weight, weights renormalised (DADA keeps 25)."""
        kept = self.weights.argsort(descending=True, stable=True)[:count]
        return type(self)(
            [self.operations[i] for i in kept.tolist()],
            self.weights[kept],
            self.probabilities[kept],
            self.magnitudes[kept],
            self.ranges,
        )

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Draws:
        """Draw the sub-policies and apply bits of n images; see `OperationPolicy.sample`."""
        noise = uniform(n, generator=generator)
        cumulative = self.weights.cumsum(0).float().to(noise.device)
        chosen = torch.searchsorted(cumulative, noise, right=True).clamp_(max=len(self) - 1)
        return self.draws_for(chosen, generator)

    def draws_for(self, chosen: Tensor, generator: torch.Generator | None = None) -> Draws:
        """The draw in which image i gets sub-policy `chosen[i]`; bits, signs, centres are random.

        Args:
            chosen: indices of sub-policies, int64 [n].
            generator: source of randomness on that tensor's device.
        """
        device = chosen.device
        draws = random_draws(len(chosen), self._ids.shape[1], generator)
        bits = uniform(*draws.operation.shape, generator=generator)
        return replace(
            draws,
            sub_policy=chosen,
            operation=self._ids.to(device)[chosen],
            applied=bits < self.probabilities.float().to(device)[chosen],
            magnitude=self.magnitudes.float().to(device)[chosen],
        )

    def operation_rates(self) -> dict[str, float]:
        """Expected number of applications of each operation per image: Σ_s w_s Σ_k β_sk."""
        return rates_by_operation(self._ids, self.weights[:, None] * self.probabilities)

    def describe(self, most: int = 10) -> str:
        """The heaviest sub-policies, one a line: weight, operations, probability, magnitude."""

        def words(i: int) -> str:
            return " → ".join(
                f"{name}(p={self.probabilities[i, k]:.2f}, m={self.magnitudes[i, k]:.2f})"
                for k, name in enumerate(self.operations[i])
            )

        return strongest(self.weights, most, words)

    def body(self) -> Json:
        """`ranges` and a list of sub-policies with weight and operations."""
        return {
            "ranges": self.ranges,
            "sub_policies": [
                {
                    "weight": float(self.weights[i]),
                    "operations": [
                        {
                            "name": name,
                            "probability": float(self.probabilities[i, k]),
                            "magnitude": float(self.magnitudes[i, k]),
                        }
                        for k, name in enumerate(names)
                    ],
                }
                for i, names in enumerate(self.operations)
            ],
        }

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> SubPolicies:
        """See `Policy.from_body`."""
        entries = body["sub_policies"]

        def column(key: str) -> list[list[Any]]:
            return [[operation[key] for operation in entry["operations"]] for entry in entries]

        return cls(
            column("name"),
            [entry["weight"] for entry in entries],
            column("probability"),
            column("magnitude"),
            body["ranges"],
        )
