"""Where images lie before they are decoded: files, rows of Parquet files, or arrays."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import torch

from raysearch.data._image import Payload, Pixels
from raysearch.data._split import Index, Targets, joined_groups
from raysearch.errors import RaysearchError

_AT_ONCE = 64  # images that `Source.read` yields


class Source(ABC):
    """References to images, in an order; picklable, and small beside the images themselves."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """The image at `index` for a message: its file, or its Parquet file and row."""

    @abstractmethod
    def fetch(self, indices: Index) -> list[Payload | None]:
        """The undecoded images at `indices`; None where there is none (a null in a table)."""

    def read(self, indices: Index) -> Iterator[list[tuple[int, Payload | None]]]:
        """Those at `indices`, each with its index, a few at a time; memory holds a window."""
        some = self.subset(indices)
        for window in some.windows(None):
            images = list(zip(indices[window].tolist(), some.fetch(window), strict=True))
            for start in range(0, len(images), _AT_ONCE):
                yield images[start : start + _AT_ONCE]

    @abstractmethod
    def subset(self, indices: Index) -> Self:
        """The references at `indices`, in that order."""

    @abstractmethod
    def join(self, other: Self) -> Self:
        """These references, then those of `other`."""

    def relative_paths(self, root: Path) -> list[str]:
        """Where each image lies below the data set's folder, with `/`; empty without a name."""
        return [""] * len(self)

    def windows(self, generator: torch.Generator | None) -> Iterator[Index]:
        """All indices, once each, in pieces that `fetch` can have in memory at once.

        Args:
            generator: None for the given order, else what decides the order.
        """
        if generator is None:
            yield np.arange(len(self))
        else:
            yield torch.randperm(len(self), generator=generator).numpy()

    def sample(self, size: int) -> Index:
        """At most about `size` indices, evenly spread and cheap to fetch; always the same ones."""
        return np.arange(0, len(self), max(1, -(-len(self) // size)))


@dataclass(frozen=True)
class FileSource(Source):
    """Image files.

    Args:
        paths: the files' paths, encoded as the file system does; an Arrow array, so that a
            million of them pickle at once.
    """

    paths: pa.BinaryArray

    @classmethod
    def of(cls, paths: Sequence[str]) -> FileSource:
        return cls(pa.array([os.fsencode(path) for path in paths], pa.binary()))

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return bytes(self.paths[index].as_py()).decode(errors="replace")

    def fetch(self, indices: Index) -> list[Payload | None]:
        return [os.fsdecode(path) for path in self.paths.take(pa.array(indices)).to_pylist()]

    def relative_paths(self, root: Path) -> list[str]:
        whole = [str(path) for path in self.fetch(np.arange(len(self)))]
        start = f"{root}{os.sep}"
        below = [
            path.removeprefix(start) if path.startswith(start) else os.path.relpath(path, root)
            for path in whole
        ]
        return [path.replace(os.sep, "/") for path in below]

    def subset(self, indices: Index) -> FileSource:
        return FileSource(self.paths.take(pa.array(indices)))

    def join(self, other: FileSource) -> FileSource:
        return FileSource(pa.concat_arrays([self.paths, other.paths]))


@dataclass(frozen=True)
class ArraySource(Source):
    """Images that are in memory already.

    Args:
        images: uint8 [N, H, W, C], or a list of images.
        names: what each is called in messages.
    """

    images: Pixels | list[Payload]
    names: tuple[str, ...]

    @classmethod
    def of(cls, title: str, images: Pixels | list[Payload]) -> ArraySource:
        """Images that are called by a title and a number."""
        return cls(images, tuple(f"{title}, image {number}" for number in range(len(images))))

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]

    def fetch(self, indices: Index) -> list[Payload | None]:
        return [self.images[index] for index in indices]

    def subset(self, indices: Index) -> ArraySource:
        names = tuple(self.names[index] for index in indices)
        if isinstance(self.images, np.ndarray):
            return ArraySource(self.images[indices], names)
        return ArraySource([self.images[index] for index in indices], names)

    def join(self, other: ArraySource) -> ArraySource:
        return ArraySource([*self.images, *other.images], self.names + other.names)


@dataclass(frozen=True)
class Part:
    """References and their targets: one of a data set's given parts (train, val, test).

    Args:
        source: the images.
        targets: class indices, int64 [N], or which of K classes an image has, float32 [N, K].
        groups: which images belong together, int64 [N]; None: not told.
    """

    source: Source
    targets: Targets
    groups: Index | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, indices: Index) -> Part:
        groups = None if self.groups is None else self.groups[indices]
        return Part(self.source.subset(indices), self.targets[indices], groups)

    def join(self, other: Part) -> Part:
        """These references, then those of `other`."""
        targets = np.concatenate((self.targets, other.targets))
        groups = joined_groups(self.groups, other.groups)
        return Part(self.source.join(other.source), targets, groups)


@dataclass(frozen=True)
class Listing:
    """A data set as it was found: its class names and its given parts; train always is there."""

    classes: tuple[str, ...]
    parts: dict[str, Part]


def unreadable(source: Source, index: int, reason: str) -> RaysearchError:
    """The error for an image that cannot be read, by name."""
    help_ = "" if isinstance(source, ArraySource) else " (data.on_error=skip passes over it)"
    return RaysearchError(f"{source.name(index)}: {reason}{help_}")


def check_labels(labels: Index, classes: int, source: Source, rows: Index) -> None:
    """Whether all labels are classes.

    Args:
        labels: int64 [N].
        classes: how many there are.
        source: the images.
        rows: which of them has the label, int64 [N].

    Raises:
        RaysearchError: one is none; its image is named.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= classes)).tolist()
    if wrong:
        where, label = source.name(int(rows[wrong[0]])), labels[wrong[0]]
        raise RaysearchError(
            f"{where}: the label {label} is out of range, the {classes} classes have labels 0 to "
            f"{classes - 1}"
        )
