"""A different operation and value for every image of a batch, fused by family."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from raysearch.ops import _filters, _geometry, _tone
from raysearch.ops._catalogue import OPERATIONS
from raysearch.ops._cutout import cutout_

# Operations that need nothing but their value: each works in place on images and values [n].
_KERNELS: dict[str, Callable[[Tensor, Tensor], None]] = {
    "Invert": _tone.invert_,
    "Solarize": _tone.solarize_,
    "Posterize": _tone.posterize_,
    "Brightness": _tone.brightness_,
    "Contrast": _tone.contrast_,
    "AutoContrast": _tone.autocontrast_,
    "Equalize": _tone.equalize_,
    "Color": _tone.color_,
    "Sharpness": _filters.sharpness_,
    "Blur": _filters.blur_,
    "Smooth": _filters.smooth_,
    "FlipLR": _geometry.flip_lr_,
    "FlipUD": _geometry.flip_ud_,
}

# Images are sorted so that each operation's are neighbours, the geometric ones' in one run.
_ORDER: tuple[str, ...] = (*_geometry.GEOMETRIC, "Identity", "Cutout", *_KERNELS)
_RANK = torch.tensor([_ORDER.index(name) for name in OPERATIONS])

# Bytes of images that are sorted together, and that an operation works on at a time. Larger is fewer
# calls; smaller keeps the intermediates, up to 8 bytes for each of the image, in the CPU's caches.
_BLOCK = {"cpu": 1 << 24, "cuda": 1 << 29}
_CHUNK = {"cpu": 1 << 20, "cuda": 1 << 27}


def apply(images: Tensor, operation: Tensor, value: Tensor, center: Tensor | None = None) -> Tensor:
    """Apply one operation to each image.

    Results are those of Pillow 8-bit images under torchvision's AutoAugment: geometry is
    nearest-neighbour, filled with 0, and shears hold the top left corner.

    Args:
        images: uint8 [B,C,H,W] with C = 1 (Pillow's "L") or 3 ("RGB"), or floating point in
            [0, 1], which is rounded to 256 levels.
        operation: integer [B], ids (see `OPERATIONS`). On the CPU it costs no synchronisation,
            whatever the images' device; on a CUDA device it costs one.
        value: floating point [B], in the operation's own unit (see `to_values`).
        center: floating point [B,2], Cutout's centre (x, y) in [0, 1); None is the middle.

    Returns:
        A new contiguous tensor of the images' shape and dtype.

    Raises:
        TypeError: a tensor's dtype is of the wrong kind.
        ValueError: a shape is wrong, or an operation id is not one of `OPERATIONS`.
    """
    _check(images, operation, value, center, batch_dims=1)
    return apply_sequence(
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
        ValueError: a shape is wrong, or an operation id is not one of `OPERATIONS`.
    """
    _check(images, operation, value, center, batch_dims=2)
    if images.is_floating_point():
        levels = images.detach().mul(255.0).round_().clamp_(0.0, 255.0).to(torch.uint8)
        return _apply_uint8(levels, operation, value, center).to(images.dtype).div_(255.0)
    return _apply_uint8(images, operation, value, center)


def _check(
    images: Tensor, operation: Tensor, value: Tensor, center: Tensor | None, batch_dims: int
) -> None:
    letters = "[B]" if batch_dims == 1 else "[B,K]"
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[1:]:
        raise ValueError(f"images must be [B,C,H,W] with C = 1 or 3, got {list(images.shape)}")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise TypeError(f"images must be uint8 or floating point in [0, 1], got {images.dtype}")
    if operation.is_floating_point() or operation.is_complex() or operation.dtype == torch.bool:
        raise TypeError(f"operation must be integer ids, got {operation.dtype}")
    if not value.is_floating_point():
        raise TypeError(f"value must be floating point, got {value.dtype}")
    if operation.ndim != batch_dims or operation.shape[0] != images.shape[0]:
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


def _apply_uint8(images: Tensor, operation: Tensor, value: Tensor, center: Tensor | None) -> Tensor:
    batch, slots = operation.shape
    if batch == 0 or slots == 0:
        return images.clone(memory_format=torch.contiguous_format)
    ids = operation.to("cpu", torch.int64)
    if int(ids.min()) < 0 or int(ids.max()) >= len(OPERATIONS):
        raise ValueError(f"operation ids must be 0 to {len(OPERATIONS) - 1}, got {ids.tolist()}")
    value = value.detach().to(images.device, torch.float32)
    if center is None:
        center = torch.full((1, 1, 2), 0.5, device=images.device).expand(batch, slots, 2)
    center = center.detach().to(images.device)
    result = torch.empty(images.shape, dtype=torch.uint8, device=images.device)
    for part in _parts(images, 0, batch, _BLOCK):
        _apply_block(images[part], ids[part].t(), value[part].t(), center[part], result[part])
    return result


def _apply_block(
    images: Tensor, operation: Tensor, value: Tensor, center: Tensor, result: Tensor
) -> None:
    """All operations of some images, from `images` to `result` (both uint8 [B,C,H,W]).

    For each of the K slots the images are brought into an order in which those that get the same
    operation are neighbours, so that an operation works in place on a slice.

    Args:
        images: what to transform.
        operation: int64 [K,B] on the CPU.
        value: float32 [K,B] on the images' device.
        center: float [B,K,2] on the images' device.
        result: what to write to, contiguous.
    """
    rank = _RANK[operation]
    order = rank.argsort(dim=1, stable=True)
    counts = [torch.bincount(slot, minlength=len(_ORDER)).tolist() for slot in rank]
    # Where each slot finds its images after the slot before it, and at last the way back.
    place = order.argsort(dim=1)
    moves = torch.cat((order[:1], place[:-1].gather(1, order[1:]), place[-1:])).to(images.device)
    operation = operation.gather(1, order).to(images.device)
    order = order.to(images.device)
    value = value.gather(1, order)
    matrix = _geometry.fixed_point_matrices(operation, value, *images.shape[2:])
    # The last slot must not work in `result`, the one before it may, and so on.
    current, buffer, other = images, torch.empty_like(result), result
    if len(counts) % 2 == 0:
        buffer, other = other, buffer
    for k, count in enumerate(counts):
        current = torch.index_select(current, 0, moves[k], out=buffer)
        _apply_slot_(current, count, value[k], matrix[:, k], center[:, k][order[k]])
        buffer, other = other, buffer
    torch.index_select(current, 0, moves[-1], out=result)


def _apply_slot_(
    images: Tensor, counts: list[int], value: Tensor, matrix: Tensor, center: Tensor
) -> None:
    """One operation per image, in place.

    Args:
        images: uint8 [B,C,H,W], contiguous, sorted by `_ORDER`.
        counts: how many images each operation of `_ORDER` has.
        value: float32 [B].
        matrix: int32 [6,B], from `fixed_point_matrices`.
        center: float [B,2].
    """
    geometric = sum(counts[: len(_geometry.GEOMETRIC)])
    for part in _parts(images, 0, geometric, _CHUNK):
        _geometry.resample_(images[part], matrix[:, part])
    begin = 0
    for name, count in zip(_ORDER, counts, strict=True):
        for part in _parts(images, begin, begin + count, _CHUNK):
            if name == "Cutout":
                cutout_(images[part], value[part], center[part])
            elif name in _KERNELS:
                _KERNELS[name](images[part], value[part])
        begin += count


def _parts(images: Tensor, begin: int, end: int, limits: Mapping[str, int]) -> Iterator[slice]:
    """Cut the run of images from `begin` to `end` into runs of the size that suits the device."""
    step = max(1, limits.get(images.device.type, limits["cuda"]) // images[0].numel())
    for first in range(begin, end, step):
        yield slice(first, min(first + step, end))
