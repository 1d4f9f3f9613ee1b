"""Differentiable transformations of image batches, on grid_sample and Kornia.

What the augmenter of online bilevel optimisation composes (Mounsaveng et al., WACV 2021, section
3.2): an affine transformation, and four colour operations. Every image has parameters of its own,
0 changes nothing, and the derivative with respect to every parameter is that of automatic
differentiation. Not imported by `raysearch.ops` itself, because importing Kornia takes a second.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from kornia.enhance import (
    adjust_brightness,
    adjust_hue,
    adjust_saturation,
)
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


def transform(
    images: Tensor, parameters: Mapping[str, Tensor], order: Sequence[str] | None = None
) -> Tensor:
    """Move every image by its own affine transformation, then change its colours.

    Args:
        images: floating point [B, C, H, W] in [0, 1], C 1 or 3.
        parameters: of `PARAMETERS`, each [B]; what is missing is not applied. Sensible colour
            parameters lie in [−1, 1].
        order: the colour operations in the order in which they are applied; None is that of
            `COLOUR`.

    Returns:
        Images of the same shape in [0, 1]; black where nothing of the image is. Bilinear.
    """
    if any(name in parameters for name in AFFINE):
        images = affine(images, parameters)
    for name in order or COLOUR:
        if name in parameters and not (name in NEEDS_COLOUR and images.shape[1] == 1):
            images = _colour(name, images, parameters[name])
    return images


def affine(images: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
    """Resample every image once, by the identity plus its parameters of `AFFINE`."""
    zero = images.new_zeros(len(images))
    deviation = torch.stack([parameters.get(name, zero) for name in AFFINE], dim=1)
    identity = torch.eye(2, 3, dtype=images.dtype, device=images.device)
    theta = identity + deviation.reshape(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def rotation(parameters: Mapping[str, Tensor]) -> Tensor:
    """The angle by which an affine transformation turns an image, in degrees, [B].

    That of the rotation nearest to its linear part, counter-clockwise positive. On an image that
    is not square it is the angle in the square to which the image is scaled.
    """
    zero = torch.zeros(())
    a11, a12, a21, a22 = (parameters.get(name, zero) for name in ("a11", "a12", "a21", "a22"))
    return torch.atan2(a12 - a21, 2 + a11 + a22).mul(180 / math.pi).neg()


def _colour(name: str, images: Tensor, value: Tensor) -> Tensor:
    if name == "brightness":
        return adjust_brightness(images, value)
    if name == "contrast":
        factor = 1 + value.clamp(min=-1)  # Kornia's refuses NaN in a way that ends the process
        return (images * factor[:, None, None, None]).clamp(0, 1)
    if name == "saturation":
        return adjust_saturation(images, 1 + value.clamp(min=-1))
    return adjust_hue(images, math.pi * value)
