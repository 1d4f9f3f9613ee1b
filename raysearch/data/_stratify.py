"""Stratified splits: every class keeps its share in each part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raysearch.data._grouped import grouped_part
from raysearch.data._multi_label import multi_label_part
from raysearch.data._split import Index, Targets
from raysearch.errors import RaysearchError


def stratified_split(
    targets: Tensor,
    part: int | float,
    seed: int,
    *,
    classes: Sequence[str] | None = None,
    least: tuple[int, int] = (1, 1),
    groups: Index | None = None,
) -> tuple[Tensor, Tensor]:
    """Divide images into two parts, each with every class in proportion.

    Class indices are divided by largest remainder; for one seed a smaller part lies, but for
    rounding, within a larger one. Multi-label targets are divided by iterative stratification, see
    `multi_label_part`. Deterministic in the arguments.

    Args:
        targets: class indices, int64 [N], or which classes an image has, float32 [N, K].
        part: size of the second part: a number of images, or (a float between 0 and 1) a share,
            which is rounded so that `least` holds.
        seed: decides which images of a class go where.
        classes: class names, for messages.
        least: images of every class that there must be in the rest and in the part. Multi-label, a
            class with fewer images has one in the rest before it has one in the part.
        groups: which images belong together, int64 [N]; groups stay whole, and `least` counts
            them, as far as it can be had, see `grouped_part`.

    Returns:
        Indices of the rest and of the part, int64, each in ascending order.

    Raises:
        RaysearchError: a class has too few images, or `part` cannot be had with `least`.
    """
    array = targets.cpu().numpy()
    if len(array) == 0:
        raise RaysearchError("there are no images to split")
    if isinstance(part, float) and not 0.0 < part < 1.0:
        raise RaysearchError(f"a share to split off must lie between 0 and 1, not {part}")
    if groups is not None:
        share = part if isinstance(part, float) else part / len(array)
        chosen = grouped_part(array, groups, share, seed, least[0])
    else:
        divide = _single_label_part if array.ndim == 1 else multi_label_part
        chosen = divide(array, part, seed, classes, least)
    return torch.from_numpy(np.flatnonzero(~chosen)), torch.from_numpy(np.flatnonzero(chosen))


def _single_label_part(
    labels: Index,
    part: int | float,
    seed: int,
    classes: Sequence[str] | None,
    least: tuple[int, int],
) -> npt.NDArray[np.bool_]:
    present, counts = np.unique(labels, return_counts=True)
    check_counts(labels, sum(least), classes)
    low, high = least[1] * len(present), len(labels) - least[0] * len(present)
    size = min(max(round(part * len(labels)), low), high) if isinstance(part, float) else part
    if not low <= size <= high:
        raise RaysearchError(
            f"cannot take {size} of {len(labels)} images: with {len(present)} classes, which need "
            f"at least {least[1]} each there and {least[0]} each in the rest, it must be between "
            f"{low} and {high}"
        )
    take = _allocate(counts, size, least)
    generator = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), dtype=bool)
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    for images, count in zip(by_class, take, strict=True):
        chosen[generator.permutation(images)[:count]] = True
    return chosen


def check_counts(targets: Targets, least: int, classes: Sequence[str] | None) -> None:
    """Whether every class has enough images.

    Args:
        targets: int64 [N], where every class that occurs has to do so `least` times; or float32
            [N, K], where each of the K classes needs one image, and an image needs no class.
        least: images of a class.
        classes: class names, for the message.

    Raises:
        RaysearchError: a class has too few; it is named, with its count.
    """
    if targets.ndim == 2:
        counts = np.count_nonzero(targets, axis=0)
        present, least = np.arange(targets.shape[1]), min(least, 1)
    else:
        present, counts = np.unique(targets, return_counts=True)
    smallest = int(counts.argmin())
    if counts[smallest] < least:
        label, count = int(present[smallest]), int(counts[smallest])
        name = repr(classes[label]) if classes is not None else str(label)
        raise RaysearchError(
            f"class {name} has {count} image{'s' if count != 1 else ''}, the splits need at least "
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


def strata(targets: Tensor) -> Tensor:
    """One class for each image, to spread images by: int64 [N].

    Args:
        targets: class indices, int64 [N], which are returned as they are; or which of K classes an
            image has, float32 [N, K]: then the rarest of its classes, K for an image that has none.
    """
    if targets.ndim == 1:
        return targets
    has = targets > 0
    counts = has.sum(0)
    rarest = torch.where(has, counts, len(targets) + 1).argmin(1)
    return torch.where(has.any(1), rarest, targets.shape[1])


def rank_in_class(targets: Tensor) -> Tensor:
    """How many images of the same class stand before each one; multi-label see `strata`.

    Args:
        targets: class indices, int64 [N], or which classes an image has, float32 [N, K].

    Returns:
        int64 [N], 0 for the first image of each class.
    """
    labels = strata(targets)
    by_class, counts = labels.argsort(stable=True), labels.bincount()
    rank = torch.empty_like(labels)
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    rank[by_class] = torch.arange(len(labels)) - starts
    return rank
