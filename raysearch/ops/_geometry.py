"""Shears, translations and rotations: one affine matrix per image, one resampling for all.

Pillow resamples a nearest-neighbour affine transformation in 16.16 fixed-point arithmetic; so does
this module, and therefore it picks the same source pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from raysearch.ops._catalogue import OPERATIONS

GEOMETRIC: tuple[str, ...] = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
"""The operations that `resample_` performs."""

# One-hot rows: which of GEOMETRIC's parameters an operation's value is.
_PARAMETER = torch.tensor([[float(name == g) for g in GEOMETRIC] for name in OPERATIONS]).double()

# Fractions of a side become whole pixels by truncation; k / side in float32 must still give k.
_PIXEL_TOLERANCE = 1e-3


def _whole_pixels(fraction: Tensor, side: int) -> Tensor:
    """Truncated towards zero, as torchvision's AutoAugment does."""
    pixels = fraction * side
    return (pixels + pixels.sign() * _PIXEL_TOLERANCE).trunc()


def fixed_point_matrices(operation: Tensor, value: Tensor, height: int, width: int) -> Tensor:
    """Pillow's 16.16 fixed-point matrices, from the centres of output pixels to source positions.

    The source of output pixel (x, y) is column (a x + b y + c) >> 16 and row
    (d x + e y + f) >> 16. Operations that are not geometric get the identity.

    Args:
        operation: int64 [...], ids.
        value: float [...], the operations' values.
        height: of the images, in pixels.
        width: of the images, in pixels.

    Returns:
        int32 [6,...]: a, b, c, d, e, f.
    """
    parameter = _PARAMETER.to(operation.device)[operation] * value.double().unsqueeze(-1)
    shear_x, shear_y, translate_x, translate_y, degrees = parameter.unbind(-1)
    angle = torch.deg2rad(degrees)
    cos, sin = angle.cos(), angle.sin()
    a, b, d = cos, shear_x - sin, shear_y + sin
    # Shears hold the image's corner, rotations its centre.
    x, y = width / 2.0, height / 2.0
    c = x - cos * x + sin * y - _whole_pixels(translate_x, width)
    f = y - sin * x - cos * y - _whole_pixels(translate_y, height)
    matrix = torch.stack((a, b, c + 0.5 * (a + b), d, a, f + 0.5 * (d + a)))
    # By way of int64: beyond its range, like Pillow's, the fixed point wraps around.
    return (matrix * 65536.0 + 0.5).floor_().to(torch.int64).to(torch.int32)


def resample_(images: Tensor, fixed: Tensor) -> None:
    """Nearest-neighbour resampling in place; what lies outside the image is 0.

    Args:
        images: uint8 [n,C,H,W], contiguous.
        fixed: int32 [6,n], from `fixed_point_matrices`.
    """
    n, channels, height, width = images.shape
    a, b, c, d, e, f = fixed.view(6, n, 1, 1).unbind(0)
    x = torch.arange(width, dtype=torch.int32, device=images.device)
    y = torch.arange(height, dtype=torch.int32, device=images.device).view(-1, 1)
    # A border of one zero pixel catches every position outside the image; hence the 1 << 16.
    source = torch.nn.functional.pad(images, (1, 1, 1, 1)).view(n, channels, -1)
    column = (b * y).add_(c + (1 << 16)) + a * x
    column.bitwise_right_shift_(16).clamp_(0, width + 1)
    row = (e * y).add_(f + (1 << 16)) + d * x
    row.bitwise_right_shift_(16).clamp_(0, height + 1)
    index = column.add_(row, alpha=width + 2).to(torch.int64).view(n, 1, -1)
    torch.gather(source, 2, index.expand(-1, channels, -1), out=images.view(n, channels, -1))


def flip_lr_(images: Tensor, value: Tensor) -> None:
    """Mirror left to right, in place."""
    images.copy_(images.flip(3))


def flip_ud_(images: Tensor, value: Tensor) -> None:
    """Mirror top to bottom, in place."""
    images.copy_(images.flip(2))
