"""Operations that map each pixel by itself: grey levels, contrast and colour.

All work in place on contiguous uint8 images [n,C,H,W] with `value` float32 [n]. The arithmetic is
Pillow's, to the bit; the passes are those that PyTorch vectorises on the CPU (a comparison, `where`
and float32 to uint8 are not among them).
"""

from __future__ import annotations

import torch
from torch import Tensor


def _per_image(value: Tensor) -> Tensor:
    return value.view(-1, 1, 1, 1)


def store_(images: Tensor, levels: Tensor) -> None:
    """Write float32 `levels` to uint8 `images`, clipped to 0 to 255 and truncated."""
    images.copy_(levels.clamp_(0.0, 255.0).to(torch.int16))


def invert_(images: Tensor, value: Tensor) -> None:
    """255 - x."""
    images.bitwise_not_()


def posterize_(images: Tensor, value: Tensor) -> None:
    """Keep the `value` highest bits (truncated to a whole number, 1 to 8)."""
    mask = 256.0 - torch.exp2(8.0 - value.trunc().clamp_(1.0, 8.0))
    images.bitwise_and_(_per_image(mask.to(torch.uint8)))


def solarize_(images: Tensor, value: Tensor) -> None:
    """255 - x wherever x >= value."""
    # As x >= value is x > ceil(value) - 1, a level from -1 (invert all) to 255 (leave all).
    level = value.ceil().clamp_(0.0, 256.0) - 1.0
    everywhere = _per_image((level < 0.0).to(torch.uint8))
    level = _per_image(level.clamp_(min=0.0).to(torch.uint8))
    above = torch.maximum(images, level).sub_(level).clamp_(max=1)
    images.bitwise_xor_(above.bitwise_or_(everywhere).mul_(255))


def _grey(images: Tensor) -> Tensor:
    """Pillow's "L" of float32 images of whole numbers: float32 [n,1,H,W] of whole numbers.

    ITU-R 601-2 in 16-bit fixed point: (19595 R + 38470 G + 7471 B + 32768) >> 16. Scaled by a power
    of two, every intermediate still has at most 24 bits, so float32 holds it exactly.
    """
    if images.shape[1] == 1:
        return images
    red, green, blue = images[:, :1], images[:, 1:2], images[:, 2:]
    total = (red * (19595 / 65536)).add_(green, alpha=38470 / 65536)
    return total.add_(blue, alpha=7471 / 65536).add_(0.5).floor_()


def blend(images: Tensor, base: Tensor, factor: Tensor) -> Tensor:
    """Pillow's Image.blend before clipping: base + factor * (images - base), with its roundings.

    Args:
        images: float32 [n,C,H,W], overwritten.
        base: float32, broadcasts to images.
        factor: float32 [n]; 0 gives base, 1 the images.
    """
    return images.sub_(base).mul_(_per_image(factor)).add_(base)


def brightness_(images: Tensor, value: Tensor) -> None:
    """Blend with black."""
    store_(images, images.to(torch.float32).mul_(_per_image(value)))


def contrast_(images: Tensor, value: Tensor) -> None:
    """Blend with the mean grey of each image, rounded to a whole number."""
    levels = images.to(torch.float32)
    mean = _grey(levels).mean(dim=(1, 2, 3), dtype=torch.float64)
    base = (mean + 0.5).floor_().to(torch.float32)
    store_(images, blend(levels, _per_image(base), value))


def color_(images: Tensor, value: Tensor) -> None:
    """Blend with the image in grey; a grey image stays as it is."""
    if images.shape[1] == 3:
        levels = images.to(torch.float32)
        store_(images, blend(levels, _grey(levels), value))


def autocontrast_(images: Tensor, value: Tensor) -> None:
    """Stretch each channel to the whole of 0 to 255; a constant channel stays as it is."""
    flat = images.flatten(2)
    low, high = flat.amin(2, keepdim=True).double(), flat.amax(2, keepdim=True).double()
    levels = torch.arange(256, dtype=torch.float64, device=images.device)
    scale = torch.full_like(low, 255.0) / (high - low)  # 255.0 / tensor would round twice
    table = (levels * scale).sub_(low * scale).clamp_(0.0, 255.0)
    table = torch.where(high > low, table, levels).to(torch.uint8)
    torch.gather(table, 2, flat.to(torch.int64), out=flat)


def equalize_(images: Tensor, value: Tensor) -> None:
    """Flatten each channel's histogram; a channel of too few grey levels stays as it is."""
    flat = images.flatten(2)
    n, channels, pixels = flat.shape
    index = flat.to(torch.int64)
    histogram = torch.zeros(n, channels, 256, dtype=torch.int32, device=images.device)
    histogram.scatter_add_(2, index, torch.ones_like(index, dtype=torch.int32))
    brightest = histogram.gather(2, flat.amax(2, keepdim=True).to(torch.int64))
    # In float64, whose quotients of such whole numbers are never rounded up to the next one.
    step = (pixels - brightest).double().div_(255.0).floor_()
    below = histogram.cumsum(2, dtype=torch.int32).sub_(histogram).double()
    equal = below.add_((step * 0.5).floor_()).div_(step.clamp(min=1.0)).clamp_(max=255.0)
    levels = torch.arange(256, dtype=torch.float64, device=images.device)
    table = torch.where(step > 0.0, equal, levels).to(torch.uint8)
    torch.gather(table, 2, index, out=flat)
