"""What the images are, from their headers, and the size that suits them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from raysearch.data._decode import DecodeError, read_header
from raysearch.data._source import ArraySource, Part
from raysearch.data._stream import unreadable
from raysearch.errors import RaysearchError

LARGEST_KEPT = 256  # pixels of the longer side, up to which images of one size stay as they are
LARGEST_CHOSEN = 224  # pixels of a side, where a size has to be chosen
_PROBED = 10_000  # images per part whose headers are read


@dataclass(frozen=True)
class Shapes:
    """What the images' headers say.

    Attributes:
        grey: whether all images are grey.
        sizes: the different heights and widths, in the order in which they were found, each with
            the name of an image of that size.
        shorter: median of the images' shorter sides, in pixels.
    """

    grey: bool
    sizes: dict[tuple[int, int], str]
    shorter: int

    @property
    def common(self) -> tuple[int, int] | None:
        """Height and width of all images; None where they differ."""
        return next(iter(self.sizes)) if len(self.sizes) == 1 else None


def read_shapes(parts: Iterable[Part], *, skip: bool) -> Shapes:
    """Channels and sizes of the images, from the headers of at most 10,000 per part.

    Args:
        parts: the images.
        skip: pass over images that cannot be read.

    Raises:
        RaysearchError: an image's header cannot be read (unless `skip`), or none can.
    """
    grey = True
    found: dict[tuple[int, int], str] = {}
    shorter: list[int] = []
    for part in parts:
        source = part.source
        indices = np.arange(1) if isinstance(source, ArraySource) else source.sample(_PROBED)
        for index, payload in zip(indices.tolist(), source.fetch(indices), strict=True):
            try:
                header = read_header(payload)
            except DecodeError as error:
                if skip:
                    continue
                raise unreadable(source, index, str(error)) from error
            grey = grey and header.grey
            found.setdefault((header.height, header.width), source.name(index))
            shorter.append(min(header.height, header.width))
    if not found:
        raise RaysearchError("none of the images can be read")
    return Shapes(grey, found, int(np.median(shorter)))


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
