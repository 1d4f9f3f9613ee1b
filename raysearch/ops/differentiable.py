"""Differentiable transformations of image batches, on grid_sample and Kornia.

What the augmenter of online bilevel optimisation composes (Mounsaveng et al., WACV 2021, section
3.2): an affine transformation, and four colour operations. Every image has parameters of its own,
0 changes nothing, and the derivative with respect to every parameter is that of automatic
differentiation. For searches: a finished policy applies the same without Kornia, which takes a
second to import.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from kornia.enhance import (
    adjust_brightness,
    adjust_hue,
    adjust_saturation,
)
from torch import Tensor

from raysearch.ops._continuous import (
    AFFINE,
    COLOUR,
    NEEDS_COLOUR,
    PARAMETERS,
    TRANSLATION,
    ColourOperation,
    affine,
    compose,
    contrast,
    rotation,
)

__all__ = [
    "AFFINE",
    "COLOUR",
    "NEEDS_COLOUR",
    "PARAMETERS",
    "TRANSLATION",
    "affine",
    "rotation",
    "transform",
]


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
    return compose(_COLOURS, images, parameters, order)


def _saturation(images: Tensor, value: Tensor) -> Tensor:
    return adjust_saturation(images, 1 + value.clamp(min=-1))


def _hue(images: Tensor, value: Tensor) -> Tensor:
    return adjust_hue(images, math.pi * value)


_COLOURS: dict[str, ColourOperation] = {
    "brightness": adjust_brightness,
    "contrast": contrast,  # Kornia's refuses NaN in a way that ends the process
    "saturation": _saturation,
    "hue": _hue,
}
