"""A data set: its splits, and what a network must know of its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from raysearch.data._format import Stored
from raysearch.data._own import own_splits
from raysearch.data._split import Split
from raysearch.data._statistics import mean_and_std, some_pixels
from raysearch.data._stratify import stratified_split


@dataclass(frozen=True)
class Dataset:
    """Labelled images, ready for a search and for its evaluation.

    Args:
        name: as in the configuration (`data.name`).
        classes: class names; a label is an index into them.
        train: training images. Every class has at least two when `val` is None; multi-label, one.
        val: the validation split that came with the data, else None. The loaders put it on one base
            with `train`, so that `full_train` copies nothing.
        test: test images, which nothing but the final evaluation may touch.
        channels: 1 (grey) or 3 (RGB).
        size: height and width in pixels.
        mean: of train, per channel, on the scale of 0 to 1.
        std: likewise.
        skipped: images passed over because they cannot be read (`data.on_error=skip`).
        notes: what a person should know of how the data were read, a sentence each.
        given: the splits that came with the data; the others are split off train.
        stored: what the images were before they were decoded; None where they were objects.
        range: the values that became black and white, where images have more than 8 bits.
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
    notes: tuple[str, ...] = ()
    given: tuple[str, ...] = ("train",)
    stored: Stored | None = None
    range: tuple[float, float] | None = None

    @classmethod
    def of(
        cls,
        train: Any,
        test: Any = None,
        val: Any = None,
        classes: Sequence[str] | None = None,
        *,
        name: str = "own",
        size: int | tuple[int, int] | None = None,
        test_fraction: float = 0.2,
        split_seed: int = 0,
        groups: Sequence[Any] | None = None,
    ) -> Dataset:
        """A data set in memory of the user's own objects.

        Each of train, test and val is either a pair of arrays, the images and their labels, or a
        PyTorch `Dataset` of (image, label) pairs (anything with `len` and whole numbers as keys).

        - Images as an array: NumPy [N, H, W] or [N, H, W, C], a tensor [N, H, W] or [N, C, H, W].
        - One image: of Pillow, a NumPy array [H, W] or [H, W, C], a tensor [H, W] or [C, H, W].
        - Their values: uint8, or floating-point in [0, 1]. C is 1 or 3.
        - A label: a class's number, from 0; or, multi-label, a 0 or 1 for each of K classes.

        Args:
            train: the training images.
            test: the test images; None: a share of train is split off.
            val: validation images; None: a search holds out a share of train.
            classes: their names; None: those that `train.classes` names, or else 0, 1, 2, ...
            name: what the data set is called in results.
            size: height and width in pixels, or the side of a square, to which images of another
                size are scaled and centre-cropped; None: they must all be of one size.
            test_fraction: share of train that is test where none is given, between 0 and 1.
            split_seed: decides which images these are.
            groups: of each training image what it belongs to, a patient or a device, say; splits
                and folds of train keep groups whole.

        Raises:
            RaysearchError: something is of another kind or shape; it is named in one line.
        """
        own = own_splits(train, test, val, classes, size, test_fraction, split_seed, groups)
        mean, std = mean_and_std(some_pixels(own.train)[0])
        channels, height, width = own.train.images.shape[1:]
        return cls(
            name=name,
            classes=own.classes,
            train=own.train,
            val=own.val,
            test=own.test,
            channels=channels,
            size=(height, width),
            mean=mean,
            std=std,
            notes=own.notes,
            given=own.given,
        )

    @property
    def kind(self) -> Literal["single", "multi"]:
        """Whether an image has one class or any number of them."""
        return "multi" if self.train.target_shape else "single"

    @property
    def counts(self) -> dict[str, int]:
        """How many images there are of each split, and how many could not be read."""
        return {
            "train": len(self.train),
            "val": 0 if self.val is None else len(self.val),
            "test": len(self.test),
            "skipped": self.skipped,
        }

    def search_splits(self, seed: int, val_fraction: float) -> tuple[Split, Split]:
        """What a search trains on, and what it validates on; copies no images.

        Args:
            seed: decides which images of train are held out; not used where `val` was given.
            val_fraction: the share of train to hold out, between 0 and 1; likewise.
        """
        if self.val is not None:
            return self.train, self.val
        train, val = stratified_split(
            self.train.targets,
            float(val_fraction),
            seed,
            classes=self.classes,
            groups=self.train.groups,
        )
        return self.train.subset(train), self.train.subset(val)

    def full_train(self) -> Split:
        """What the final training uses: train and val."""
        return self.train if self.val is None else self.train.join(self.val)
