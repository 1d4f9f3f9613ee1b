"""The same image twice: in two parts of a data set, or in one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from raysearch.data._image import Payload
from raysearch.data._notices import Notices
from raysearch.data._source import FileSource, Source
from raysearch.data._split import Index, Split, TensorSplit
from raysearch.errors import RaysearchError
from raysearch.files import check_regular

_BEFORE = {"train": ("test", "val"), "val": ("test",)}  # whose images a part may not have, too


@dataclass(frozen=True)
class ReadSplit:
    """A split's images as they were read.

    Attributes:
        split: the images.
        source: where those of its base come from.
        places: where in `source` the images are, int64 [N].
        digests: fingerprints, see `digest`, int64 [N].
    """

    split: Split
    source: Source
    places: Index
    digests: Index

    def name(self, index: int) -> str:
        """What the image at a position is called."""
        return self.source.name(int(self.places[index]))

    def subset(self, keep: Index) -> ReadSplit:
        """The images at some positions."""
        split = self.split.subset(torch.from_numpy(keep))
        return ReadSplit(split, self.source, self.places[keep], self.digests[keep])


def settle_duplicates(
    parts: dict[str, ReadSplit], choice: str, notices: Notices
) -> dict[str, ReadSplit]:
    """Look for images that are in two parts, and for those that a part has twice.

    Args:
        parts: train and test, and val where there is one.
        choice: for images in two parts: "warn"; "error"; or "drop", from train before val, and
            never from test.
        notices: gains what was found.

    Returns:
        The parts, without the images that are left out.

    Raises:
        RaysearchError: an image is in two parts, and `choice` is "error"; or all of a part are,
            and it is "drop".
    """
    kept: dict[str, ReadSplit] = {}
    for name, part in parts.items():
        keep = np.ones(len(part.digests), dtype=bool)
        for other in _BEFORE.get(name, ()):
            if other not in parts:
                continue
            pairs = _common(part, parts[other])
            shown = [f"{part.name(i)} = {parts[other].name(j)}" for i, j in pairs[:3]]
            if pairs and choice == "error":
                raise RaysearchError(
                    f"{len(pairs)} images of {name} are in {other}, too, as {shown[0]} "
                    f"(data.duplicates=drop leaves them out of {name})"
                )
            dropped = f"{{were}} left out of {name}"
            end = dropped if choice == "drop" else "data.duplicates=drop leaves them out"
            notices.add(f"image{{s}} of {name} {{are}} in {other}, too ({end})", shown, len(pairs))
            if choice == "drop":
                keep[[i for i, _ in pairs]] = False
            if pairs and not keep.any():
                raise RaysearchError(
                    f"all {len(keep):,} images of {name} are in another part, too, as {shown[0]}, "
                    f"so that data.duplicates=drop leaves none of {name}: give parts that differ"
                )
        kept[name] = part if keep.all() else part.subset(np.flatnonzero(keep))
    for name, part in kept.items():
        _say_repeated(name, part, notices)
    return kept


def _common(part: ReadSplit, other: ReadSplit) -> list[tuple[int, int]]:
    """Positions of a part's images that another has, too, each with the other's first."""
    first: dict[int, int] = {}
    for position, found in enumerate(other.digests.tolist()):
        first.setdefault(found, position)
    own = enumerate(part.digests.tolist())
    return [(position, first[found]) for position, found in own if found in first]


def _say_repeated(name: str, part: ReadSplit, notices: Notices) -> None:
    """Say which images a part has more than once, and which of them under different labels."""
    first: dict[tuple[int, bytes], int] = {}  # of an image with a label
    labels: dict[int, set[bytes]] = {}  # of an image
    again: list[tuple[int, int]] = []
    keys = [
        (found, target.tobytes())
        for found, target in zip(part.digests.tolist(), part.split.targets.numpy(), strict=True)
    ]
    for position, key in enumerate(keys):
        if first.setdefault(key, position) != position:
            again.append((position, first[key]))
        labels.setdefault(key[0], set()).add(key[1])
    shown = [f"{part.name(i)} = {part.name(j)}" for i, j in again[:3]]
    notices.add(f"image{{s}} of {name} {{are}} there more than once", shown, len(again))
    odd = [position for position, key in enumerate(keys) if len(labels[key[0]]) > 1]
    odd.sort(key=lambda position: keys[position][0])
    shown = [part.name(position) for position in odd[:3]]
    notices.add(f"image{{s}} of {name} {{are}} there under another label, too", shown, len(odd))


def digest(content: Payload) -> int:
    """64 bits of a hash; that any two of a million images share them by chance is unlikely.

    Args:
        content: bytes, pixels, or the path of a file, which is read. One that cannot be read is
            like no other.
    """
    if isinstance(content, str):
        try:
            check_regular(content)
            with open(content, "rb") as file:
                content = file.read()
        except OSError:
            content = os.fsencode(content)
    plain = content if isinstance(content, bytes) else np.ascontiguousarray(content).data
    return int.from_bytes(hashlib.blake2b(plain, digest_size=8).digest(), "little", signed=True)


def pixel_digests(split: Split) -> Index:
    """The `digest` of the pixels of each image, in memory."""
    assert isinstance(split, TensorSplit)
    return np.array([digest(image) for image in split.images.numpy()], dtype=np.int64)


def stored_digests(sources: Sequence[Source], count: Callable[[int], None]) -> list[Index]:
    """The `digest` of what is stored, for each image of each source: equal for equal images.

    Of files only those are read that have the size of another one.

    Args:
        sources: the images.
        count: told how many more are done.
    """
    wanted = [np.ones(len(source), dtype=bool) for source in sources]
    if all(isinstance(source, FileSource) for source in sources):
        sizes = np.concatenate([_sizes(source) for source in sources])
        _, each, times = np.unique(sizes, return_inverse=True, return_counts=True)
        ends = np.cumsum([len(source) for source in sources])[:-1]
        wanted = np.split(times[each] > 1, ends)
    found: list[Index] = []
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for source, some in zip(sources, wanted, strict=True):
            # What is not read is like no other: its number is its own, and negative.
            digests = -1 - np.arange(len(source)) - (len(found) << 40)
            count(int((~some).sum()))
            for chunk in source.read(np.flatnonzero(some)):
                there = [(index, image) for index, image in chunk if image is not None]
                hashed = pool.map(digest, [image for _, image in there])
                for (index, _), own in zip(there, hashed, strict=True):
                    digests[index] = own
                count(len(chunk))
            found.append(digests)
    return found


def _sizes(source: Source) -> Index:
    """In bytes; -1 where there is no such file."""
    return np.array([_size(path) for path in source.fetch(np.arange(len(source)))], dtype=np.int64)


def _size(path: Payload | None) -> int:
    try:
        return os.stat(path).st_size if isinstance(path, str) else -1
    except OSError:
        return -1
