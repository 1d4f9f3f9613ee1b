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
    total, flat = 0, []
    for name, split in splits.items():
        if isinstance(split, TensorSplit):
            first = len(parts["train"]) if name == "val" else 0  # behind train, on its base
            pixels, where = split.images.numpy(), split.indices.numpy() - first
        elif name == "train":
            pixels, where = some, places
        else:
            continue
        rows = pixels.reshape(len(pixels), -1)
        empty = rows.max(axis=1) - rows.min(axis=1) <= _FLAT
        flat += [parts[name].source.name(int(place)) for place in where[empty]]
        total += len(rows)
    notices.add(f"of {total:,} images {{are}} of one colour, or nearly, once decoded", flat)
