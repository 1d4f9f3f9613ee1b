"""A different operation and value for every image of a batch, fused by family."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from raysearch.ops import _cutout, _filters, _geometry, _tone
from raysearch.ops._catalogue import OPERATIONS
from raysearch.ops._parallel import run
from raysearch.ops._plan import Plan
from raysearch.ops._plan import make as make_plan

_Kernel = Callable[[Tensor, Tensor], None]

# For each operation (or family) the kernel, which works in place, and the kind of its parameter
# (see `_plan.parameters`). Images are sorted in this order, so that a kernel's are neighbours.
_KERNELS: dict[tuple[str, ...], tuple[_Kernel, str]] = {
    _geometry.GEOMETRIC: (_geometry.resample_, "matrix"),
    ("FlipLR",): (_geometry.flip_lr_, "factor"),
    ("FlipUD",): (_geometry.flip_ud_, "factor"),
    ("Invert",): (_tone.invert_, "factor"),
    ("Solarize",): (_tone.solarize_, "level"),
    ("Posterize",): (_tone.posterize_, "mask"),
    ("Brightness",): (_tone.brightness_, "factor"),
    ("Contrast",): (_tone.contrast_, "factor"),
    ("Color",): (_tone.color_, "factor"),
    ("AutoContrast",): (_tone.autocontrast_, "factor"),
    ("Equalize",): (_tone.equalize_, "factor"),
    ("Sharpness",): (_filters.sharpness_, "factor"),
    ("Blur",): (_filters.blur_, "factor"),
    ("Smooth",): (_filters.smooth_, "factor"),
    ("Cutout",): (_cutout.cutout_, "square"),
}
_RANK = np.full(len(OPERATIONS), len(_KERNELS))  # of Identity, which comes last
for _rank, _family in enumerate(_KERNELS):
    _RANK[[OPERATIONS.index(_name) for _name in _family]] = _rank

# Bytes of images. On the CPU a thread takes up to so many at a time, if it is worth its while; a
# kernel takes up to so many at a time, as its intermediates are up to 8 times as large.
_CPU_PART, _CPU_WORTHWHILE, _CPU_CHUNK = 1 << 24, 1 << 21, 1 << 19
_DEVICE_PART, _DEVICE_CHUNK = 1 << 29, 1 << 27


def apply(images: Tensor, operation: Tensor, value: Tensor, center: Tensor | None = None) -> Tensor:
    """Apply one operation to each image.

    Results are those of Pillow 8-bit images under torchvision's AutoAugment: geometry is
    nearest-neighbour, filled with 0, and shears hold the top left corner. Color leaves grey images
    as they are.

    `operation`, `value` and `center` are read on the host: keep them on the CPU, also where the
    images are on a CUDA device, and nothing waits for that device. On the CPU, as many threads
    share a large batch as PyTorch may use.

    Args:
        images: uint8 [B,C,H,W] with C = 1 (Pillow's "L") or 3 ("RGB"), or floating point in
            [0, 1], which is rounded to 256 levels.
        operation: integer [B], ids (see `OPERATIONS`).
        value: floating point [B], in the operation's own unit (see `to_values`). Posterize's bits
            and a translation's pixels are truncated to whole numbers, as torchvision does.
        center: floating point [B,2], Cutout's centre (x, y) in [0, 1); None is the middle.

    Returns:
        A new contiguous tensor of the images' shape and dtype.

    Raises:
        TypeError: a tensor's dtype is of the wrong kind.
        ValueError: a shape is wrong, an operation id is not one of `OPERATIONS`, or a value or
            centre is not finite.
    """
    _check(images, operation, value, center, letters="[B]")
    return _apply(
        images,
        operation.unsqueeze(1),
        value.unsqueeze(1),
        None if center is None else center.unsqueeze(1),
    )


def apply_sequence(
    images: Tensor, operation: Tensor, value: Tensor, center: Tensor | None = None
) -> Tensor:
    """Apply K operations in order to each image.

    Args:
        images: as for `apply`.
        operation: integer [B,K].
        value: floating point [B,K].
        center: floating point [B,K,2] or None.

    Returns:
        A new contiguous tensor of the images' shape and dtype.

    Raises:
        TypeError: a tensor's dtype is of the wrong kind.
        ValueError: a shape is wrong, an operation id is not one of `OPERATIONS`, or a value or
            centre is not finite.
    """
    _check(images, operation, value, center, letters="[B,K]")
    return _apply(images, operation, value, center)


def check_images(images: Tensor) -> None:
    """See that a batch's shape and dtype are those that `apply` takes.

    Raises:
        TypeError: it is of another dtype.
        ValueError: it is of another shape.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[1:]:
        raise ValueError(f"images must be [B,C,H,W] with C = 1 or 3, got {list(images.shape)}")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise TypeError(f"images must be uint8 or floating point in [0, 1], got {images.dtype}")


def _check(
    images: Tensor, operation: Tensor, value: Tensor, center: Tensor | None, letters: str
) -> None:
    check_images(images)
    if operation.is_floating_point() or operation.is_complex() or operation.dtype == torch.bool:
        raise TypeError(f"operation must be integer ids, got {operation.dtype}")
    if not value.is_floating_point():
        raise TypeError(f"value must be floating point, got {value.dtype}")
    if operation.ndim != letters.count(",") + 1 or operation.shape[0] != images.shape[0]:
        raise ValueError(
            f"operation must be {letters} with B = {images.shape[0]}, got {list(operation.shape)}"
        )
    if value.shape != operation.shape:
        raise ValueError(
            f"value must have operation's shape {list(operation.shape)}, got {list(value.shape)}"
        )
    if center is not None:
        if not center.is_floating_point():
            raise TypeError(f"center must be floating point, got {center.dtype}")
        if center.shape != (*operation.shape, 2):
            raise ValueError(f"center must be {[*operation.shape, 2]}, got {list(center.shape)}")


def _apply(images: Tensor, operation: Tensor, value: Tensor, center: Tensor | None) -> Tensor:
    value, center = value.detach(), None if center is None else center.detach()
    levels = images
    if images.is_floating_point():
        levels = images.detach().mul(255.0).round_().clamp_(0.0, 255.0).to(torch.uint8)
    result: Tensor = _on_levels(levels, operation, value, center)
    return result.to(images.dtype).div_(255.0) if images.is_floating_point() else result


@torch.library.custom_op("raysearch::apply", mutates_args=())
def _on_levels(images: Tensor, operation: Tensor, value: Tensor, center: Tensor | None) -> Tensor:
    """What `apply_sequence` does to uint8 images, with tensors as they are inside `torch.func`."""
    batch, slots = operation.shape
    if batch == 0 or slots == 0:
        return images.clone(memory_format=torch.contiguous_format)
    ids = operation.to("cpu", torch.int64).numpy()
    if ids.min() < 0 or ids.max() >= len(OPERATIONS):
        raise ValueError(
            f"operation ids must be 0 to {len(OPERATIONS) - 1}, got {ids.min()} to {ids.max()}"
        )
    values = value.to("cpu", torch.float64).numpy()
    centers = np.full((1, 1, 2), 0.5) if center is None else center.double().cpu().numpy()
    if not (np.isfinite(values).all() and np.isfinite(centers).all()):
        raise ValueError("value and center must be finite")
    centers = np.broadcast_to(centers, (batch, slots, 2)).transpose(2, 1, 0)
    result = torch.empty(images.shape, dtype=torch.uint8, device=images.device)

    def work(part: slice) -> None:
        with torch.inference_mode():
            plan = make_plan(
                ids[part].T, values[part].T, centers[..., part], size, _RANK, images.device
            )
            _carry_out(plan, images[part], result[part])

    size = (images.shape[2], images.shape[3])
    if images.device.type == "cpu":
        share = math.ceil(images.numel() / torch.get_num_threads())
        run(work, _cut(images, 0, batch, min(max(share, _CPU_WORTHWHILE), _CPU_PART)))
    else:
        for part in _cut(images, 0, batch, _DEVICE_PART):
            work(part)
    return result


def _carry_out(plan: Plan, images: Tensor, result: Tensor) -> None:
    """All operations of some images, from `images` to `result` (both uint8 [B,C,H,W]).

    For each slot the images are brought into an order in which those of the same kernel are
    neighbours, so that a kernel works in place on a slice.
    """
    limit = _CPU_CHUNK if images.device.type == "cpu" else _DEVICE_CHUNK
    # The last slot must not work in `result`, the one before it may, and so on.
    current, buffer, other = images, torch.empty_like(result), result
    if len(plan.counts) % 2 == 0:
        buffer, other = other, buffer
    for k, counts in enumerate(plan.counts):
        current = torch.index_select(current, 0, plan.moves[k], out=buffer)
        begin = 0
        for count, (kernel, kind) in zip(counts, _KERNELS.values(), strict=False):
            for part in _cut(current, begin, begin + count, limit):
                kernel(current[part], plan.parameters[kind][..., k, part])
            begin += count
        buffer, other = other, buffer
    torch.index_select(current, 0, plan.back, out=result)


def _cut(images: Tensor, begin: int, end: int, limit: int) -> Iterator[slice]:
    """Cut the run of images from `begin` to `end` into about equal runs of up to `limit` bytes."""
    count = end - begin
    runs = math.ceil(count / max(1, limit // images[0].numel()))
    for i in range(runs):
        yield slice(begin + count * i // runs, begin + count * (i + 1) // runs)
