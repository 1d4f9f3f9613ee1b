"""Splits from the user's own objects: arrays, or PyTorch data sets of (image, label) pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from raysearch.data._alpha import Look, choose_alpha
from raysearch.data._decode import Decoder
from raysearch.data._duplicates import Fingerprints, settle_duplicates
from raysearch.data._fingerprint import digest
from raysearch.data._image import DEEP_GREY, DecodeError, Pixels
from raysearch.data._measure import Conversion, deciding, say_alpha, say_range
from raysearch.data._notices import Notices
from raysearch.data._source import check_class_names
from raysearch.data._split import Index, Targets, TensorSplit
from raysearch.data._stratify import check_counts, stratified_split
from raysearch.data._values import Seen, choose_range
from raysearch.errors import RaysearchError

_PAIR = "expected (images, labels) as arrays, or a data set of (image, label) pairs"


@dataclass(frozen=True)
class OwnSplits:
    """The splits and the class names; train and val are on one base."""

    classes: tuple[str, ...]
    train: TensorSplit
    val: TensorSplit | None
    test: TensorSplit
    notes: tuple[str, ...]
    given: tuple[str, ...]


def own_splits(
    train: Any,
    test: Any,
    val: Any,
    classes: Sequence[str] | None,
    size: int | tuple[int, int] | None,
    test_fraction: float,
    split_seed: int,
    groups: Sequence[Any] | None = None,
) -> OwnSplits:
    """See `Dataset.of`."""
    wanted = (size, size) if isinstance(size, int) else size
    given = {"train": train, "val": val, "test": test}
    found = {name: _pairs(part, name) for name, part in given.items() if part is not None}
    notices = Notices()
    made = _conversion({name: images for name, (images, _) in found.items()}, notices)
    read = {
        name: (_arrays(images, name, wanted, made), _targets(labels, name))
        for name, (images, labels) in found.items()
    }
    channels = max(images.shape[1] for images, _ in read.values())
    shape = read["train"][0].shape[2:]
    for name, (images, targets) in read.items():
        if images.shape[2:] != shape:
            raise _of_other_size(f"{name}, image 0", images.shape[2:], shape)
        if targets.shape[1:] != read["train"][1].shape[1:]:
            raise RaysearchError(f"{name}: its labels are of another kind than those of train")
        if images.shape[1] < channels:
            read[name] = np.repeat(images, channels, axis=1), targets
    names = _class_names(classes, train, read["train"][1])
    for name, (_, targets) in read.items():
        _check_labels(name, targets, names)
    count = len(read["train"][1])
    ids = _group_ids(groups, count)
    splits = {name: TensorSplit(*arrays) for name, arrays in read.items() if name == "test"}
    splits["train"] = TensorSplit(*read["train"], ids)
    if "val" in read:
        pairs = zip(read["train"], read["val"], strict=True)
        images, targets = (np.concatenate(pair) for pair in pairs)
        if ids is not None:  # those of val are never divided
            ids = np.append(ids, np.arange(count, len(images)))
        base = TensorSplit(images, targets, ids)
        splits["train"] = base.subset(torch.arange(count))
        splits["val"] = base.subset(torch.arange(count, len(base)))
    least = 1 if "val" in read else 2
    if "test" not in read:
        rest, part = stratified_split(
            splits["train"].targets,
            float(test_fraction),
            split_seed,
            classes=names,
            least=(least, 1),
            groups=splits["train"].groups,
        )
        whole = splits["train"]
        splits["train"], splits["test"] = whole.subset(rest), whole.subset(part)
    check_counts(splits["train"].targets.numpy(), least, names)
    _say_duplicates(splits, tuple(read), count, notices)
    return OwnSplits(
        names, splits["train"], splits.get("val"), splits["test"], notices.lines, tuple(read)
    )


def _group_ids(groups: Sequence[Any] | None, images: int) -> Index | None:
    """Numbers of the groups, int64 [N]."""
    if groups is None:
        return None
    if len(groups) != images:
        raise RaysearchError(
            f"groups: {len(groups)} for {images} images of train, expected as many"
        )
    number = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    return np.array([number[group] for group in groups], dtype=np.int64)


def _say_duplicates(
    splits: Mapping[str, TensorSplit], given: Sequence[str], in_train: int, notices: Notices
) -> None:
    prints: dict[str, Fingerprints] = {}
    for name, split in splits.items():
        origin = name if name in given else "train"
        places = split.indices.numpy() - (in_train if name == "val" else 0)
        digests = np.array([digest(image) for image in split.images.numpy()], dtype=np.int64)
        names = [f"{origin}, image {place}" for place in places.tolist()]
        prints[name] = Fingerprints(digests, split.targets.numpy(), names.__getitem__)
    settle_duplicates(prints, "warn", notices)


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


def _check_labels(name: str, targets: Targets, classes: tuple[str, ...]) -> None:
    """Whether all labels are classes, and train has each of them."""
    if targets.ndim == 1:
        wrong = np.flatnonzero((targets < 0) | (targets >= len(classes)))
        if len(wrong):
            raise RaysearchError(
                f"{name}, image {wrong[0]}: the label {targets[wrong[0]]} is out of range, the "
                f"{len(classes)} classes have labels 0 to {len(classes) - 1}"
            )
        counts = np.bincount(targets, minlength=len(classes))
    else:
        wrong = np.flatnonzero(((targets != 0) & (targets != 1)).any(1))
        if len(wrong):
            raise RaysearchError(f"{name}, image {wrong[0]}: its label is not only of 0 and 1")
        counts = np.count_nonzero(targets, axis=0)
    if name == "train" and not counts.all():
        raise RaysearchError(f"class {classes[int(counts.argmin())]!r} has no images in train")


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


def _conversion(parts: Mapping[str, Any], notices: Notices) -> Conversion:
    """What suits the images of Pillow; decided on those of train."""
    pictures = {
        name: [
            (f"{name}, image {place}", image)
            for place, image in enumerate(() if _is_array(images) else images)
            if isinstance(image, Image.Image)
        ]
        for name, images in parts.items()
    }
    seen = {
        name: [(where, Seen.of(np.asarray(x))) for where, x in images if x.mode in DEEP_GREY]
        for name, images in pictures.items()
    }
    looks = {
        name: [(where, Look.of(x)) for where, x in images if _is_transparent(x)]
        for name, images in pictures.items()
    }
    deep, total = (sum(len(each) for each in part.values()) for part in (seen, pictures))
    kept = choose_range(each for _, each in deciding(seen)) if deep else None
    alpha = choose_alpha(look for _, look in deciding(looks))
    if kept is not None:
        say_range(seen, deep, total, kept, notices)
    say_alpha(looks, alpha, notices)
    return Conversion(kept, alpha)


def _is_transparent(image: Image.Image) -> bool:
    return image.has_transparency_data and image.mode not in DEEP_GREY


def _arrays(images: Any, name: str, size: tuple[int, int] | None, made: Conversion) -> Pixels:
    """Images as uint8 [N, C, H, W]."""
    pixels = [_pixels(image, f"{name}, image {i}", size, made) for i, image in enumerate(images)]
    for index, image in enumerate(pixels):
        if image.shape[1:] != pixels[0].shape[1:]:
            raise _of_other_size(f"{name}, image {index}", image.shape[1:], pixels[0].shape[1:])
    channels = max(len(image) for image in pixels)
    whole = np.empty((len(pixels), channels, *pixels[0].shape[1:]), np.uint8)
    for place, image in zip(whole, pixels, strict=True):
        place[:] = image
    return whole


def _of_other_size(where: str, found: tuple[int, ...], first: tuple[int, ...]) -> RaysearchError:
    return RaysearchError(
        f"{where} is {found[0]}x{found[1]}, the first of train {first[0]}x{first[1]}: size= scales "
        "all to one size"
    )


def _pixels(image: Any, where: str, size: tuple[int, int] | None, made: Conversion) -> Pixels:
    """One image as uint8 [C, H, W]."""
    if isinstance(image, Image.Image):
        channels = 1 if len(image.getbands()) == 1 and image.mode != "P" else 3
        try:
            upright = ImageOps.exif_transpose(image)
            wanted = size or (upright.height, upright.width)
            return Decoder(channels, wanted, made.range, made.alpha).pixels(upright, upright.copy)
        except DecodeError as error:
            raise RaysearchError(f"{where}: {error}") from error
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
    if size is None or array.shape[:2] == size:
        return array.transpose(2, 0, 1)
    return Decoder(array.shape[2], size)(np.ascontiguousarray(array))


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
