"""Dividing multi-label images in proportion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from raysearch.data._split import Index, Mask, Targets
from raysearch.errors import RaysearchError


def multi_label_part(
    targets: Targets,
    part: int | float,
    seed: int,
    classes: Sequence[str] | None,
    least: tuple[int, int],
) -> Mask:
    """Choose a part of multi-label images that has every class in proportion.

    Iterative stratification (Sechidis, Tsoumakas, Vlahavas 2011, "On the Stratification of
    Multi-Label Data", algorithm 1) into two parts, a class at a time: of the class with the fewest
    images left, the part gets as many as it still lacks. (Giving them one by one to whichever side
    lacks more, as the paper does, ends with the same number.) Then images change sides, the ones
    that disturb the proportions least, until each class has what `least` asks for and the part has
    its size.

    Args:
        targets: which classes an image has, float32 [N, K] of 0 and 1.
        part: images to choose, or (a float) their share, which is met as nearly as `least` allows;
            where both sides cannot have every class, the rest does.
        seed: decides between images of the same classes.
        classes: class names, for messages.
        least: images of each class in the rest and in the part, see `stratified_split`.

    Returns:
        bool [N], True for the images of the part.

    Raises:
        RaysearchError: `part` images cannot be had with `least`.
    """
    has = targets > 0
    size = round(part * len(has)) if isinstance(part, float) else part
    size = min(max(size, 1), len(has) - 1) if isinstance(part, float) else size
    if not 0 < size <= len(has):
        raise RaysearchError(f"cannot take {size} of {len(has)} images")
    counts = has.sum(0)
    first = np.minimum(counts, min(least[0], 1))  # a class's only image stays in the rest
    in_part = np.minimum(least[1], counts - first)
    in_rest = np.minimum(least[0], counts - in_part)
    wanted = np.clip(counts * (size / len(has)), in_part, counts - in_rest)
    shuffle = np.random.default_rng(seed).permutation(len(has))
    division = _Division(has[shuffle], wanted, in_part, counts - in_rest)
    division.fill(size)
    division.mend()
    division.resize(size)
    lacking = division.lacking()
    if isinstance(part, int) and (len(lacking) or division.chosen.sum() != size):
        which = lacking[0] if len(lacking) else int(counts.argmin())
        name = repr(classes[which]) if classes is not None else str(which)
        raise RaysearchError(
            f"cannot take {size} of {len(has)} images so that every class has at least {least[1]} "
            f"there and {least[0]} in the rest (class {name} has {counts[which]})"
        )
    chosen = np.zeros(len(has), dtype=bool)
    chosen[shuffle] = division.chosen
    return chosen


class _Division:
    """Images in an order that decides between equals, and which of them have been chosen.

    Args:
        has: bool [N, K].
        wanted: images of each class to choose, float [K].
        low, high: bounds of that number, int [K].
    """

    def __init__(self, has: Mask, wanted: npt.NDArray[np.float64], low: Index, high: Index) -> None:
        self.has, self.wanted, self.low, self.high = has, wanted, low, high
        self.chosen: Mask = np.zeros(len(has), dtype=bool)
        self.taken = np.zeros(has.shape[1], dtype=np.int64)  # of each class, chosen images

    def fill(self, size: int) -> None:
        """Give the part what it lacks of each class, from the rarest on, and then of no class."""
        free = np.ones(len(self.has), dtype=bool)
        while (remaining := self.has[free].sum(0)).any():
            label = int(np.where(remaining, remaining, len(self.has) + 1).argmin())
            images = np.flatnonzero(free & self.has[:, label])
            lacks = round(self.wanted[label]) - int(self.taken[label])
            for image in images[: max(lacks, 0)]:
                self._move(image)
            free[images] = False
        for image in np.flatnonzero(free)[: max(size - int(self.chosen.sum()), 0)]:
            self._move(image)

    def mend(self) -> None:
        """Move images of classes that are out of their bounds; the rest comes before the part."""
        for label in range(self.has.shape[1]):
            images = self.has[:, label]
            while self.taken[label] < self.low[label]:
                if not self._move_best(True, images):
                    break
            while self.taken[label] > self.high[label]:
                if not self._move_best(False, images):
                    self._move(int(np.flatnonzero(images & self.chosen)[0]))

    def resize(self, size: int) -> None:
        """Move images until `size` are chosen, as long as no class leaves its bounds."""
        while (chosen := int(self.chosen.sum())) != size:
            if not self._move_best(chosen < size, np.ones(len(self.has), dtype=bool)):
                break

    def lacking(self) -> Index:
        """Classes that are out of their bounds."""
        return np.flatnonzero((self.taken < self.low) | (self.taken > self.high))

    def _move_best(self, add: bool, among: Mask) -> bool:
        """Move the image that brings the classes nearest to what is wanted; False: none may be."""
        full = self.taken >= self.high if add else self.taken <= self.low
        may = among & (self.chosen != add) & ~self.has[:, full].any(1)
        if not may.any():
            return False
        step = 1 if add else -1
        worse = 1 + 2 * step * (self.taken - self.wanted)  # change of the squared difference
        self._move(int(np.where(may, self.has @ worse, np.inf).argmin()))
        return True

    def _move(self, image: int) -> None:
        self.chosen[image] = ~self.chosen[image]
        self.taken += np.where(self.chosen[image], 1, -1) * self.has[image]
