"""Data sets of the user's own objects: arrays, or PyTorch data sets of (image, label) pairs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from raysearch.data._dataset import Dataset
from raysearch.data._image import DecodeError, Payload, Pixels, read_header
from raysearch.data._load import make_dataset
from raysearch.data._names import check_class_names
from raysearch.data._notices import Notices
from raysearch.data._settings import DataSettings
from raysearch.data._source import ArraySource, Listing, Part, check_labels
from raysearch.data._split import Index, Targets
from raysearch.errors import RaysearchError

_PAIR = "expected (images, labels) as arrays, or a data set of (image, label) pairs"


def own_dataset(
    given: Mapping[str, Any],
    classes: Sequence[str] | None,
    name: str,
    size: int | tuple[int, int] | None,
    test_fraction: float,
    split_seed: int,
    groups: Sequence[Any] | None,
) -> Dataset:
    """See `Dataset.of`; `given` has train and, as far as they are given, val and test."""
    images: dict[str, list[Payload]] = {}
    targets: dict[str, Targets] = {}
    for part, data in given.items():
        found, labels = _pairs(data, part)
        images[part] = [_image(image, f"{part}, image {i}") for i, image in enumerate(found)]
        targets[part] = _targets(labels, part)
    for part, own in targets.items():
        if own.shape[1:] != targets["train"].shape[1:]:
            raise RaysearchError(f"{part}: its labels are of another kind than those of train")
    names = _class_names(classes, given["train"], targets["train"])
    parts = {part: Part(ArraySource.of(part, images[part]), targets[part]) for part in images}
    for part, own in targets.items():
        if own.ndim == 1:
            check_labels(own, len(names), parts[part].source, np.arange(len(own)))
        elif len(wrong := np.flatnonzero(((own != 0) & (own != 1)).any(1))):
            raise RaysearchError(f"{part}, image {wrong[0]}: its label is not only of 0 and 1")
    if groups is not None:
        ids = _group_ids(groups, len(parts["train"]))
        parts["train"] = replace(parts["train"], groups=ids)
        if "val" in parts:  # its images are never divided
            single = len(ids) + np.arange(len(parts["val"]))
            parts["val"] = replace(parts["val"], groups=single)
    settings = DataSettings(
        name,
        size=_common_size(images) if size is None else size,
        test_fraction=float(test_fraction),
        split_seed=split_seed,
        memory_limit_mb=sys.maxsize,
    )
    return replace(make_dataset(Listing(names, parts), settings, Notices()), stored=None)


def _common_size(images: Mapping[str, list[Payload]]) -> tuple[int, int]:
    """Height and width of all images, upright.

    Raises:
        RaysearchError: they differ, or an image cannot be read.
    """
    first: tuple[int, ...] | None = None
    for part, own in images.items():
        for place, image in enumerate(own):
            if isinstance(image, np.ndarray):
                found = image.shape[:2]
            else:
                try:
                    header = read_header(image)
                except DecodeError as error:
                    raise RaysearchError(f"{part}, image {place}: {error}") from error
                found = (header.height, header.width)
            first = first or found
            if found != first:
                raise RaysearchError(
                    f"{part}, image {place} is {found[0]}x{found[1]}, the first of train "
                    f"{first[0]}x{first[1]}: size= scales all to one size"
                )
    assert first is not None
    return first[0], first[1]


def _group_ids(groups: Sequence[Any], images: int) -> Index:
    """Numbers of the groups, int64 [N]."""
    if len(groups) != images:
        raise RaysearchError(
            f"groups: {len(groups)} for {images} images of train, expected as many"
        )
    number = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    return np.array([number[group] for group in groups], dtype=np.int64)


def _class_names(given: Sequence[str] | None, train: object, targets: Targets) -> tuple[str, ...]:
    named = given if given is not None else getattr(train, "classes", None)
    if named is None:
        count = targets.shape[1] if targets.ndim == 2 else int(targets.max()) + 1
        named = [str(label) for label in range(count)]
    names = tuple(str(name) for name in named)
    check_class_names(names, "classes")
    if targets.ndim == 2 and targets.shape[1] != len(names):
        raise RaysearchError(
            f"train: its labels are of {targets.shape[1]} classes, but {len(names)} are named"
        )
    return names


def _pairs(part: Any, name: str) -> tuple[Any, Any]:
    """Images and labels, as many, as they were given."""
    if isinstance(part, tuple | list) and len(part) == 2 and _is_array(part[0]):
        images, labels = part
        if images.ndim not in (3, 4):
            raise RaysearchError(
                f"{name}: its images are of shape {tuple(images.shape)}, expected [N, H, W] or, of "
                "NumPy, [N, H, W, C], a tensor [N, C, H, W]"
            )
        if len(images) != len(labels):
            raise RaysearchError(f"{name}: {len(images)} images, but {len(labels)} labels")
    elif hasattr(part, "__getitem__") and hasattr(part, "__len__") and not _is_array(part):
        images, labels = [], []
        for index in range(len(part)):
            pair = part[index]
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise RaysearchError(f"{name}, image {index}: it is no pair ({_PAIR})")
            images.append(pair[0])
            labels.append(pair[1])
    else:
        raise RaysearchError(f"{name} is a {type(part).__name__}: {_PAIR}")
    if len(images) == 0:
        raise RaysearchError(f"{name} has no images")
    return images, labels


def _image(image: Any, where: str) -> Payload:
    """One image as it is decoded: of Pillow, or pixels [H, W, C]."""
    if isinstance(image, Image.Image):
        return image
    if not _is_array(image):
        raise RaysearchError(
            f"{where} is a {type(image).__name__}, expected an image of Pillow, a NumPy array "
            "[H, W, C] or a tensor [C, H, W]"
        )
    array = _eight_bit(image, where)
    if array.ndim == 2:
        array = array[..., None]
    elif isinstance(image, Tensor) and array.ndim == 3:
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] not in (1, 3) or 0 in array.shape:
        raise RaysearchError(
            f"{where} is of shape {tuple(image.shape)}, expected a NumPy array [H, W] or "
            "[H, W, C], or a tensor [H, W] or [C, H, W], of C = 1 or 3 channels"
        )
    return array


def _eight_bit(image: Any, where: str) -> Pixels:
    array = image.detach().cpu().numpy() if isinstance(image, Tensor) else image
    if array.dtype == np.uint8:
        return np.asarray(array)
    if not np.issubdtype(array.dtype, np.floating):
        raise RaysearchError(f"{where} is {array.dtype}, expected uint8 or values in [0, 1]")
    if array.size and not (array.min() >= 0 and array.max() <= 1):
        raise RaysearchError(
            f"{where} has values from {array.min():g} to {array.max():g}, expected uint8 or values "
            "in [0, 1]: give images as they are before normalisation"
        )
    pixels: Pixels = np.rint(array * 255).astype(np.uint8)
    return pixels


def _targets(labels: Any, name: str) -> Targets:
    try:
        rows = labels if _is_array(labels) else [np.asarray(label) for label in labels]
        array = np.asarray(rows.cpu() if isinstance(rows, Tensor) else rows)
    except ValueError as error:
        raise RaysearchError(f"{name}: its labels are not all of one shape") from error
    if array.ndim == 1 and np.issubdtype(array.dtype, np.integer):
        return array.astype(np.int64)
    if array.ndim == 2 and array.dtype.kind in "biuf":
        return array.astype(np.float32)
    raise RaysearchError(
        f"{name}: its labels are {array.dtype} of shape {array.shape}, expected whole numbers [N], "
        "or 0 and 1 [N, K]"
    )


def _is_array(value: object) -> bool:
    return isinstance(value, np.ndarray | Tensor)
