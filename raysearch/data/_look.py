"""Decoded images in which nothing is to be seen."""

from __future__ import annotations

from collections.abc import Mapping

from raysearch.data._image import Pixels
from raysearch.data._notices import Notices
from raysearch.data._source import ArraySource, Part
from raysearch.data._split import Index, Split, TensorSplit

_FLAT = 4  # levels within which an image counts as constant


def look_at_pixels(
    splits: Mapping[str, Split],
    parts: Mapping[str, Part],
    some: Pixels,
    places: Index,
    notices: Notices,
) -> None:
    """Name images that are nearly constant once they are decoded.

    Args:
        splits: the images; of a stream nothing but `some` is looked at.
        parts: where they come from; images that need no decoding are left alone.
        some: images of train, uint8 [N, C, H, W].
        places: where in the base of train they are.
        notices: where to say it.
    """
    if isinstance(parts["train"].source, ArraySource):
        return
    looks = _Looks(notices)
    for name, split in splits.items():
        first = len(parts["train"]) if name == "val" else 0  # behind train, on its base
        if isinstance(split, TensorSplit):
            looks.add(split.images.numpy(), parts[name], split.indices.numpy() - first)
        elif name == "train":
            looks.add(some, parts[name], places)
    looks.say()


class _Looks:
    """What has been seen so far."""

    def __init__(self, notices: Notices) -> None:
        self.notices, self.total = notices, 0
        self.flat: list[str] = []

    def add(self, pixels: Pixels, part: Part, places: Index) -> None:
        self.total += len(pixels)
        rows = pixels.reshape(len(pixels), -1)
        flat = rows.max(axis=1) - rows.min(axis=1) <= _FLAT
        self.flat += [part.source.name(int(place)) for place in places[flat]]

    def say(self) -> None:
        of_all = f"of {self.total:,} images"
        self.notices.add(f"{of_all} {{are}} of one colour, or nearly, once decoded", self.flat)
