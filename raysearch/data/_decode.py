"""From a file or its bytes to a uint8 array of a wanted size and number of channels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from raysearch.data._alpha import OVER_WHITE, Alpha
from raysearch.data._image import (
    DecodeError,
    Payload,
    Pixels,
    explained,
    is_deep,
    open_image,
    refuse_bomb,
)
from raysearch.data._values import WORD, Opens, Range, deep_values


@dataclass(frozen=True)
class Decoder:
    """Decodes to uint8 [C, H, W].

    An image of another size is scaled until it covers the wanted one and centre-cropped.
    Orientation in EXIF or XMP data is applied.

    Args:
        channels: 1 (grey) or 3 (RGB).
        size: height and width in pixels.
        range: of images with more than 8 bits, the values that become black and white; None: 0
            and 65535, of whole numbers.
        alpha: what becomes of transparency.
        stretched: `range` is for images of 8 bits, too.
    """

    channels: int
    size: tuple[int, int]
    range: Range | None = None
    alpha: Alpha = OVER_WHITE
    stretched: bool = False

    def __call__(self, payload: Payload | None) -> Pixels:
        """Decode one image.

        Raises:
            DecodeError: it is missing, truncated, of no known format, of more pixels than
                Pillow's limit against decompression bombs (89 million; a JPEG twice that, as it
                can be decoded smaller), or cannot be opened.
        """
        with explained(), open_image(payload) as image:
            return self.pixels(image, lambda: open_image(payload))

    def pixels(self, image: Image.Image, again: Opens) -> Pixels:
        """The pixels of an image that is open; it may be changed. `again` opens it once more."""
        height, width = self.size
        enough = 2 * max(self.size)
        if min(image.size) > enough:  # then a JPEG is decoded at 1/2, 1/4 or 1/8 of its size
            image.draft(None, (enough, enough))
        upright = eight_bits(image, again, self.range)
        if upright.has_transparency_data:
            upright = self.alpha(upright)
        mode = "L" if self.channels == 1 else "RGB"
        if upright.mode != mode:
            upright = upright.convert(mode)
        if self.stretched and self.range is not None:
            upright = Image.fromarray(self.range(np.asarray(upright).astype(np.uint16)))
        if upright.size != (width, height):
            upright = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
        array = np.asarray(upright)
        return array[None] if self.channels == 1 else array.transpose(2, 0, 1)


def eight_bits(image: Image.Image, again: Opens, kept: Range | None) -> Image.Image:
    """An open image, decoded, upright and of 8 bits; it may be changed."""
    refuse_bomb(image)
    if not is_deep(image):
        ImageOps.exif_transpose(image, in_place=True)
        return image
    values, alpha = deep_values(image, again)
    if kept is None and (values.dtype.kind == "f" or values.min() < 0 or values.max() > WORD):
        raise DecodeError(
            "its values are floating-point numbers, negative or beyond 16 bits: "
            "data.range=[LOW,HIGH] says which become black and white"
        )
    pixels = (kept or Range())(values)
    if alpha is not None:
        colours = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
        pixels = np.concatenate((colours, alpha[..., None]), axis=2)
    return Image.fromarray(pixels)
