"""Stratified splits: every class keeps its share in each part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raysearch.errors import RaysearchError


def stratified_split(
    labels: Tensor,
    part: int | float,
    seed: int,
    *,
    classes: Sequence[str] | None = None,
    least: tuple[int, int] = (1, 1),
) -> tuple[Tensor, Tensor]:
    """Divide images into two parts, each with every class in proportion (largest remainder).

    Deterministic in its arguments. For one seed a smaller part lies, but for rounding, within a
    larger one.

    Args:
        labels: class indices, int64 [N].
        part: size of the second part: a number of images, or (a float between 0 and 1) a share,
            which is rounded so that `least` holds.
        seed: decides which images of a class go where.
        classes: class names, for messages.
        least: images of every class that there must be in the rest and in the part.

    Returns:
        Indices of the rest and of the part, int64, each in ascending order.

    Raises:
        RaysearchError: a class has too few images, or `part` cannot be had with `least`.
    """
    targets = labels.cpu().numpy()
    present, counts = np.unique(targets, return_counts=True)
    if len(present) == 0:
        raise RaysearchError("there are no images to split")
    check_counts(targets, sum(least), classes)
    low, high = least[1] * len(present), len(targets) - least[0] * len(present)
    if isinstance(part, float):
        if not 0.0 < part < 1.0:
            raise RaysearchError(f"a share to split off must lie between 0 and 1, not {part}")
        size = min(max(round(part * len(targets)), low), high)
    else:
        size = part
    if not low <= size <= high:
        raise RaysearchError(
            f"cannot take {size} of {len(targets)} images: with {len(present)} classes, which need "
            f"at least {least[1]} each there and {least[0]} each in the rest, it must be between "
            f"{low} and {high}"
        )
    take = _allocate(counts, size, least)
    generator = np.random.default_rng(seed)
    chosen = np.zeros(len(targets), dtype=bool)
    for label, count in zip(present, take, strict=True):
        members = generator.permutation(np.flatnonzero(targets == label))
        chosen[members[:count]] = True
    return torch.from_numpy(np.flatnonzero(~chosen)), torch.from_numpy(np.flatnonzero(chosen))


def check_counts(labels: npt.NDArray[np.int64], least: int, classes: Sequence[str] | None) -> None:
    """Whether every class that occurs does so `least` times.

    Raises:
        RaysearchError: one does not; it is named, with its count.
    """
    present, counts = np.unique(labels, return_counts=True)
    smallest = int(counts.argmin())
    if counts[smallest] < least:
        label, count = int(present[smallest]), int(counts[smallest])
        name = repr(classes[label]) if classes is not None else str(label)
        raise RaysearchError(
            f"class {name} has {count} image{'s' if count > 1 else ''}, the splits need at least "
            f"{least}: add images or leave the class out"
        )


def _allocate(
    counts: npt.NDArray[np.int64], size: int, least: tuple[int, int]
) -> npt.NDArray[np.int64]:
    """How many of `size` images each class gives: in proportion, within `least`."""
    quota = counts * (size / counts.sum())
    whole = np.floor(quota).astype(np.int64)
    take: npt.NDArray[np.int64] = np.clip(whole, least[1], counts - least[0])
    while take.sum() < size:
        take[np.where(take < counts - least[0], quota - take, -np.inf).argmax()] += 1
    while take.sum() > size:
        take[np.where(take > least[1], quota - take, np.inf).argmin()] -= 1
    return take


def rank_in_class(labels: Tensor) -> Tensor:
    """How many images of the same class stand before each one.

    Args:
        labels: class indices, int64 [N].

    Returns:
        int64 [N], 0 for the first image of each class.
    """
    by_class, counts = labels.argsort(stable=True), labels.bincount()
    rank = torch.empty_like(labels)
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    rank[by_class] = torch.arange(len(labels)) - starts
    return rank
