"""A data set: its splits, and what a network must know of its images."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from raysearch.data._split import Split
from raysearch.data._stratify import stratified_split


@dataclass(frozen=True)
class Dataset:
    """Labelled images, ready for a search and for its evaluation.

    Args:
        name: as in the configuration (`data.name`).
        classes: class names; a label is an index into them.
        train: training images. Every class has at least two when `val` is None.
        val: the validation split that came with the data, else None.
        test: test images, which nothing but the final evaluation may touch.
        channels: 1 (grey) or 3 (RGB).
        size: height and width in pixels.
        mean: of train, per channel, on the scale of 0 to 1.
        std: likewise.
        skipped: images passed over because they cannot be read (`data.on_error=skip`).
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split | None
    test: Split
    channels: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    skipped: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """How many images there are of each split, and how many could not be read."""
        return {
            "train": len(self.train),
            "val": 0 if self.val is None else len(self.val),
            "test": len(self.test),
            "skipped": self.skipped,
        }

    @property
    def guess_error(self) -> float:
        """Test error in percent of always naming the most frequent class of the training images."""
        most = torch.bincount(self.train.labels, minlength=len(self.classes)).argmax()
        return 100.0 * float((self.test.labels != most).double().mean())

    def search_splits(self, seed: int, val_fraction: float) -> tuple[Split, Split]:
        """What a search trains on, and what it validates on.

        Args:
            seed: decides which images of train are held out; not used where `val` was given.
            val_fraction: the share of train to hold out, between 0 and 1; likewise.
        """
        if self.val is not None:
            return self.train, self.val
        train, val = stratified_split(
            self.train.labels, float(val_fraction), seed, classes=self.classes
        )
        return self.train.subset(train), self.train.subset(val)

    def full_train(self) -> Split:
        """What the final training uses: train and val."""
        return self.train if self.val is None else self.train.join(self.val)
