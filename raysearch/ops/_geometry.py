"""Shears, translations and rotations: one affine matrix per image, one resampling for all.

Pillow resamples a nearest-neighbour affine transformation in 16.16 fixed-point arithmetic; so does
this module, and therefore it picks the same source pixel.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raysearch.ops._catalogue import OPERATIONS

GEOMETRIC: tuple[str, ...] = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
"""The operations that `resample_` performs."""

# One-hot columns: which of GEOMETRIC's parameters an operation's value is.
_PARAMETER = np.array([[float(name == one) for name in OPERATIONS] for one in GEOMETRIC])

# Fractions of a side become whole pixels by truncation; k / side in float32 must still give k.
_PIXEL_TOLERANCE = 1e-3

_ONE = 1 << 16  # in fixed point


def _whole_pixels(fraction: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Truncated towards zero, as torchvision's AutoAugment does."""
    pixels = fraction * side
    whole: NDArray[np.float64] = np.trunc(pixels + np.copysign(_PIXEL_TOLERANCE, pixels))
    return whole


def fixed_point_matrices(
    operation: NDArray[np.int64], value: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.int32] | NDArray[np.int64]:
    """Pillow's 16.16 fixed-point matrices, from the centres of output pixels to source positions.

    The source of output pixel (x, y) is column (a x + b y + c) >> 16 and row
    (d x + e y + f) >> 16. Operations that are not geometric get the identity.

    Args:
        operation: [...], ids.
        value: [...], the operations' values.
        size: (height, width) of the images.

    Returns:
        [6,...]: a, b, c, d, e, f; int32 where no position leaves its range, else int64.
    """
    height, width = size
    shear_x, shear_y, translate_x, translate_y, degrees = _PARAMETER[:, operation] * value
    angle = np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    # Shears hold the image's corner, rotations its centre.
    x, y = width / 2.0, height / 2.0
    b, d = shear_x - sin, shear_y + sin
    c = x - cos * x + sin * y - _whole_pixels(translate_x, width) + 0.5 * (cos + b)
    f = y - sin * x - cos * y - _whole_pixels(translate_y, height) + 0.5 * (d + cos)
    matrix = np.stack((cos, b, c, d, cos, f))
    reach = np.abs(matrix).reshape(2, 3, -1).max(axis=(0, 2), initial=0.0)
    farthest = float(reach @ (max(size), max(size), 1.0))
    fixed = np.floor(matrix.clip(-(2.0**40), 2.0**40) * _ONE + 0.5).astype(np.int64)
    return fixed.astype(np.int32) if farthest < 2**15 - 2 else fixed


def resample_(images: Tensor, matrix: Tensor) -> None:
    """Nearest-neighbour resampling in place; what lies outside the image is 0.

    Args:
        images: uint8 [n,C,H,W], contiguous.
        matrix: int32 or int64 [6,n], from `fixed_point_matrices`.
    """
    n, channels, height, width = images.shape
    a, b, c, d, e, f = matrix.view(6, n, 1, 1).unbind(0)
    x = torch.arange(width, dtype=matrix.dtype, device=images.device)
    y = torch.arange(height, dtype=matrix.dtype, device=images.device).view(-1, 1)
    # A border of one zero pixel catches every position outside the image; hence the + _ONE.
    source = torch.nn.functional.pad(images, (1, 1, 1, 1)).view(n, channels, -1)
    column = torch.add(b * y, c + _ONE).add(a * x)
    column.bitwise_right_shift_(16).clamp_(0, width + 1)
    row = torch.add(e * y, f + _ONE).add(d * x)
    row.bitwise_right_shift_(16).clamp_(0, height + 1)
    index = column.add_(row, alpha=width + 2).to(torch.int64).view(n, 1, -1)
    torch.gather(source, 2, index.expand(-1, channels, -1), out=images.view(n, channels, -1))


def flip_lr_(images: Tensor, _: Tensor) -> None:
    """Mirror left to right, in place."""
    images.copy_(images.flip(3))


def flip_ud_(images: Tensor, _: Tensor) -> None:
    """Mirror top to bottom, in place."""
    images.copy_(images.flip(2))
