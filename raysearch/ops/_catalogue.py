"""The operations' names, and what a magnitude in [0, 1] means for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from raysearch.errors import unknown

OPERATIONS: tuple[str, ...] = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "AutoContrast",
    "Invert",
    "Equalize",
    "Solarize",
    "Posterize",
    "Contrast",
    "Color",
    "Brightness",
    "Sharpness",
    "Cutout",
    "FlipLR",
    "FlipUD",
    "Blur",
    "Smooth",
)
"""Every operation; its position is its id. `Identity` (id 0) also stands for "not applied"."""

DADA_OPERATIONS: tuple[str, ...] = OPERATIONS[1:16]
"""The 15 operations of DADA's search space (Li et al., ECCV 2020), `ShearX` to `Cutout`."""

_IDS = {name: index for index, name in enumerate(OPERATIONS)}


def operation_id(name: str) -> int:
    """The id of an operation: its position in `OPERATIONS`.

    Raises:
        RaysearchError: there is no operation of that name; the message holds the near ones.
    """
    if name not in _IDS:
        raise unknown("operation", name, OPERATIONS)
    return _IDS[name]


class Range(NamedTuple):
    """What magnitudes 0 to 1 mean for one operation, in the operation's own unit.

    Attributes:
        low: value at magnitude 0.
        high: value at magnitude 1.
        signed: whether a negative sign mirrors the value about `low`, which then is the value
            that changes nothing.
    """

    low: float
    high: float
    signed: bool


def _ranges(
    *,
    shear: float,
    translate_x: float,
    translate_y: float,
    rotate: float,
    factor: float,
    bits: float,
) -> Mapping[str, Range]:
    blend = Range(1.0, 1.0 + factor, True)
    return MappingProxyType(
        {
            "ShearX": Range(0.0, shear, True),
            "ShearY": Range(0.0, shear, True),
            "TranslateX": Range(0.0, translate_x, True),
            "TranslateY": Range(0.0, translate_y, True),
            "Rotate": Range(0.0, rotate, True),
            "Solarize": Range(256.0, 0.0, False),
            "Posterize": Range(8.0, bits, False),
            "Contrast": blend,
            "Color": blend,
            "Brightness": blend,
            "Sharpness": blend,
            "Cutout": Range(0.0, 0.2, False),
        }
    )


AUTOAUGMENT_RANGES: Mapping[str, Range] = _ranges(
    shear=0.3, translate_x=0.45, translate_y=0.45, rotate=30.0, factor=0.9, bits=4.0
)
"""AutoAugment's ranges (Cubuk et al., CVPR 2019), in which DADA, DDAS and AWS search.

Only operations whose magnitude matters are keys: AutoContrast, Invert, Equalize, the flips, Blur,
Smooth and Identity are not.
"""


def wide_ranges(size: tuple[int, int]) -> Mapping[str, Range]:
    """TrivialAugment's wide ranges (Müller & Hutter, ICCV 2021) for images of one size.

    They move an image by up to 32 pixels whatever its size, while a translation's value is a
    fraction of the side, so the fraction depends on the size: 32 / side, at most the whole side.

    Args:
        size: (height, width) of the images in pixels.

    Raises:
        ValueError: a side is not positive.
    """
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"size must be two positive numbers of pixels, got {size}")
    return _ranges(
        shear=0.99,
        translate_x=min(32, width) / width,
        translate_y=min(32, height) / height,
        rotate=135.0,
        factor=0.99,
        bits=2.0,
    )


def to_values(
    operation: Tensor,
    magnitude: Tensor,
    sign: Tensor,
    ranges: Mapping[str, Range] = AUTOAUGMENT_RANGES,
) -> Tensor:
    """Turn magnitudes into values in each operation's own unit, as `apply` takes them.

    The value is `low + (high - low) * magnitude`, with the deviation from `low` times `sign` where
    the range is signed. Posterize's is rounded to whole bits, as torchvision's RandAugment does.
    Operations that `ranges` does not name get 0.

    Args:
        operation: int64 [...], operation ids.
        magnitude: float [...], in [0, 1]; beyond 1 the range is extrapolated, and `apply` takes
            a threshold below 0 for 0 and less than 1 bit for 1.
        sign: float [...], -1 or +1.
        ranges: the range of each operation by name.

    Returns:
        float32 [...]: shear as a tangent, translation as a fraction of the side, rotation in
        degrees (positive is counter-clockwise), Solarize's threshold (0 to 256), Posterize's bits,
        factors (1 changes nothing), Cutout's side as a fraction of the image's shorter side.

    Raises:
        RaysearchError: `ranges` names an operation that does not exist.
    """
    rows = [Range(0.0, 0.0, False)] * len(OPERATIONS)
    for name, one in ranges.items():
        rows[operation_id(name)] = one
    table = torch.tensor(rows, dtype=torch.float32, device="cpu")
    # Three look-ups by `take`: indexing with a tensor would start PyTorch's threads for so little.
    low, high, signed = table.to(operation.device).unbind(1)
    deviation = (high - low).take(operation) * magnitude.to(torch.float32)
    mirrored = torch.where(signed.take(operation) > 0, sign.to(torch.float32), 1.0)
    value = low.take(operation) + mirrored * deviation
    return torch.where(operation == _IDS["Posterize"], value.round(), value)
