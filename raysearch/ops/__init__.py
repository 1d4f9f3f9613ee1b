"""Image operations on batches: a different operation and value for every image.

>>> import torch
>>> images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
>>> operation = torch.tensor([operation_id("Rotate"), operation_id("Invert")])
>>> value = to_values(operation, torch.tensor([0.5, 0.0]), torch.tensor([-1.0, 1.0]))
>>> apply(images, operation, value).shape
torch.Size([2, 3, 32, 32])
"""

from __future__ import annotations

from raysearch.ops._apply import apply, apply_sequence, check_images
from raysearch.ops._catalogue import (
    AUTOAUGMENT_RANGES,
    DADA_OPERATIONS,
    OPERATIONS,
    Range,
    operation_id,
    to_values,
    wide_ranges,
)
from raysearch.ops._cutout import MID_GREY
from raysearch.ops._predefined import cutout, random_crop, random_flip

__all__ = [
    "AUTOAUGMENT_RANGES",
    "DADA_OPERATIONS",
    "MID_GREY",
    "OPERATIONS",
    "Range",
    "apply",
    "apply_sequence",
    "check_images",
    "cutout",
    "operation_id",
    "random_crop",
    "random_flip",
    "to_values",
    "wide_ranges",
]
