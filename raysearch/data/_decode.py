"""From a file or its bytes to a uint8 array of a wanted size and number of channels."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from raysearch.files import check_regular

Pixels = npt.NDArray[np.uint8]
Payload = bytes | str | Pixels  # an encoded image, the path of one, or pixels [H, W, C]

_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"})
_SIXTEEN_BIT = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N"})


class DecodeError(Exception):
    """An image cannot be read. The message says why, not which: its source knows the name."""


@dataclass(frozen=True)
class Header:
    """What is known of an image before its pixels are decoded: upright height and width, mode."""

    height: int
    width: int
    grey: bool


@dataclass(frozen=True)
class Decoder:
    """Decodes to uint8 [C, H, W].

    An image of another size is scaled until it covers the wanted one and centre-cropped. EXIF
    orientation is applied, transparency is laid over white, 16-bit grey keeps its upper 8 bits.

    Args:
        channels: 1 (grey) or 3 (RGB).
        size: height and width in pixels.
    """

    channels: int
    size: tuple[int, int]

    def __call__(self, payload: Payload | None) -> Pixels:
        """Decode one image.

        Raises:
            DecodeError: it is missing, truncated, of no known format, of more pixels than
                Pillow's limit against decompression bombs (89 million; a JPEG twice that, as it
                can be decoded smaller), or cannot be opened.
        """
        try:
            with _open(payload) as image:
                return self.pixels(image)
        except DecodeError:
            raise
        except Exception as error:  # Pillow's plugins raise nearly anything on broken files
            raise _explain(error) from error

    def pixels(self, image: Image.Image) -> Pixels:
        """The pixels of an image that is open; it may be changed."""
        height, width = self.size
        enough = 2 * max(self.size)
        if min(image.size) > enough:  # then a JPEG is decoded at 1/2, 1/4 or 1/8 of its size
            image.draft(None, (enough, enough))
        _refuse_bomb(image)
        ImageOps.exif_transpose(image, in_place=True)
        upright = _eight_bit(image, self.channels)
        if upright.size != (width, height):
            upright = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
        array = np.asarray(upright)
        return array[None] if self.channels == 1 else array.transpose(2, 0, 1)


def read_header(payload: Payload | None) -> Header:
    """Size and mode of an image, without decoding its pixels.

    Raises:
        DecodeError: as `Decoder`, as far as the header shows it.
    """
    try:
        with _open(payload) as image:
            width, height = image.size
            image.draft(None, (1, 1))  # the fewest pixels that it can be decoded to
            _refuse_bomb(image)
            # Of a PNG, Pillow would decode all pixels to look for EXIF data behind them.
            exif = image.getexif() if image.format != "PNG" or "exif" in image.info else {}
            if exif.get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8):
                width, height = height, width
            return Header(height, width, image.mode in _GREY_MODES)
    except Exception as error:  # as above
        raise _explain(error) from error


@contextmanager
def ignored_warnings() -> Iterator[None]:
    """Without Pillow's warnings about odd files, which do not say which file it is.

    For the process as a whole: not to be entered by one of several threads.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _open(payload: Payload | None) -> Image.Image:
    if payload is None:
        raise DecodeError("there is no image (null)")
    if isinstance(payload, np.ndarray):
        return Image.fromarray(payload[..., 0] if payload.shape[-1] == 1 else payload)
    if isinstance(payload, str):
        check_regular(payload)
        return Image.open(payload, formats=formats())
    return Image.open(io.BytesIO(payload), formats=formats())


@cache
def formats() -> tuple[str, ...]:
    """The formats that are read, by Pillow's names: all but EPS, a program for Ghostscript."""
    Image.init()
    return tuple(name for name in Image.ID if name in Image.OPEN and name != "EPS")


def _refuse_bomb(image: Image.Image) -> None:
    """Pillow only warns of an image up to twice its limit, before a gigabyte is allocated."""
    most, (width, height) = Image.MAX_IMAGE_PIXELS, image.size
    if most is not None and width * height > most:
        raise DecodeError(
            f"{width}x{height} are more pixels than the {most:,} that are decoded (it may be a "
            "decompression bomb); save it smaller"
        )


def _eight_bit(image: Image.Image, channels: int) -> Image.Image:
    if image.mode == "F":
        raise DecodeError("floating-point images are not supported, save it with 8 bits")
    if image.mode in _SIXTEEN_BIT:
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise DecodeError("values beyond 16 bits are not supported, save it with 8 bits")
        image = Image.fromarray((values >> 8).astype(np.uint8))
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _explain(error: Exception) -> DecodeError:
    if isinstance(error, UnidentifiedImageError):
        return DecodeError("not an image, or of a format that Pillow does not read")
    if isinstance(error, OSError) and error.strerror:
        return DecodeError(error.strerror)
    text = " ".join(str(error).split())
    return DecodeError(text or type(error).__name__)
