"""Weighted sub-policies: what DADA, AutoAugment and Fast AutoAugment search for."""

from __future__ import annotations

import itertools
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
    positive_total,
    random_draws,
    rates_by_operation,
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

    def __init__(
        self,
        operations: Sequence[Sequence[str]],
        weights: Tensor,
        probabilities: Tensor,
        magnitudes: Tensor,
        ranges: str = "autoaugment",
    ) -> None:
        self.operations = tuple(tuple(names) for names in operations)
        self.ranges = ranges
        self._ids = torch.tensor([[ops.operation_id(n) for n in names] for names in operations])
        self.weights = weights.detach().cpu().double()
        self.probabilities = probabilities.detach().cpu().double()
        self.magnitudes = magnitudes.detach().cpu().double()
        self._check()
        self.weights = self.weights / self.weights.sum()

    def _check(self) -> None:
        shape = self._ids.shape
        if self._ids.ndim != 2 or self._ids.numel() == 0:
            raise ValueError("a policy needs at least one sub-policy of at least one operation")
        if self.weights.shape != shape[:1]:
            raise ValueError(f"weights: shape {tuple(self.weights.shape)} for {shape[0]}")
        for name, tensor in (("probability", self.probabilities), ("magnitude", self.magnitudes)):
            if tensor.shape != shape:
                raise ValueError(f"{name}: shape {tuple(tensor.shape)}, expected {tuple(shape)}")
            if not bool(((tensor >= 0) & (tensor <= 1)).all()):
                raise ValueError(f"a {name} is outside [0, 1]")
        positive_total(self.weights, "weights")

    @classmethod
    def pairs(
        cls,
        names: Sequence[str],
        weights: Tensor | None = None,
        probabilities: Tensor | None = None,
        magnitudes: Tensor | None = None,
    ) -> SubPolicies:
        """All unordered pairs of `names` (15 give DADA's 105); uniform where nothing is given.

        The starting values are DADA's: equal weights, probabilities and magnitudes of 0.5.
        """
        operations = list(itertools.combinations(names, 2))
        half = torch.full((len(operations), 2), 0.5)
        return cls(
            operations,
            torch.ones(len(operations)) if weights is None else weights,
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

    def __len__(self) -> int:
        return len(self.operations)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SubPolicies) and self.body() == other.body()

    def __hash__(self) -> int:
        return hash(self.operations)

    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        progress: float = 0.0,
    ) -> Draws:
        """Draw the sub-policies and apply bits of n images; see `OperationPolicy.sample`."""
        device = source(generator)
        uniform = torch.rand(n, device=device, generator=generator)
        cumulative = self.weights.cumsum(0).float().to(device)
        chosen = torch.searchsorted(cumulative, uniform, right=True).clamp_(max=len(self) - 1)
        return self.draws_for(chosen, generator)

    def draws_for(self, chosen: Tensor, generator: torch.Generator | None = None) -> Draws:
        """The draw in which image i gets sub-policy `chosen[i]`; bits, signs, centres are random.

        Args:
            chosen: indices of sub-policies, int64 [n].
            generator: source of randomness on that tensor's device.
        """
        device = chosen.device
        draws = random_draws(len(chosen), self._ids.shape[1], generator)
        bits = torch.rand(draws.operation.shape, device=device, generator=generator)
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
        strongest = self.weights.argsort(descending=True, stable=True)[:most].tolist()
        lines = [
            f"{float(self.weights[i]):7.4f}  "
            + " → ".join(
                f"{name}(p={self.probabilities[i, k]:.2f}, m={self.magnitudes[i, k]:.2f})"
                for k, name in enumerate(self.operations[i])
            )
            for i in strongest
        ]
        return "\n".join(listed(lines, len(self) - len(strongest)))

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
        """The policy from the JSON form that `body` gives; raises like the constructor."""
        entries = body["sub_policies"]
        if len({len(entry["operations"]) for entry in entries}) != 1:
            raise ValueError("all sub-policies must have the same number of operations")

        def numbers(key: str) -> Tensor:
            rows = [[operation[key] for operation in e["operations"]] for e in entries]
            return torch.tensor(rows, dtype=torch.float64)

        return cls(
            [[operation["name"] for operation in e["operations"]] for e in entries],
            torch.tensor([e["weight"] for e in entries], dtype=torch.float64),
            numbers("probability"),
            numbers("magnitude"),
            body["ranges"],
        )
