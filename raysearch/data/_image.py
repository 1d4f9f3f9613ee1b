"""Images as they are stored: opened, and what their headers say of size, channels and bits."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import (
    ExifTags,
    Image,
    ImageFile,
    ImageOps,
    TiffImagePlugin,
    UnidentifiedImageError,
)

from raysearch.files import check_regular

Pixels = npt.NDArray[np.uint8]
# An encoded image, the path of one, pixels [H, W, C], or what Pillow has opened.
Payload = bytes | str | Pixels | Image.Image

DEEP_GREY = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N", "F"})  # more than 8 bits
_GREY = frozenset({"1", "L", "LA", "La"}) | DEEP_GREY
_NAMES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with alpha",
    "P": "palette",
    "PA": "palette with alpha",
    "RGBA": "RGB with alpha",
}
_SIDEWAYS = (5, 6, 7, 8)  # orientations that turn an image by a quarter
_SIZ = b"\xff\x4f\xff\x51"  # a JPEG 2000 stream's start, which tells its bits
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_TEXT = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")


class DecodeError(Exception):
    """An image cannot be read. The message says why, not which: its source knows the name."""


@dataclass(frozen=True)
class Header:
    """What is known of an image before its pixels are decoded.

    Attributes:
        height, width: of the upright image, in pixels.
        kind: its channels, in words.
        grey: whether it has no colours.
        bits: of a channel, as stored; 8 where there are 2 to 8.
        deep: whether its pixels are read with more than 8 bits.
        alpha: whether it has transparency.
        spare: channels beyond colours and transparency, which are not read.
        frames: whether there are pages or frames beyond the first, which are not read.
    """

    height: int
    width: int
    kind: str
    grey: bool
    bits: int
    deep: bool
    alpha: bool
    spare: int
    frames: bool


def read_header(payload: Payload | None) -> Header:
    """What an image's header says, without decoding its pixels.

    Raises:
        DecodeError: as `Decoder`, as far as the header shows it.
    """
    with explained(), open_image(payload) as image:
        width, height = image.size
        raw, mode = raw_mode(image), image.mode
        grey = mode in _GREY or raw.startswith("LA;16")
        bits, deep = _bits(image, raw), is_deep(image)
        alpha, spare = image.has_transparency_data, _spare(image, raw)
        frames = _has_frames(image)
        image.draft(None, (1, 1))  # the fewest pixels that it can be decoded to
        refuse_bomb(image)
        if _is_sideways(image):
            width, height = height, width
        kind = "grey with alpha" if grey and alpha else _NAMES.get(mode, "grey" if grey else mode)
        return Header(height, width, kind, grey, bits, deep, alpha, spare, frames)


def open_image(payload: Payload | None) -> Image.Image:
    """Open an image, to be closed by the caller; nothing is decoded yet."""
    if payload is None:
        raise DecodeError("there is no image (null)")
    if isinstance(payload, np.ndarray):
        return Image.fromarray(payload[..., 0] if payload.shape[-1] == 1 else payload)
    if isinstance(payload, Image.Image):
        return ImageOps.exif_transpose(payload)
    if isinstance(payload, str):
        check_regular(payload)
    try:
        file = payload if isinstance(payload, str) else io.BytesIO(payload)
        image = Image.open(file, formats=formats())
    except UnidentifiedImageError as error:
        if _head(payload) in _TIFF:
            raise DecodeError(
                "a TIFF of channels or bits that Pillow does not read: save it with 1 channel of "
                "up to 32 bits or 3 of up to 16"
            ) from error
        raise DecodeError("not an image, or of a format that Pillow does not read") from error
    if image.mode == "L" and tiff_tag(image, TiffImagePlugin.SAMPLEFORMAT) == (2,):
        image.close()
        raise DecodeError("a TIFF of 8 bits with a sign, which Pillow misreads: save it with 16")
    return image


def tiff_tag(image: Image.Image, tag: int) -> Any:
    """What a TIFF says of itself; None where it does not, and of other formats."""
    return image.tag_v2.get(tag) if isinstance(image, TiffImagePlugin.TiffImageFile) else None


def _head(payload: bytes | str) -> bytes:
    if isinstance(payload, bytes):
        return payload[:4]
    with open(payload, "rb") as file:
        return file.read(4)


@cache
def formats() -> tuple[str, ...]:
    """The formats that are read, by Pillow's names: all but EPS, a program for Ghostscript."""
    Image.init()
    return tuple(name for name in Image.ID if name in Image.OPEN and name != "EPS")


def raw_mode(image: Image.Image) -> str:
    """How the channels are stored, in Pillow's words; empty where that is not known or decoded."""
    if not isinstance(image, ImageFile.ImageFile) or not image.tile:
        return ""
    arguments = image.tile[0].args
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def is_deep(image: Image.Image) -> bool:
    """Whether the pixels are read with more than 8 bits."""
    return image.mode in DEEP_GREY or raw_mode(image).startswith(
        ("RGB;16", "RGBX;16", "RGBA;16", "LA;16")
    )


def refuse_bomb(image: Image.Image) -> None:
    """Pillow only warns of an image up to twice its limit, before a gigabyte is allocated."""
    most, (width, height) = Image.MAX_IMAGE_PIXELS, image.size
    if most is not None and width * height > most:
        raise DecodeError(
            f"{width}x{height} are more pixels than the {most:,} that are decoded (it may be a "
            "decompression bomb); save it smaller"
        )


@contextmanager
def explained() -> Iterator[None]:
    """Any error in it as a DecodeError: Pillow's plugins raise nearly anything on broken files."""
    try:
        yield
    except DecodeError:
        raise
    except Exception as error:
        text = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise DecodeError(text or type(error).__name__) from error


@contextmanager
def ignored_warnings() -> Iterator[None]:
    """Without Pillow's warnings about odd files, which do not say which file it is.

    For the process as a whole: not to be entered by one of several threads.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _is_sideways(image: Image.Image) -> bool:
    """Whether decoding turns the image by a quarter of what `image.size` says.

    Orientation stands in EXIF or XMP data. Pillow has applied a TIFF's own tag to its size.
    """
    if image.format == "TIFF" and ExifTags.Base.Orientation in getattr(image, "tag_v2", ()):
        return False
    file = image.fp if isinstance(image, ImageFile.ImageFile) else None
    if image.format == "PNG" and "exif" not in image.info and file is not None:
        if _is_told_behind_pixels(file):
            image.load()
        exif = Image.Image.getexif(image)  # a PNG's own would decode the pixels always
    else:
        exif = image.getexif()
    return exif.get(ExifTags.Base.Orientation, 1) in _SIDEWAYS


def _is_told_behind_pixels(file: IO[bytes]) -> bool:
    """Whether a PNG has EXIF or XMP data behind its pixels; from the heads of its chunks."""
    place, behind, found = file.tell(), False, False
    file.seek(8)
    while len(head := file.read(8)) == 8 and not found:
        length, name = int.from_bytes(head[:4], "big"), head[4:]
        after = file.tell() + length + 4
        if name == b"IDAT":
            behind = True
        elif behind and name == b"eXIf":
            found = True
        elif behind and name in (b"tEXt", b"zTXt", b"iTXt"):
            found = file.read(min(length, 24)).startswith(_PNG_TEXT)
        file.seek(after)
    file.seek(place)
    return found


def _bits(image: Image.Image, raw: str) -> int:
    if image.mode == "1":
        return 1
    if image.mode == "F" or ";32" in raw:
        return 32
    if ";16" in raw or image.mode in DEEP_GREY:
        return 16
    if not isinstance(image, ImageFile.ImageFile):
        return 8
    if image.format == "PPM" and image.tile:  # the largest value stands beside the raw mode
        most = str(image.tile[0].args).strip("()").rpartition(",")[2].strip()
        return 16 if most.isdigit() and int(most) > 255 else 8
    if image.format == "JPEG2000" and image.fp is not None:
        place = image.fp.tell()
        image.fp.seek(0)
        _, mark, rest = image.fp.read(1 << 16).partition(_SIZ)
        image.fp.seek(place)
        return max(8, (rest[38] & 0x7F) + 1) if mark and len(rest) > 38 else 8
    return 8


def _spare(image: Image.Image, raw: str) -> int:
    return raw.partition(";")[0].count("X") if image.format == "TIFF" else 0


def _has_frames(image: Image.Image) -> bool:
    if image.format == "PSD":  # its layers make up the one picture
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a broken second frame does not matter to the first
        return False
