"""Transparency: whether it or the colours carry the picture, and what is laid below."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

WHITE = 255
_GROUNDS = (WHITE, 0, 128, 64, 192, 32, 96, 160, 224)  # grey levels, in the order of preference
_ALIKE = 24  # levels within which a pixel is lost on the ground
_LOST = 0.5  # share of what is visible in an image, beyond which it counts as lost
_FLAT = 8  # levels within which colours are one colour
_LOOKED_AT = 65_536  # pixels of an image, evenly spread


@dataclass(frozen=True)
class Alpha:
    """What becomes of transparency in a data set.

    Transparency that is the same all over an image says nothing: its colours stay as they are. So
    they do where they make up a picture and nothing is transparent altogether, so that a red pixel
    of little opacity stays red. Elsewhere the image is laid over the ground, its most opaque pixel
    as opaque. An image of one colour of which nothing is visible is all ground.

    Args:
        ground: the grey level below, from 0 to 255.
        ignored: keep the colours wherever they make up a picture: transparency then is a further
            channel of the data, no mask.
    """

    ground: int = WHITE
    ignored: bool = False

    def __call__(self, image: Image.Image) -> Image.Image:
        """An image with transparency without it; RGB."""
        image = as_rgba(image)
        colours, alpha = image.convert("RGB"), image.getchannel("A")
        least, most = _extremes(alpha)
        flat = least == most
        if (flat and most > 0) or (_is_picture(colours) and (flat or self.ignored or least > 0)):
            return colours
        if 0 < most < 255:
            opaque = [min(255, round(level * 255 / most)) for level in range(256)]
            image.putalpha(alpha.point(opaque))
        ground = Image.new("RGBA", image.size, (self.ground,) * 3)
        return Image.alpha_composite(ground, image).convert("RGB")

    def lays(self, look: Look) -> bool:
        """Whether an image is laid over the ground."""
        return look.varied and (not look.picture or (look.holes and not self.ignored))


OVER_WHITE = Alpha()


@dataclass(frozen=True)
class Look:
    """What an image's transparency is.

    Attributes:
        opaque: whether nothing is transparent.
        varied: whether some of the image is more transparent than the rest.
        holes: whether some is transparent altogether.
        picture: whether the colours alone make up a picture.
        channel: whether most pixels are neither opaque nor transparent altogether.
        lost: for each ground, the share of the visible pixels that cannot be told from it.
    """

    opaque: bool
    varied: bool = False
    holes: bool = False
    picture: bool = False
    channel: bool = False
    lost: tuple[float, ...] = ()

    @classmethod
    def of(cls, image: Image.Image) -> Look:
        """Look at an image that has transparency."""
        image = as_rgba(image)
        least, most = _extremes(image.getchannel("A"))
        if least == most:
            return cls(opaque=least == 255)
        pixels = np.asarray(image)
        step = max(1, int(np.sqrt(pixels.shape[0] * pixels.shape[1] / _LOOKED_AT)))
        pixels = pixels[::step, ::step]
        alpha = pixels[..., 3]
        between = np.count_nonzero((alpha > 0.02 * most) & (alpha < 0.98 * most))
        visible = pixels[alpha >= most / 2][:, :3].astype(np.int16)
        away = [np.abs(visible - ground).max(axis=1) for ground in _GROUNDS]
        return cls(
            opaque=False,
            varied=True,
            holes=least == 0,
            picture=_is_picture(Image.fromarray(pixels[..., :3])),
            channel=bool(between > alpha.size / 2),
            lost=tuple(float((each < _ALIKE).mean()) if each.size else 0.0 for each in away),
        )


def choose_alpha(looks: Iterable[Look]) -> Alpha:
    """What suits a data set: white below, unless an image is lost on it; then what loses least."""
    images = [look for look in looks if look.varied]
    channels = sum(look.channel and look.picture for look in images)
    alpha = Alpha(ignored=channels > len(images) / 2)
    laid = [look.lost for look in images if alpha.lays(look)]
    if not laid:
        return alpha
    worst = np.max(laid, axis=0)
    fitting = np.flatnonzero(worst <= _LOST)
    place = fitting[0] if len(fitting) else worst.argmin()
    return replace(alpha, ground=_GROUNDS[int(place)])


def as_rgba(image: Image.Image) -> Image.Image:
    """An image with transparency of any kind as a new one of mode RGBA."""
    if image.mode == "La":
        image = image.convert("LA")
    return image.copy() if image.mode == "RGBA" else image.convert("RGBA")


def _is_picture(colours: Image.Image) -> bool:
    """Whether an RGB image has more than one colour."""
    return any(high - low > _FLAT for low, high in map(_extremes, colours.split()))


def _extremes(band: Image.Image) -> tuple[int, int]:
    low, high = np.asarray(band.getextrema(), np.int64).tolist()
    return low, high
