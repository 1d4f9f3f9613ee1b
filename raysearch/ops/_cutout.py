"""Squares of one colour: the operation Cutout and the predefined Cutout-16."""

from __future__ import annotations

import torch
from torch import Tensor

MID_GREY: tuple[int, int, int] = (125, 123, 114)
"""The colour of the operation Cutout: CIFAR-10's mean, as in AutoAugment's released code.

Grey images get its luminance.
"""

_MID_GREY_LUMINANCE = 123


def fill_squares_(images: Tensor, row: Tensor, column: Tensor, side: Tensor, fill: Tensor) -> None:
    """Fill one square per image, clipped at the borders, in place.

    Args:
        images: [n,C,H,W] of a real dtype.
        row: int64 [n], the centre's row; the square begins `side // 2` above it.
        column: int64 [n], the centre's column, likewise.
        side: int64 [n] or [], in pixels.
        fill: [C,1,1] of the images' dtype.
    """

    def inside(centre: Tensor, length: int) -> Tensor:
        first = (centre - side // 2).view(-1, 1)
        at = torch.arange(length, device=images.device)
        return ((at >= first) & (at < first + side.view(-1, 1))).to(images.dtype)

    rows, columns = inside(row, images.shape[2]), inside(column, images.shape[3])
    square = rows[:, None, :, None] * columns[:, None, None, :]
    images.mul_(1 - square).add_(square * fill)


def cutout_(images: Tensor, value: Tensor, center: Tensor) -> None:
    """The operation Cutout, in place.

    Args:
        images: uint8 [n,C,H,W].
        value: float [n], the side as a fraction of the image's shorter side.
        center: float [n,2], (x, y) in [0, 1).
    """
    channels, height, width = images.shape[1:]
    side = (value * min(height, width)).round().to(torch.int64)
    row, column = (center[:, 1] * height).long(), (center[:, 0] * width).long()
    colour = MID_GREY if channels == 3 else (_MID_GREY_LUMINANCE,)
    fill = torch.tensor(colour, dtype=torch.uint8).to(images.device).view(-1, 1, 1)
    fill_squares_(images, row, column, side, fill)
