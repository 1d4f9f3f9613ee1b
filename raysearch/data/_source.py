"""Where images lie before they are decoded: files, rows of Parquet files, or arrays."""

from __future__ import annotations

import os
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import torch

from raysearch.data._image import Payload, Pixels
from raysearch.data._split import Index, Targets
from raysearch.errors import RaysearchError

LONGEST_NAME = 255  # characters of a class name: what file systems allow


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
        title: the data set's name, for messages.
        pixels: uint8 [N, H, W, C].
    """

    title: str
    pixels: Pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def name(self, index: int) -> str:
        return f"{self.title}, image {index}"

    def fetch(self, indices: Index) -> list[Payload | None]:
        return list(self.pixels[indices])

    def subset(self, indices: Index) -> ArraySource:
        return ArraySource(self.title, self.pixels[indices])

    def join(self, other: ArraySource) -> ArraySource:
        return ArraySource(self.title, np.concatenate((self.pixels, other.pixels)))


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
        groups = None
        if self.groups is not None and other.groups is not None:
            groups = np.concatenate((self.groups, other.groups))
        return Part(self.source.join(other.source), targets, groups)


@dataclass(frozen=True)
class Listing:
    """A data set as it was found: its class names and its given parts; train always is there."""

    classes: tuple[str, ...]
    parts: dict[str, Part]


def check_class_names(names: Sequence[str], where: object) -> None:
    """Class names go to files, to MLflow and onto a terminal, so that they must be text.

    They are never part of a path, so that `../x` is a name like others.

    Raises:
        RaysearchError: one holds a control character or is not valid Unicode, or is too long;
            `where` is where they stand.
    """
    for name in names:
        if len(name) > LONGEST_NAME:
            raise RaysearchError(
                f"{where}: the class name {name[:40]!r}... has {len(name)} characters, more than "
                f"{LONGEST_NAME}"
            )
        wrong = [c for c in name if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
        if wrong:
            raise RaysearchError(
                f"{where}: the class name {name!r} holds {wrong[0]!r}, which is no text: rename it"
            )
