"""Operations in random order, each with a probability, until a drawn count is applied: PBA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from raysearch.policy import _checks as checks
from raysearch.policy._base import source, uniform
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

SKIPPED = 2.0  # place in the order of an entry that is not applied: behind all others


class RandomOrder(OperationPolicy):
    """Entries (operation, probability, magnitude), visited in an order drawn for each image.

    A count is drawn for the image; each entry that is visited is applied with its probability,
    until so many have been. That is the policy of Population Based Augmentation (Ho et al., ICML
    2019, algorithm 1).

    Args:
        operations: N operation names; a name may occur more than once.
        probabilities: in [0, 1], [N]: of being applied when visited.
        magnitudes: in [0, 1], [N].
        counts: probabilities of the counts 0, 1, ..., at least two numbers, not all zero;
            normalised to sum to 1.
        ranges: the ranges that magnitudes refer to.

    Raises:
        ValueError: shapes that do not fit or numbers outside their range.
        RaysearchError: an unknown operation.
    """

    kind: ClassVar[str] = "random_order"
    fields: ClassVar[Mapping[str, checks.Check]] = {
        "ranges": checks.RANGE,
        "counts": checks.list_of(checks.POSITIVE, least=2, most=17),
        "operations": checks.list_of(checks.NAME, least=1, most=256),
        "probabilities": checks.list_of(checks.UNIT, least=1, most=256),
        "magnitudes": checks.list_of(checks.UNIT, least=1, most=256),
    }

    def __init__(
        self,
        operations: Sequence[str],
        probabilities: Numbers,
        magnitudes: Numbers,
        counts: Sequence[float] = (0.2, 0.3, 0.5),
        ranges: str = "autoaugment",
    ) -> None:
        super().__init__(operations, ranges)
        if len(counts) < 2:
            raise ValueError(f"need two counts or more; got {len(counts)}")
        self.probabilities = numbers(probabilities, "probabilities", len(self))
        self.magnitudes = numbers(magnitudes, "magnitudes", len(self))
        self.counts = normalised(counts, "counts", len(counts))

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Draws:
        """Draw for each of n images the count, the order and which entries are applied."""
        device, size = source(generator), len(self)
        slots = min(len(self.counts) - 1, size)
        count = drawn(self.counts, uniform(n, 1, generator=generator))
        place = uniform(n, size, generator=generator)
        hit = uniform(n, size, generator=generator)
        place = torch.where(hit < self.probabilities.float().to(device), place, SKIPPED)
        first, entry = place.topk(slots, largest=False)
        return replace(
            random_draws(n, slots, generator),
            operation=self._ids.to(device)[entry],
            applied=(first < SKIPPED) & (torch.arange(slots, device=device) < count),
            magnitude=self.magnitudes.float().to(device)[entry],
        )

    def entry_rates(self) -> Tensor:
        """Probability that an image gets each entry, [N], exactly.

        Give every entry a uniform time; the order is that of the times. Entry i, at time u, is
        reached while fewer than the count have been applied, and every other entry j is applied
        before with probability u p_j, independently. The probability is a polynomial in u of
        degree N − 1, and Gauss and Legendre's rule of N / 2 nodes integrates it exactly.
        """
        size, most = len(self), len(self.counts) - 1
        x, weights = np.polynomial.legendre.leggauss((size + 1) // 2)
        times = torch.from_numpy((x + 1) / 2)
        before = times.new_zeros(size, len(times), most)  # entry, time, applied
        before[..., 0] = 1
        for j, p in enumerate(self.probabilities):
            applied = (times * p).expand(size, -1).clone()
            applied[j] = 0  # not before itself
            more = F.pad(before[..., :-1], (1, 0))
            before = before * (1 - applied[..., None]) + more * applied[..., None]
        larger = self.counts.flip(0).cumsum(0).flip(0)[1:]  # counts above 0, 1, ...
        return self.probabilities * ((before * larger).sum(-1) @ torch.from_numpy(weights / 2))

    def operation_rates(self) -> dict[str, float]:
        """The sum of `entry_rates` over each operation's entries."""
        return rates_by_operation(self._ids, self.entry_rates())

    def describe(self, most: int = 10) -> str:
        """How often how many operations, then the most frequent entries, one a line."""
        counts = ", ".join(f"{i}: {float(p):.2f}" for i, p in enumerate(self.counts))
        head = f"up to a drawn count ({counts}) of these, in random order:\n"
        p, m = self.probabilities, self.magnitudes
        return head + strongest(
            self.entry_rates(), most, lambda i: f"{self.operations[i]}(p={p[i]:.2f}, m={m[i]:.2f})"
        )
