"""What a search returns: a distribution over image operations that can be sampled and applied."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from raysearch import ops
from raysearch.files import write_whole
from raysearch.policy._draw import draw_shares

Json = dict[str, Any]

FORMAT = "raysearch-policy"
VERSION = 1


@dataclass(frozen=True)
class Draws:
    """One draw of a policy for each of n images: K operations, applied in order.

    Attributes:
        sub_policy: which entry of the policy was drawn, int64 [n].
        operation: operation ids (`raysearch.ops.OPERATIONS`), int64 [n, K].
        applied: whether each operation is carried out, bool [n, K].
        magnitude: in [0, 1], float32 [n, K].
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


def source(generator: torch.Generator | None) -> torch.device:
    """Where numbers from `generator` live."""
    return torch.device("cpu") if generator is None else generator.device


def random_draws(n: int, count: int, generator: torch.Generator | None) -> Draws:
    """Draws with random signs and centres; every operation Identity at magnitude 0, applied."""
    device = source(generator)
    noise = torch.rand(n, count, 3, device=device, generator=generator)
    zeros = torch.zeros(n, count, dtype=torch.int64, device=device)
    return Draws(
        sub_policy=zeros[:, 0],
        operation=zeros,
        applied=torch.ones_like(zeros, dtype=torch.bool),
        magnitude=torch.zeros(n, count, device=device),
        sign=torch.where(noise[..., 0] < 0.5, -1.0, 1.0),
        center=noise[..., 1:],
    )


class Policy(ABC):
    """A distribution over sequences of image operations.

    Attributes:
        kind: the name under which the policy is written to JSON.
        ranges: the ranges that its magnitudes refer to, `autoaugment` or `wide`.
    """

    kind: ClassVar[str]
    ranges: str

    @abstractmethod
    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        progress: float = 0.0,
    ) -> Draws:
        """Draw the operations of n images independently.

        Args:
            n: number of images.
            generator: source of randomness, on whose device the draw lives; None is torch's
                global one for the CPU. On the CPU is best, for images on a GPU too: the
                operations' parameters are needed there, and nothing waits for the GPU.
            progress: how far the training that uses the policy has come, in [0, 1]. Policies
                that do not change over training ignore it.
        """

    def __call__(
        self, images: Tensor, generator: torch.Generator | None = None, progress: float = 0.0
    ) -> Tensor:
        """Augment a batch, each image with a draw of its own.

        Args:
            images: uint8 [B, C, H, W], or floating point in [0, 1]; C is 1 or 3.
            generator, progress: see `sample`.
        """
        draws = self.sample(len(images), generator=generator, progress=progress)
        return draws.apply(images, self.ranges)

    @abstractmethod
    def operation_rates(self) -> dict[str, float]:
        """Expected number of times that each operation is applied to an image."""

    @abstractmethod
    def describe(self, most: int = 10) -> str:
        """The policy in words for a terminal: its `most` strongest parts, one a line."""

    @abstractmethod
    def body(self) -> Json:
        """The policy's own part of its JSON form; see `from_body`."""

    @classmethod
    @abstractmethod
    def from_body(cls, body: Mapping[str, Any]) -> Policy:
        """The policy from its own, schema-checked part of a JSON document."""

    @classmethod
    def merge(cls, policies: Sequence[Policy]) -> Policy:
        """The equal mixture of policies of this kind, for one search run with several seeds.

        Raises:
            ValueError: no policies, or policies that differ and of a kind that cannot be mixed.
        """
        if not policies or any(policy != policies[0] for policy in policies):
            raise ValueError(f"different policies of kind {cls.kind} cannot be merged")
        return policies[0]

    def to_json(self) -> Json:
        """The whole JSON document: format, version, kind and the kind's own part."""
        return {"format": FORMAT, "version": VERSION, "kind": self.kind, **self.body()}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the policy as JSON; the file appears whole or not at all.

        Raises:
            OSError: the folder does not exist or cannot be written.
        """
        text = json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"
        write_whole(Path(path), text.encode())

    def draw(self, path: str | os.PathLike[str]) -> None:
        """Write a bar chart of `marginals`; the path's ending chooses the picture's format."""
        draw_shares(self.marginals(), self.operations_per_image(), path)

    def marginals(self) -> dict[str, float]:
        """Each operation's expected share of all applications; sums to 1 unless nothing applies.

        Ordered from the strongest to the weakest.
        """
        rates = self.operation_rates()
        total = sum(rates.values())
        shares = {name: (rate / total if total > 0 else 0.0) for name, rate in rates.items()}
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    def operations_per_image(self) -> float:
        """Expected number of operations applied to an image."""
        return sum(self.operation_rates().values())
