"""Dividing images so that groups stay whole: all of a patient, a device or a video on one side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from raysearch.data._split import Index, Mask, Targets
from raysearch.errors import RaysearchError


def grouped_folds(targets: Targets, groups: Index, count: int, seed: int) -> Index:
    """Divide images into folds of whole groups, each with every class about in proportion.

    Args:
        targets: class indices, int64 [N], or which classes an image has, float32 [N, K].
        groups: of each image, int64 [N].
        count: of folds.
        seed: decides between groups that are alike.

    Returns:
        The fold of each image, int64 [N].

    Raises:
        RaysearchError: there are fewer groups than folds.
    """
    counts, of_image = _counts(targets, groups)
    if len(counts) < count:
        raise RaysearchError(f"{count} folds of whole groups: there are only {len(counts)} groups")
    folds: Index = _assign(counts, [1 / count] * count, seed)[of_image]
    return folds


def grouped_part(targets: Targets, groups: Index, share: float, seed: int, least: int = 1) -> Mask:
    """Choose whole groups, about a share of the images and of those of each class.

    The rest has every class. The part has those of which there are two groups or more, as far as
    groups of several classes allow it.

    Args:
        targets: class indices, int64 [N], or which classes an image has, float32 [N, K].
        groups: of each image, int64 [N].
        share: of the images, which the part has about.
        seed: decides between groups that are alike.
        least: groups of each class that the rest should have, where there are more than that.

    Returns:
        bool [N], True for the images of the part.

    Raises:
        RaysearchError: no group can be spared, as each has all images of a class.
    """
    counts, of_image = _counts(targets, groups)
    side = _assign(counts, [1 - share, share], seed)
    present = counts > 0
    sizes = counts.sum(1)
    rare_first = np.argsort(present.sum(0), kind="stable")
    for number, wanted in ((0, 1), (1, 1), (0, least)):  # what the rest has to have comes first
        for label in rare_first:
            while present[side == number, label].sum() < min(wanted, present[:, label].sum()):
                spared = _spared(present, side, 1 - number, bool(wanted == 1 and number == 0))
                may = np.flatnonzero(spared & present[:, label])
                if not len(may):
                    break
                side[may[sizes[may].argmin()]] = number
    if not (side == 1).any():
        may = np.flatnonzero(_spared(present, side, 0, False))
        if not len(may):
            raise RaysearchError(
                f"{len(counts)} groups cannot be divided, as each has all images of a class: "
                "data.groups= has to make several groups of every class"
            )
        side[may[sizes[may].argmin()]] = 1
    chosen: Mask = (side == 1)[of_image]
    return chosen


def _spared(present: Mask, side: Index, number: int, any_group: bool) -> Mask:
    """Groups of a side that leave it every class that it has; or any of its groups."""
    own = side == number
    if any_group:
        return np.asarray(own)
    alone = present[own].sum(0) == 1
    spared: Mask = own & ~present[:, alone].any(1)
    return spared


def _counts(targets: Targets, groups: Index) -> tuple[npt.NDArray[np.float64], Index]:
    """Images of each class in each group [G, K], of classes that occur; each image's group."""
    _, of_image = np.unique(groups, return_inverse=True)
    rows = targets
    if targets.ndim == 1:
        _, labels = np.unique(targets, return_inverse=True)
        rows = np.eye(labels.max() + 1)[labels]
    counts = np.zeros((of_image.max() + 1, rows.shape[1]))
    np.add.at(counts, of_image, rows)
    return counts[:, counts.any(0)], of_image


def _assign(counts: npt.NDArray[np.float64], shares: Sequence[float], seed: int) -> Index:
    """The side of each group.

    As scikit-learn's StratifiedGroupKFold, but with sides of any share: groups go, the most uneven
    first, to the side where the classes' shares then differ least between the sides.
    """
    share = np.array(shares)[:, None]
    total = np.maximum(counts.sum(0), 1)
    shuffled = np.random.default_rng(seed).permutation(len(counts))
    order = shuffled[np.argsort(-counts[shuffled].std(1), kind="stable")]
    filled = np.zeros((len(shares), counts.shape[1]))
    side = np.zeros(len(counts), dtype=np.int64)
    for group in order:
        best, least = 0, (np.inf, np.inf)
        for number in range(len(shares)):
            filled[number] += counts[group]
            uneven = float((filled / (share * total)).std(0).mean())
            size = float((filled[number].sum() - counts[group].sum()) / share[number, 0])
            filled[number] -= counts[group]
            if (round(uneven, 12), size) < least:
                best, least = number, (round(uneven, 12), size)
        filled[best] += counts[group]
        side[group] = best
    return side
