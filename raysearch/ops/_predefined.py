"""The predefined augmentation: flip, pad-and-crop and Cutout-16, with a draw per image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from raysearch.ops._cutout import fill_squares_


def _check(images: Tensor) -> None:
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise ValueError(f"images must be [B,C,H,W], got {list(images.shape)}")


def _draw(generator: torch.Generator | None, device: torch.device) -> dict[str, Any]:
    """Where numbers are drawn: where the generator is."""
    return {"device": device if generator is None else generator.device, "generator": generator}


def random_flip(
    images: Tensor, generator: torch.Generator | None = None, *, vertical: bool = False
) -> Tensor:
    """Mirror each image left to right with probability 1/2.

    Args:
        images: [B,C,H,W] of any dtype.
        generator: source of the draws, on any device; None is torch's global one for the images'.
        vertical: mirror top to bottom instead.

    Returns:
        A new tensor like `images`.

    Raises:
        ValueError: images are not [B,C,H,W].
    """
    _check(images)
    batch, device = images.shape[0], images.device
    flip = torch.randint(2, (batch,), **_draw(generator, device)).to(device)
    mirrored = images.flip(2 if vertical else 3)
    return torch.where(flip.bool()[:, None, None, None], mirrored, images)


def random_crop(images: Tensor, padding: int, generator: torch.Generator | None = None) -> Tensor:
    """Pad each image with zeros on all sides and cut out its size at a uniformly drawn place.

    Args:
        images: [B,C,H,W] of any dtype.
        padding: pixels on each side, 0 or more.
        generator: source of the draws, on any device; None is torch's global one for the images'.

    Returns:
        A new tensor like `images`.

    Raises:
        ValueError: images are not [B,C,H,W], or padding is negative.
    """
    _check(images)
    if padding < 0:
        raise ValueError(f"padding must be 0 or more, got {padding}")
    if padding == 0:
        return images.clone()
    batch, channels, height, width = images.shape
    device = images.device
    corner = torch.randint(2 * padding + 1, (2, batch, 1), **_draw(generator, device)).to(device)
    rows = (corner[0] + torch.arange(height, device=device)) * (width + 2 * padding)
    columns = corner[1] + torch.arange(width, device=device)
    index = (rows.unsqueeze(2) + columns.unsqueeze(1)).view(batch, 1, height * width)
    padded = torch.nn.functional.pad(images, (padding,) * 4).flatten(2)
    return padded.gather(2, index.expand(-1, channels, -1)).view(images.shape)


def cutout(
    images: Tensor,
    side: int,
    generator: torch.Generator | None = None,
    fill: float | tuple[float, ...] = 0,
) -> Tensor:
    """Cutout (DeVries & Taylor, 2017): one square per image, centred on a drawn pixel, clipped.

    Args:
        images: [B,C,H,W] of any dtype.
        side: pixels, 0 or more; 16 for CIFAR-10.
        generator: source of the draws, on any device; None is torch's global one for the images'.
        fill: the square's value, or one per channel; truncated where images are of integers.

    Returns:
        A new tensor like `images`.

    Raises:
        ValueError: images are not [B,C,H,W], side is negative, or fill has another number of
            values than images have channels.
    """
    _check(images)
    if side < 0:
        raise ValueError(f"side must be 0 or more, got {side}")
    batch, channels, height, width = images.shape
    colour: tuple[float, ...] = fill if isinstance(fill, tuple) else (fill,) * channels
    if len(colour) != channels:
        raise ValueError(f"fill must be one value or {channels}, got {len(colour)}")
    device = images.device
    drawn = _draw(generator, device)
    row = torch.randint(height, (batch,), **drawn).to(device).sub_(side // 2)
    column = torch.randint(width, (batch,), **drawn).to(device).sub_(side // 2)
    if not images.is_floating_point():
        colour = tuple(int(level) for level in colour)
    result = images.clone()
    fill_squares_(result, torch.stack((row, row + side, column, column + side)), colour)
    return result
