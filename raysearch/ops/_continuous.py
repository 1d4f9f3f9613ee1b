"""Continuous transformations of image batches: what a finished policy of them applies.

An affine transformation and four colour operations, each image with parameters of its own, 0
changing nothing (Mounsaveng et al., WACV 2021, section 3.2). This module needs nothing but PyTorch.
The results are, to the bit on the CPU, those of `raysearch.ops.differentiable`, which searches use
and which needs Kornia.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

AFFINE = ("a11", "a12", "tx", "a21", "a22", "ty")
"""Deviations from the identity of the matrix that `affine_grid` takes, row by row.

It maps places in the result to places in the image, both from −1 to 1 over each side.
"""

TRANSLATION = ("tx", "ty")
"""The two affine parameters that only move the image; ±1 is half a side."""

COLOUR = ("brightness", "contrast", "saturation", "hue")
"""Added to all values; factor less 1 on values; on the HSV saturation; half turns of the hue."""

PARAMETERS = (*AFFINE, *COLOUR)
"""All that `transform` knows."""

NEEDS_COLOUR = ("saturation", "hue")
"""What does nothing to grey images."""

ColourOperation = Callable[[Tensor, Tensor], Tensor]
"""From images [B, C, H, W] in [0, 1] and a parameter [B] to images of the same shape."""

_TURN = 2 * math.pi  # a full turn of the hue, in radians
_TINY = 1e-8  # keeps black from being divided by


def compose(
    colours: Mapping[str, ColourOperation],
    images: Tensor,
    parameters: Mapping[str, Tensor],
    order: Sequence[str] | None,
) -> Tensor:
    """Move every image by its own affine transformation, then change its colours.

    Args:
        colours: how each operation of `COLOUR` is carried out.
        images: floating point [B, C, H, W] in [0, 1], C 1 or 3.
        parameters: of `PARAMETERS`, each [B]; what is missing is not applied. Sensible colour
            parameters lie in [−1, 1].
        order: the colour operations in the order in which they are applied; None is that of
            `COLOUR`.

    Returns:
        Images of the same shape in [0, 1]; black where nothing of the image is. Bilinear.
    """
    with torch.autocast(images.device.type, enabled=False):  # bfloat16 has 8 bits for a place
        if any(name in parameters for name in AFFINE):
            images = affine(images, parameters)
        for name in order or COLOUR:
            if name in parameters and not (name in NEEDS_COLOUR and images.shape[1] == 1):
                images = colours[name](images, parameters[name])
        return images


def transform(
    images: Tensor, parameters: Mapping[str, Tensor], order: Sequence[str] | None = None
) -> Tensor:
    """What `raysearch.ops.differentiable.transform` does, without Kornia; see `compose`."""
    return compose(_COLOURS, images, parameters, order)


def affine(images: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
    """Resample every image once, by the identity plus its parameters of `AFFINE`."""
    zero = images.new_zeros(len(images))
    deviation = torch.stack([parameters.get(name, zero) for name in AFFINE], dim=1)
    identity = torch.eye(2, 3, dtype=images.dtype, device=images.device)
    theta = identity + deviation.reshape(-1, 2, 3)
    if not theta.requires_grad:
        return F.grid_sample(images, _grid(theta, *images.shape[2:]), align_corners=False)
    if images.is_cuda or torch.get_float32_matmul_precision() != "highest":
        theta = theta.double()  # products of float32 may have 11 bits, too few for a place
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid.to(images.dtype), align_corners=False)


def _grid(theta: Tensor, height: int, width: int) -> Tensor:
    """What `affine_grid` makes, without a matrix product: its precision is a mode of PyTorch's."""

    def places(count: int) -> Tensor:
        ends = torch.linspace(-1, 1, count, dtype=theta.dtype, device=theta.device)
        return ends * (count - 1) / count

    x, y = places(width), places(height)[:, None]
    a, b, c = theta[..., None, None].unbind(2)  # each [B, 2, 1, 1]
    return (a * x + b * y + c).movedim(1, 3)


def rotation(parameters: Mapping[str, Tensor]) -> Tensor:
    """The angle by which an affine transformation turns an image, in degrees, [B].

    That of the rotation nearest to its linear part, counter-clockwise positive. On an image that
    is not square it is the angle in the square to which the image is scaled.
    """
    zero = torch.zeros((), device="cpu")
    a11, a12, a21, a22 = (parameters.get(name, zero) for name in ("a11", "a12", "a21", "a22"))
    return torch.atan2(a12 - a21, 2 + a11 + a22).mul(180 / math.pi).neg()


def contrast(images: Tensor, value: Tensor) -> Tensor:
    """All values times 1 + value, which is at least 0."""
    return (images * _per_image(1 + value.clamp(min=-1))).clamp(0, 1)


def _brightness(images: Tensor, value: Tensor) -> Tensor:
    return (images + _per_image(value)).clamp(0, 1)


def _saturation(images: Tensor, value: Tensor) -> Tensor:
    """The HSV saturation times 1 + value; hue and largest channel stay.

    Every channel's distance from the smallest is scaled, and all are moved so that the largest is
    where it was.
    """
    largest, smallest = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    distance = largest - smallest
    saturation = distance / (largest + _TINY).masked_fill(largest == 0, 1)
    saturation = (saturation * _per_image(1 + value.clamp(min=-1))).clamp(0, 1)
    scaled = largest * saturation
    factor = scaled / distance.masked_fill(distance == 0, 1)
    return (images - smallest) * factor + (largest - scaled)


def _hue(images: Tensor, value: Tensor) -> Tensor:
    """The HSV hue turned by half turns; saturation and largest channel stay."""
    largest, smallest = images.amax(1), images.amin(1)
    distance = largest - smallest
    saturation = distance / (largest + _TINY).masked_fill(largest == 0, 1)
    angle = _angle(images, largest, distance) + (math.pi * value)[:, None, None]
    angle = torch.remainder(angle, _TURN)
    return _coloured(angle.masked_fill(angle >= _TURN, 0), saturation, largest)


def _angle(images: Tensor, largest: Tensor, distance: Tensor) -> Tensor:
    """The hue in radians, in [0, 2π), of images [B, 3, H, W]; 0 where all channels are equal."""
    distance = distance.masked_fill(distance == 0, 1)
    red, green, blue = images.unbind(1)
    below_red, below_green, below_blue = (largest[:, None] - images).unbind(1)
    sextants = torch.where(
        (red >= green) & (red >= blue),
        below_blue - below_green,
        torch.where(
            green >= blue,
            (below_red - below_blue) + 2 * distance,
            (below_green - below_red) + 4 * distance,
        ),
    )
    angle = _TURN * ((sextants / distance / 6) % 1)
    return angle.masked_fill(angle >= _TURN, 0)  # rounded up to the whole turn


def _coloured(angle: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Images [B, 3, H, W] of hue in radians, saturation and value, each [B, H, W]."""
    sixths = angle / _TURN * 6
    sextant = sixths.floor() % 6
    along = sixths % 6 - sextant  # how far into its sextant the hue is, in [0, 1)
    low = value * (1 - saturation)
    falling = value * (1 - along * saturation)
    rising = value * (1 - (1 - along) * saturation)
    result = value.new_empty(len(value), 3, *value.shape[1:])
    rows = (  # what red, green and blue are, sextant by sextant
        (value, rising, low),
        (falling, value, low),
        (low, value, rising),
        (low, falling, value),
        (rising, low, value),
        (value, low, falling),
    )
    for channel in range(3):
        chosen = rows[5][channel]
        for number in range(4, -1, -1):
            chosen = torch.where(sextant == number, rows[number][channel], chosen)
        result[:, channel] = chosen
    return result


def _per_image(value: Tensor) -> Tensor:
    return value[:, None, None, None]


_COLOURS: dict[str, ColourOperation] = {
    "brightness": _brightness,
    "contrast": contrast,
    "saturation": _saturation,
    "hue": _hue,
}
