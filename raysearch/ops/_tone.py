"""Operations that map each pixel by itself: grey levels, contrast and colour.

All kernels work in place on contiguous uint8 images [n,C,H,W], with a parameter for each image. The
arithmetic is Pillow's, to the bit; the passes are those that PyTorch vectorises on the CPU
(comparisons, `where` on uint8 and float32 to uint8 are not among them).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def _per_image(parameter: Tensor) -> Tensor:
    return parameter.view(-1, 1, 1, 1)


def store_(images: Tensor, levels: Tensor) -> None:
    """Write float32 `levels` to uint8 `images`, clipped to 0 to 255 and truncated."""
    images.copy_(levels.clamp_(0.0, 255.0).to(torch.int16))


def invert_(images: Tensor, _: Tensor) -> None:
    """255 - x."""
    images.bitwise_not_()


def posterize_mask(bits: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The mask that keeps so many of the highest bits: truncated to a whole number, 1 to 8."""
    mask: NDArray[np.uint8] = (256 - 2 ** (8 - bits.clip(1, 8).astype(np.int64))).astype(np.uint8)
    return mask


def posterize_(images: Tensor, mask: Tensor) -> None:
    """Keep the bits of `posterize_mask`."""
    images.bitwise_and_(_per_image(mask))


def solarize_level(threshold: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Two numbers per image, so that x >= threshold is (x > first) or (second is not 0)."""
    first = np.ceil(threshold.clip(0, 256)) - 1
    return np.stack((first.clip(0, 255), (first < 0) * 255.0)).astype(np.uint8)


def solarize_(images: Tensor, level: Tensor) -> None:
    """255 - x wherever `solarize_level` says so."""
    first, everywhere = level.view(2, -1, 1, 1, 1).unbind(0)
    above = torch.maximum(images, first).sub_(first).clamp_(max=1)
    images.bitwise_xor_(above.mul_(255).bitwise_or_(everywhere))


def _grey(images: Tensor) -> Tensor:
    """Pillow's "L" of float32 images of whole numbers: float32 [n,1,H,W] of whole numbers.

    ITU-R 601-2 in 16-bit fixed point: (19595 R + 38470 G + 7471 B + 32768) >> 16. Scaled by a power
    of two, every intermediate still has at most 24 bits, so float32 holds it exactly.
    """
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unsqueeze(2).unbind(1)
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


def brightness_(images: Tensor, factor: Tensor) -> None:
    """Blend with black."""
    store_(images, images.to(torch.float32).mul_(_per_image(factor)))


def contrast_(images: Tensor, factor: Tensor) -> None:
    """Blend with the mean grey of each image, rounded to a whole number."""
    levels = images.to(torch.float32)
    mean = _grey(levels).mean(dim=(1, 2, 3), dtype=torch.float64)
    base = mean.add_(0.5).floor_().to(torch.float32)
    store_(images, blend(levels, _per_image(base), factor))


def color_(images: Tensor, factor: Tensor) -> None:
    """Blend with the image in grey; a grey image stays as it is."""
    if images.shape[1] == 3:
        levels = images.to(torch.float32)
        store_(images, blend(levels, _grey(levels), factor))


def autocontrast_(images: Tensor, _: Tensor) -> None:
    """Stretch each channel to the whole of 0 to 255; a constant channel stays as it is."""
    flat = images.flatten(2)
    low, high = flat.amin(2, keepdim=True).double(), flat.amax(2, keepdim=True).double()
    levels = torch.arange(256, dtype=torch.float64, device=images.device)
    scale = torch.full_like(low, 255.0).div_(high - low)  # 255.0 / tensor would round twice
    table = (levels * scale).sub_(low * scale).clamp_(0.0, 255.0)
    table = torch.where(high > low, table, levels).to(torch.uint8)
    torch.gather(table, 2, flat.to(torch.int64), out=flat)


def equalize_(images: Tensor, _: Tensor) -> None:
    """Flatten each channel's histogram; a channel of too few grey levels stays as it is."""
    flat = images.flatten(2)
    n, channels, pixels = flat.shape
    index = flat.to(torch.int64)
    histogram = torch.zeros(n, channels, 256, dtype=torch.int32, device=images.device)
    histogram.scatter_add_(2, index, torch.ones_like(index, dtype=torch.int32))
    # A type whose quotients of whole numbers up to `pixels` are never rounded up to the next one.
    exact = torch.float32 if pixels < 1 << 23 else torch.float64
    below = histogram.cumsum(2, dtype=torch.int32).sub_(histogram).to(exact)
    brightest = flat.amax(2, keepdim=True).to(torch.int64)
    step = below.gather(2, brightest).div_(255.0).floor_()
    equal = below.add_((step * 0.5).floor_()).div_(step.clamp(min=1.0)).clamp_(max=255.0)
    levels = torch.arange(256, dtype=exact, device=images.device)
    table = torch.where(step > 0.0, equal, levels).to(torch.uint8)
    torch.gather(table, 2, index, out=flat)
