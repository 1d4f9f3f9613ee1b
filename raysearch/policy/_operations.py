"""Policies of discrete operations: what they draw for a batch, and how a draw is carried out."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from raysearch import ops
from raysearch.errors import unknown
from raysearch.policy._base import Policy, uniform
from raysearch.policy._checks import RANGES

Numbers = Tensor | Sequence[float] | Sequence[Sequence[float]]


@dataclass(frozen=True)
class Draws:
    """One draw of a policy for each of n images: K operations, applied in order.

    Attributes:
        sub_policy: which entry of the policy was drawn, int64 [n].
        operation: operation ids (`raysearch.ops.OPERATIONS`), int64 [n, K].
        applied: whether each operation is carried out, bool [n, K].
        magnitude: in [0, 1], or beyond where a policy allows it, float32 [n, K].
        sign: −1 or +1, float32 [n, K]; turns the deviation of signed operations round.
        center: (x, y) of Cutout's square as shares of the side, float32 [n, K, 2] in [0, 1).
    """

    sub_policy: Tensor
    operation: Tensor
    applied: Tensor
    magnitude: Tensor
    sign: Tensor
    center: Tensor

    def __len__(self) -> int:
        return len(self.sub_policy)

    def apply(self, images: Tensor, ranges: str = "autoaugment") -> Tensor:
        """Carry the draw out: image i gets its own operations.

        Args:
            images: uint8 [n, C, H, W], or floating point in [0, 1].
            ranges: the ranges that magnitudes refer to, `autoaugment` or `wide`.

        Returns:
            A tensor of the same shape and type.
        """
        height, width = images.shape[-2:]
        table = ops.wide_ranges((height, width)) if ranges == "wide" else ops.AUTOAUGMENT_RANGES
        value = ops.to_values(self.operation, self.magnitude, self.sign, table)
        operation = self.operation * self.applied  # id 0 is Identity
        return ops.apply_sequence(images, operation, value, self.center)


def random_draws(n: int, count: int, generator: torch.Generator | None) -> Draws:
    """Draws with random signs and centres; every operation Identity at magnitude 0, applied."""
    noise = uniform(n, count, 3, generator=generator)
    zeros = torch.zeros(n, count, dtype=torch.int64, device=noise.device)
    return Draws(
        sub_policy=zeros[:, 0],
        operation=zeros,
        applied=torch.ones_like(zeros, dtype=torch.bool),
        magnitude=torch.zeros_like(noise[..., 0]),
        sign=torch.where(noise[..., 0] < 0.5, -1.0, 1.0).to(noise.dtype),
        center=noise[..., 1:],
    )


def numbers(values: Numbers, name: str, *shape: int, low: float = 0, high: float = 1) -> Tensor:
    """A policy's own copy of its numbers, float64 on the CPU, whatever mode PyTorch is in.

    Raises:
        ValueError: their shape is another, or one is outside [low, high]; `name` is what they are
            called.
    """
    with torch.inference_mode(False):
        try:
            result = torch.as_tensor(values, dtype=torch.float64, device="cpu").detach().clone()
        except ValueError:
            raise ValueError(f"{name}: rows differ in length") from None
    if result.shape != shape:
        raise ValueError(f"{name}: shape {tuple(result.shape)}, expected {shape}")
    if not bool(((result >= low) & (result <= high)).all()):
        raise ValueError(f"{name} must be finite; one is outside [{low:g}, {high:g}]")
    return result


def positive_total(weights: Tensor, name: str) -> float:
    """The sum of non-negative weights that a distribution is made of.

    Raises:
        ValueError: it is not finite, or all are zero; `name` is what they are called.
    """
    total = float(weights.sum())
    if not 0 < total < math.inf:
        raise ValueError(f"{name} must be finite, non-negative and not all zero")
    return total


def normalised(values: Numbers, name: str, *shape: int) -> Tensor:
    """Numbers that sum to 1; those that do so already stay as they are, to the bit.

    Raises:
        ValueError: see `numbers` and `positive_total`.
    """
    weights = numbers(values, name, *shape, high=math.inf)
    total = positive_total(weights, name)
    return weights / total if abs(total - 1) > 1e-9 else weights


def rates_by_operation(ids: Tensor, rates: Tensor) -> dict[str, float]:
    """Rates summed by operation, in the order of `raysearch.ops.OPERATIONS`.

    Args:
        ids: operation ids, int64, of any shape; with repetition.
        rates: one for each, float64.
    """
    ids = ids.flatten()
    sums = torch.zeros(len(ops.OPERATIONS), dtype=torch.float64, device="cpu")
    sums.index_add_(0, ids, rates.flatten())
    return {ops.OPERATIONS[i]: float(sums[i]) for i in sorted(set(ids.tolist()))}


def drawn(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Entries of a distribution, one for each number from U(0, 1), int64 of their shape.

    Args:
        probabilities: non-negative, not all zero, float64 [N], on the CPU.
        uniform: on any device, where the result lives too.
    """
    cumulative = probabilities.cumsum(0)
    cumulative = (cumulative / cumulative[-1]).float().to(uniform.device)
    return torch.searchsorted(cumulative, uniform, right=True)


def strongest(weights: Tensor, most: int, words: Callable[[int], str]) -> str:
    """The largest of some weights, a line each with what it is of, and how many more there are."""
    order = weights.argsort(descending=True, stable=True)[:most].tolist()
    lines = [f"{float(weights[i]):7.4f}  {words(i)}" for i in order]
    rest = len(weights) - len(lines)
    return "\n".join([*lines, *([f"         … and {rest} more"] if rest else [])])


class OperationPolicy(Policy):
    """A distribution over sequences of image operations.

    Args:
        operations: names, at least one.
        ranges: the ranges that magnitudes refer to, `autoaugment` or `wide`.

    Raises:
        ValueError: no operations.
        RaysearchError: an unknown operation, or unknown ranges.
    """

    operations: tuple[Any, ...]

    def __init__(self, operations: Sequence[str], ranges: str) -> None:
        if not operations:
            raise ValueError(f"a policy of kind {self.kind} needs operations")
        if ranges not in RANGES:
            raise unknown("ranges", ranges, RANGES)
        self.operations, self.ranges = tuple(operations), ranges
        with torch.inference_mode(False):
            self._ids = torch.tensor([ops.operation_id(name) for name in operations], device="cpu")

    def __len__(self) -> int:
        return len(self.operations)

    @abstractmethod
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Draws:
        """Draw the operations of n images independently.

        Args:
            n: number of images.
            generator: see `Policy.__call__`; the draw lives on its device.
        """

    def _augment(
        self, images: Tensor, generator: torch.Generator | None, progress: float
    ) -> Tensor:
        """Augment a batch, each image with a draw of its own; see `Policy.__call__`."""
        return self.sample(len(images), generator=generator).apply(images, self.ranges)
