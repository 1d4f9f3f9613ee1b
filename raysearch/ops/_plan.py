"""What the host works out before a batch is touched: the order of the images and their parameters.

All of it is NumPy on a few numbers per image, so that the device only sees work on pixels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raysearch.ops import _cutout, _geometry, _tone

Array = NDArray[np.float64]


class Plan(NamedTuple):
    """K operations for each of B images, the images of each slot sorted by their operation's rank.

    Attributes:
        counts: for each slot, how many images each rank has.
        moves: int64 [K,B], where a slot finds its images among those of the slot before it.
        back: int64 [B], where the images are after the last slot.
        parameters: by kind (see `parameters`), tensors [...,K,B], sorted like the images.
    """

    counts: list[list[int]]
    moves: Tensor
    back: Tensor
    parameters: dict[str, Tensor]


def parameters(
    operation: NDArray[np.int64], value: Array, center: Array, size: tuple[int, int]
) -> dict[str, NDArray[Any]]:
    """Everything that a kernel may want to know about each image, by kind.

    Args:
        operation: [...], ids.
        value: [...], finite.
        center: [2,...], finite.
        size: (height, width) of the images.

    Returns:
        Arrays of the shape [...], or [m,...] for m numbers per image: `factor` the value itself,
        `mask` Posterize's, `level` Solarize's, `matrix` the affine transformation, `square`
        Cutout's.
    """
    return {
        "factor": value.astype(np.float32),
        "mask": _tone.posterize_mask(value),
        "level": _tone.solarize_level(value),
        "matrix": _geometry.fixed_point_matrices(operation, value, size),
        "square": _cutout.edges(value, center, size),
    }


def make(
    operation: NDArray[np.int64],
    value: Array,
    center: Array,
    size: tuple[int, int],
    rank: NDArray[np.int64],
    device: torch.device,
) -> Plan:
    """Work out a batch's plan.

    Args:
        operation: [K,B], ids.
        value: [K,B], finite.
        center: [2,K,B], finite.
        size: (height, width) of the images.
        rank: for each operation its place in the order that images are sorted by.
        device: where the images are.
    """
    ranks = rank[operation]
    order = ranks.argsort(axis=1, kind="stable")
    place = order.argsort(axis=1)
    moves = np.concatenate((order[:1], np.take_along_axis(place[:-1], order[1:], axis=1)))
    counts = [np.bincount(slot, minlength=int(rank.max()) + 1).tolist() for slot in ranks]
    operation = np.take_along_axis(operation, order, axis=1)
    value = np.take_along_axis(value, order, axis=1)
    center = np.take_along_axis(center, order[None], axis=2)
    arrays = parameters(operation, value, center, size)
    return Plan(
        counts,
        _send(moves, device),
        _send(place[-1], device),
        {kind: _send(array, device) for kind, array in arrays.items()},
    )


def _send(array: NDArray[Any], device: torch.device) -> Tensor:
    """To a CUDA device by way of pinned memory, so that the host does not wait for it."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
