"""Policies that adapt to each image: what a network finds easy is changed strongly."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from raysearch.errors import unknown
from raysearch.policy import _checks as checks
from raysearch.policy._base import source, uniform
from raysearch.policy._operations import Draws, OperationPolicy, random_draws
from raysearch.policy._random_operations import TRIVIAL_AUGMENT_OPERATIONS

Indices = Tensor | Sequence[int] | int
RULES = {
    "entropy": "1 − the entropy of the network's prediction over its maximum",
    "agreement": "the agreement of prediction and label, for half of a batch",
}


class Adaptive(OperationPolicy):
    """One operation per image, drawn uniformly, at a magnitude that follows from what a network
    said about the image when it was last trained on.

    With p the softmax of the outputs and y the label, the magnitude is 1 − H(p) / log K by the
    rule `entropy` (EntAugment, ECCV 2024) and cos(p, onehot(y)) by the rule `agreement` (SRA, IJCV
    2025), which half of each batch follows; the other half, at random, has magnitudes from U(0, 1).
    With several labels t to an image, p is the sigmoid of each class: 1 − mean H(p) / log 2, and
    mean(1 − |p − t|).

    A policy is a value and remembers nothing, see `Magnitudes`. Where nothing is known of an image,
    its magnitude is drawn from U(0, 1).

    Args:
        operations: names to draw from.
        rule: `entropy` or `agreement`.
        ranges: the ranges that magnitudes refer to.

    Raises:
        ValueError: no operations.
        RaysearchError: an unknown operation, rule, or unknown ranges.
    """

    kind: ClassVar[str] = "adaptive"
    fields: ClassVar[Mapping[str, checks.Check]] = {
        "ranges": checks.RANGE,
        "operations": checks.list_of(checks.NAME, least=1, most=checks.MAX_VALUES),
        "rule": checks.one_of(*RULES),
    }

    def __init__(self, operations: Sequence[str], rule: str, ranges: str = "wide") -> None:
        super().__init__(operations, ranges)
        if rule not in RULES:
            raise unknown("rule", rule, RULES)
        self.rule = rule
        self._known: Tensor | None = None

    def knowing(self, magnitudes: Tensor) -> Self:
        """The policy for one batch, whose images' magnitudes are known.

        Args:
            magnitudes: in [0, 1], float32 [n]; NaN where nothing is known.
        """
        policy = copy.copy(self)
        policy._known = magnitudes
        return policy

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Draws:
        """Operations and magnitudes of n images; see `OperationPolicy.sample`.

        Raises:
            ValueError: magnitudes are known of another number of images.
        """
        device = source(generator)
        draws = random_draws(n, 1, generator)
        index = torch.randint(len(self._ids), (n, 1), device=device, generator=generator)
        magnitude = uniform(n, 1, generator=generator)
        if self._known is not None:
            if len(self._known) != n:
                raise ValueError(f"{len(self._known)} indices for {n} images")
            known = self._known.to(device)[:, None]
            if self.rule == "agreement":
                half = torch.randperm(n, device=device, generator=generator)[: n // 2]
                known = known.index_fill(0, half, math.nan)
            magnitude = torch.where(known.isnan(), magnitude, known)
        return replace(draws, operation=self._ids.to(device)[index], magnitude=magnitude)

    @torch.no_grad()
    def magnitudes(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What the rule says of a batch, float32 [B] in [0, 1] on the outputs' device.

        Args:
            outputs: logits [B, K].
            targets: class indices, int64 [B]; or of several labels, 0 or 1, [B, K].

        Raises:
            ValueError: other shapes.
        """
        outputs, targets = outputs.detach().float(), targets.to(outputs.device)
        if outputs.ndim != 2 or targets.shape not in (outputs.shape, outputs.shape[:1]):
            raise ValueError(
                "outputs of shape [B, K] and targets of shape [B] or [B, K], not "
                f"{list(outputs.shape)} and {list(targets.shape)}"
            )
        if targets.ndim == 2:
            p = outputs.sigmoid()
            doubt = (p - targets).abs()
            if self.rule == "entropy":
                entropy = F.binary_cross_entropy_with_logits(outputs, p, reduction="none")
                doubt = entropy / math.log(2)
            found = 1 - doubt.mean(1)
        elif self.rule == "entropy":
            p = outputs.softmax(1)
            found = 1 - torch.special.entr(p).sum(1) / math.log(p.shape[1])
        else:
            p = outputs.softmax(1)
            found = p.gather(1, targets[:, None])[:, 0] / p.norm(dim=1)
        return found.clamp(0, 1)

    def operation_rates(self) -> dict[str, float]:
        """The same for each operation."""
        return dict.fromkeys(self.operations, 1 / len(self.operations))

    def describe(self, most: int = 10) -> str:
        """One line: which operations, and the rule."""
        drawn = f"1 of {len(self.operations)} operations per image, uniformly"
        return f"{drawn} ({', '.join(self.operations)}); magnitude: {RULES[self.rule]}"


class Magnitudes:
    """What an adaptive policy knows of each training image: its magnitude, 4 bytes an image.

    Args:
        policy: whose rule is followed.

    Attributes:
        policy: as given.
    """

    def __init__(self, policy: Adaptive) -> None:
        self.policy = policy
        # no tensor: which modes of PyTorch do not touch, and where of equal indices the last counts
        self._values = np.empty(0, np.float32)

    def policy_for(self, indices: Indices) -> Adaptive:
        """The policy for the training images of these indices; raises like `observe`."""
        found = _whole(indices)
        known = np.full(len(found), np.nan, np.float32)
        old = found < len(self._values)
        known[old] = self._values[found[old]]
        return self.policy.knowing(torch.from_numpy(known))

    def observe(self, indices: Indices, outputs: Tensor, targets: Tensor) -> None:
        """Keep what a network's outputs say about training images; waits for the device.

        Args:
            indices: which images, whole numbers from 0, [B]; the largest sets how many are kept.
            outputs, targets: see `Adaptive.magnitudes`.

        Raises:
            ValueError: other indices, or shapes that do not belong together.
        """
        found = _whole(indices)
        values = self.policy.magnitudes(outputs, targets).cpu().numpy()
        if len(found) != len(values):
            raise ValueError(f"{len(found)} indices for {len(values)} outputs")
        more = found.max(initial=-1) + 1 - len(self._values)
        if more > 0:
            self._values = np.pad(self._values, (0, more), constant_values=np.nan)
        self._values[found] = values

    def state(self) -> Tensor:
        """A copy of the magnitudes, by index, float32 [N]; NaN is not seen yet."""
        return torch.from_numpy(self._values.copy())

    def load(self, state: Tensor) -> None:
        """Go on from a `state`."""
        self._values = state.cpu().numpy().astype(np.float32)


def _whole(indices: Indices) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    found = torch.as_tensor(indices, device="cpu").reshape(-1).numpy()
    if found.size and (found.dtype.kind not in "iu" or found.min() < 0):
        raise ValueError("indices of training images must be whole numbers from 0")
    return found.astype(np.int64)


def entaugment() -> Adaptive:
    """EntAugment (ECCV 2024): TrivialAugment's operations, the stronger the surer the network."""
    return Adaptive(TRIVIAL_AUGMENT_OPERATIONS, "entropy")


def sra() -> Adaptive:
    """SRA (IJCV 2025), with TrivialAugment's operations: the stronger the more right it is."""
    return Adaptive(TRIVIAL_AUGMENT_OPERATIONS, "agreement")
