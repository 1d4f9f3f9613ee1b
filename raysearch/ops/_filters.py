"""Operations that look at a pixel's neighbours: Blur, Smooth and Sharpness.

As in Pillow, pixels too close to the border for the kernel keep their value, and so does the whole
of an image smaller than the kernel.

The kernels run over the batch as one long row of pixels, so that every pass is over contiguous
memory: a neighbour is a fixed offset away, and what wraps around lands on the border, which is not
written back. All work in place on contiguous uint8 images [n,C,H,W].
"""

from __future__ import annotations

import torch
from torch import Tensor

from raysearch.ops._tone import blend, store_


def _sum3(flat: Tensor, step: int) -> Tensor:
    """Sums of three positions `step` apart, for all first positions that have the others."""
    size = flat.numel() - 2 * step
    total = flat[:size] + flat[step : step + size]
    return total.add_(flat[2 * step :])


def _smooth(images: Tensor) -> Tensor:
    """Pillow's SMOOTH, [[1,1,1],[1,5,1],[1,1,1]] / 13, rounded: float32 of images' shape.

    What lies on the border has no meaning.
    """
    width = images.shape[3]
    flat = images.flatten().to(torch.int16)
    inner = slice(width + 1, flat.numel() - width - 1)
    total = _sum3(_sum3(flat, width), 1).add_(flat[inner], alpha=4)
    result = torch.zeros(images.shape, dtype=torch.float32, device=images.device)
    result.view(-1)[inner].copy_(total)
    return result.mul_(1.0 / 13.0).round_()


def _inner(images: Tensor, border: int) -> Tensor:
    return images[..., border:-border, border:-border]


def smooth_(images: Tensor, _: Tensor) -> None:
    """ImageFilter.SMOOTH."""
    if min(images.shape[2:]) >= 3:
        result = _smooth(images).to(torch.int16).to(torch.uint8)
        _inner(images, 1).copy_(_inner(result, 1))


def sharpness_(images: Tensor, factor: Tensor) -> None:
    """Blend with the smoothed image: factor 0 is ImageFilter.SMOOTH, 1 changes nothing."""
    if min(images.shape[2:]) >= 3:
        result = torch.empty_like(images)
        store_(result, blend(images.to(torch.float32), _smooth(images), factor))
        _inner(images, 1).copy_(_inner(result, 1))


def blur_(images: Tensor, _: Tensor) -> None:
    """ImageFilter.BLUR: the mean of the 16 pixels on the edge of the 5x5 window."""
    if min(images.shape[2:]) < 5:
        return
    width = images.shape[3]
    flat = images.flatten().to(torch.int16)
    size = flat.numel() - 4 * width
    rows3 = _sum3(flat[width:-width], width)
    rows5 = (rows3 + flat[:size]).add_(flat[4 * width :])
    total = _sum3(rows5[1:-1], 1).add_(rows5[:-4]).add_(rows5[4:])
    total.sub_(_sum3(rows3[1:-1], 1)).add_(8).bitwise_right_shift_(4)
    result = torch.empty_like(images)
    result.view(-1)[2 * width + 2 : -2 * width - 2].copy_(total)
    _inner(images, 2).copy_(_inner(result, 2))
