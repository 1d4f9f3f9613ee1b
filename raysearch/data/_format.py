"""What the images are, from their headers, and the size that suits them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from raysearch.data._image import DecodeError, Header, Payload, read_header
from raysearch.data._source import ArraySource, Part, Source
from raysearch.data._split import Index
from raysearch.data._stream import unreadable
from raysearch.errors import RaysearchError

LARGEST_KEPT = 256  # pixels of the longer side, up to which images of one size stay as they are
LARGEST_CHOSEN = 224  # pixels of a side, where a size has to be chosen
_SPARE = "with channels beyond colour and transparency, not read"
_SHALLOW = "with more than 8 bits, of a format of which the upper 8 are read"
_PROBED = 10_000  # images per part whose headers are read


@dataclass(frozen=True)
class Stored:
    """What images are in their files, as far as their headers were read.

    Attributes:
        kinds: how many have which channels and bits, in words; the most frequent first.
        smallest, largest: height and width in pixels, by their product.
    """

    kinds: Mapping[str, int]
    smallest: tuple[int, int]
    largest: tuple[int, int]


@dataclass
class Shapes:
    """What the images' headers say.

    Attributes:
        grey: whether all images are grey.
        sizes: the different heights and widths, in the order in which they were found, each with
            the name of an image of that size.
        shorter: median of the images' shorter sides, in pixels.
        kinds: how many images have which channels and bits, in words.
        deep: by part, where in it are the images that are read with more than 8 bits.
        alpha: likewise, those with transparency.
        said: what a person should know of some images, and their names.
    """

    grey: bool
    sizes: dict[tuple[int, int], str]
    shorter: int
    kinds: Counter[str] = field(default_factory=Counter)
    deep: dict[str, list[int]] = field(default_factory=dict)
    alpha: dict[str, list[int]] = field(default_factory=dict)
    said: dict[str, list[str]] = field(default_factory=dict)

    @property
    def common(self) -> tuple[int, int] | None:
        """Height and width of all images; None where they differ."""
        return next(iter(self.sizes)) if len(self.sizes) == 1 else None

    @property
    def stored(self) -> Stored:
        """What is told of them."""
        by_area = sorted(self.sizes, key=lambda size: size[0] * size[1])
        return Stored(dict(self.kinds.most_common()), by_area[0], by_area[-1])

    @property
    def count(self) -> int:
        """How many headers were read."""
        return self.kinds.total()


def read_shapes(parts: Mapping[str, Part], *, skip: bool) -> Shapes:
    """Channels, bits and sizes of the images, from the headers of at most 10,000 per part.

    Args:
        parts: the images.
        skip: pass over images that cannot be read.

    Raises:
        RaysearchError: an image's header cannot be read (unless `skip`), or none can.
    """
    found = Shapes(True, {}, 0)
    shorter: list[int] = []
    for name, part in parts.items():
        source = part.source
        in_memory = isinstance(source, ArraySource)
        indices = np.arange(1) if in_memory else source.sample(_PROBED)
        for index, payload in _fetched(source, indices):
            try:
                header = read_header(payload)
            except DecodeError as error:
                if skip:
                    continue
                raise unreadable(source, index, str(error)) from error
            _note(found, name, index, header, source.name(index), len(part) if in_memory else 1)
            shorter.append(min(header.height, header.width))
    if not found.sizes:
        raise RaysearchError("none of the images can be read")
    found.shorter = int(np.median(shorter))
    return found


def _fetched(source: Source, indices: Index) -> Iterator[tuple[int, Payload | None]]:
    """The images at `indices`, of which only so many are in memory at once as may be."""
    some = source.subset(indices)
    for window in some.windows(None):
        yield from zip(indices[window].tolist(), some.fetch(window), strict=True)


def _note(found: Shapes, part: str, index: int, header: Header, name: str, images: int) -> None:
    found.grey = found.grey and header.grey
    found.sizes.setdefault((header.height, header.width), name)
    found.kinds[f"{header.kind}, {header.bits} bits"] += images
    if header.deep:
        found.deep.setdefault(part, []).append(index)
    if header.alpha:
        found.alpha.setdefault(part, []).append(index)
    if header.kind in ("CMYK", "YCbCr", "LAB", "HSV"):
        found.said.setdefault(f"in {header.kind}, converted to RGB", []).append(name)
    if header.spare:
        found.said.setdefault(_SPARE, []).append(name)
    if header.frames:
        found.said.setdefault("with pages or frames beyond the first, not read", []).append(name)
    if header.bits > 8 and not header.deep:
        found.said.setdefault(_SHALLOW, []).append(name)


def natural_size(shapes: Shapes) -> tuple[tuple[int, int], str]:
    """The size that suits the images, on whatever machine.

    Images that are all of one size of at most 256 pixels keep it. Others become squares with the
    median of their shorter sides, at most 224.

    Returns:
        Height and width, and, where the images are changed, why.
    """
    common = shapes.common
    if common is not None and max(common) <= LARGEST_KEPT:
        return common, ""
    side = min(shapes.shorter, LARGEST_CHOSEN)
    if common is not None:
        reason = f"the images are large ({common[0]}x{common[1]})"
    else:
        (one, name), (other, other_name) = list(shapes.sizes.items())[:2]
        reason = (
            f"the images are of different sizes ({name} is {one[0]}x{one[1]}, "
            f"{other_name} is {other[0]}x{other[1]})"
        )
    return (side, side), reason
