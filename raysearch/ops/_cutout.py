"""Squares of one colour: the operation Cutout and the predefined Cutout-16."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MID_GREY: tuple[int, int, int] = (125, 123, 114)
"""The colour of the operation Cutout: CIFAR-10's mean, as in AutoAugment's released code.

Grey images get its luminance.
"""

_MID_GREY_LUMINANCE = 123


def edges(
    value: NDArray[np.float64], center: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.int32]:
    """Where the operation Cutout's squares begin and end, not yet clipped at the borders.

    Args:
        value: [...], the side as a fraction of the image's shorter side.
        center: [2,...], (x, y) in [0, 1).
        size: (height, width) of the images.

    Returns:
        [4,...]: first row, row after the last, first column, column after the last.
    """
    height, width = size
    side = np.round(value.clip(0.0, 4.0) * min(size)).astype(np.int32)
    column, row = (center.clip(0.0, 1.0).T * (width, height)).T.astype(np.int32) - side // 2
    return np.stack((row, row + side, column, column + side))


def fill_squares_(images: Tensor, square: Tensor, colour: Sequence[float]) -> None:
    """Fill one square per image, clipped at the borders, in place.

    Args:
        images: [n,C,H,W] of a real dtype.
        square: integer [4,n], first row, row after the last, first column, column after the last.
        colour: C values, whole numbers where the images' dtype is integer.
    """
    top, bottom, left, right = square.view(4, -1, 1, 1, 1).unbind(0)
    x = torch.arange(images.shape[3], device=images.device)
    y = torch.arange(images.shape[2], device=images.device).view(-1, 1)
    inside = ((y >= top) & (y < bottom)).to(images.dtype)
    inside = inside * ((x >= left) & (x < right)).to(images.dtype)
    images.mul_(1 - inside)
    for channel, level in enumerate(colour):
        if level:
            images[:, channel : channel + 1].add_(inside, alpha=level)


def cutout_(images: Tensor, square: Tensor) -> None:
    """The operation Cutout on uint8 images [n,C,H,W], in place; `square` is from `edges`."""
    fill_squares_(images, square, MID_GREY if images.shape[1] == 3 else (_MID_GREY_LUMINANCE,))
