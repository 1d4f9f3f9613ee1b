"""Images of more than 8 bits: their values, and which of them become black and white."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, TiffImagePlugin

from raysearch.data._image import DEEP_GREY, Pixels, raw_mode, tiff_tag

Values = npt.NDArray[Any]
Opens = Callable[[], Image.Image]
WORD = 65535  # the largest value of 16 bits


@dataclass(frozen=True)
class Range:
    """The values that become black and white; what lies beyond is cut off.

    One range holds for all images of a data set, so that equal values stay equal.
    """

    low: float = 0
    high: float = WORD

    def __call__(self, values: Values) -> Pixels:
        """Values as uint8, rounded; what is no number becomes black."""
        if values.dtype == np.uint16:
            return _table(self.low, self.high)[values]
        return _scaled(values, self.low, self.high)

    def holds(self, seen: Seen) -> bool:
        """Whether no value of an image is cut off."""
        return self.low <= seen.low and seen.high <= self.high

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Seen:
    """What an image's values are.

    Attributes:
        low, high: the smallest and the largest finite one; 0 and 0 where none is.
        whole: whether they are stored as whole numbers, or are such and beyond 1.
        finite: whether all are numbers.
        of_16_bits: whether none can be negative or beyond 65535.
    """

    low: float
    high: float
    whole: bool = True
    finite: bool = True
    of_16_bits: bool = False

    @classmethod
    def of(cls, values: Values) -> Seen:
        """What there is in an image, which has pixels."""
        if values.dtype.kind != "f":
            short = values.dtype == np.uint16
            return cls(int(values.min()), int(values.max()), of_16_bits=short)
        numbers = values[np.isfinite(values)]
        if not numbers.size:
            return cls(0, 0, finite=False)
        low, high = float(numbers.min()), float(numbers.max())
        whole = high > 1 and bool((numbers == np.rint(numbers)).all())
        return cls(low, high, whole, finite=numbers.size == values.size)


def choose_range(seen: Iterable[Seen]) -> Range:
    """The range that suits a data set's values.

    Whole numbers up to 255 stay as they are. Larger ones have as many bits as they need: 1023,
    4095, 65535 or another power of two less one becomes white. Of fractions 1 becomes white where
    none is larger, and 255 where the largest is near it. Of all else, negative or beyond 16 bits,
    the smallest value becomes black and the largest white.
    """
    images = tuple(seen)
    low, high = min(each.low for each in images), max(each.high for each in images)
    if low >= 0 and all(each.whole for each in images) and high <= WORD:
        return Range(0, max(255, (1 << int(high).bit_length()) - 1))
    if low >= 0 and high <= 1:
        return Range(0, 1)
    if low >= 0 and 128 < high <= 255:
        return Range(0, 255)
    return Range(low, high) if high > low else Range(low, low + 1)


def is_settled(seen: Iterable[Seen]) -> bool:
    """Whether further images of the same kind cannot change the range: it is that of 16 bits."""
    images = tuple(seen)
    return all(each.of_16_bits for each in images) and any(2 * each.high > WORD for each in images)


def deep_values(image: Image.Image, again: Opens) -> tuple[Values, Pixels | None]:
    """An upright image's values [H, W] or [H, W, 3], and its transparency [H, W] where it has one.

    Pillow reads 16 bits of a colour as their upper 8. The lower 8 come from reading the image
    again as if its bytes were stored in the other order.

    Args:
        image: open, not decoded, of more than 8 bits (see `is_deep`).
        again: opens it another time.
    """
    raw = raw_mode(image)
    if image.mode in DEEP_GREY:
        white_is_zero = tiff_tag(image, TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
        ImageOps.exif_transpose(image, in_place=True)
        values = np.asarray(image)
        if raw == "I;32N":  # no sign, but Pillow reads the upper half as negative
            values = values.view(np.uint32).astype(np.int64)
        values = values.astype(np.uint16) if values.dtype.kind == "u" else values
        if white_is_zero:  # Pillow turns 8 bits round, and no more
            values = WORD - values if values.dtype == np.uint16 else -values
        return values, None
    if raw.startswith("LA;16"):  # Pillow has no lower halves of it, but can read single bytes
        _read_as(image, "RGBA")
        ImageOps.exif_transpose(image, in_place=True)
        grey, low, alpha, _ = np.moveaxis(np.asarray(image), -1, 0)
        return _joined(grey, low), alpha
    with again() as other:
        _read_as(other, f"{raw.partition(';')[0]};16{'L' if _is_big(raw) else 'B'}")
        ImageOps.exif_transpose(other, in_place=True)
        lower = np.asarray(other)
    ImageOps.exif_transpose(image, in_place=True)
    upper = np.asarray(image)
    alpha = upper[..., 3] if image.mode == "RGBA" else None
    return _joined(upper[..., :3], lower[..., :3]), alpha


def _is_big(raw: str) -> bool:
    order = raw.partition(";16")[2]
    return order == "B" or (order == "N" and np.array(1, ">i2").dtype.isnative)


def _read_as(image: Image.Image, raw: str) -> None:
    """Have an image decoded as if its bytes were stored in another way."""
    tiles = []
    for tile in image.tile:  # type: ignore[attr-defined]
        arguments = tile.args
        changed = (raw, *arguments[1:]) if isinstance(arguments, tuple) else raw
        tiles.append(tile._replace(args=changed))
    image.tile = tiles  # type: ignore[attr-defined]


def _joined(upper: Pixels, lower: Pixels) -> Values:
    return (upper.astype(np.uint16) << 8) | lower


def _scaled(values: Values, low: float, high: float) -> Pixels:
    numbers = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    pixels: Pixels = np.clip(np.rint((numbers - low) * (255 / (high - low))), 0, 255).astype(
        np.uint8
    )
    return pixels


@lru_cache(maxsize=4)
def _table(low: float, high: float) -> Pixels:
    """The pixel of each value of 16 bits."""
    return _scaled(np.arange(WORD + 1), low, high)
