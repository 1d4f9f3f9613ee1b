"""From settings to a data set: list, split, choose a size, decode."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from raysearch.data._dataset import Dataset
from raysearch.data._decode import Decoder
from raysearch.data._duplicates import ReadSplit
from raysearch.data._folder import list_folder
from raysearch.data._groups import say_likely_groups, say_near_equal, with_groups
from raysearch.data._image import Pixels, ignored_warnings
from raysearch.data._measure import choose_conversion
from raysearch.data._names import say_alike
from raysearch.data._notices import SKIPPED, Notices
from raysearch.data._parquet_list import list_parquet
from raysearch.data._part_names import PARTS
from raysearch.data._pixels import mean_and_std, say_constant, some_pixels
from raysearch.data._public import list_digits, list_torchvision
from raysearch.data._read import Progress, read_splits
from raysearch.data._settings import AUTO, DataSettings
from raysearch.data._shapes import Shapes, choose_size, natural_size, read_shapes
from raysearch.data._source import ArraySource, Listing, Part
from raysearch.data._split import Index, Targets
from raysearch.data._stratify import check_counts, stratified_split
from raysearch.errors import RaysearchError
from raysearch.machine import usable_cpus

log = logging.getLogger("raysearch.data")
log.addHandler(logging.NullHandler())  # a program without logging shows `Dataset.notes` itself

_TEST_FRACTION = 0.2


def load_dataset(
    settings: Mapping[str, Any], progress: Progress | None = None, device: str = "cpu"
) -> Dataset:
    """Find, check, split and (where it fits into `memory_limit_mb`) decode a data set.

    Args:
        settings: what stands under `data:` in the configuration, as plain values.
        progress: called with the number of images decoded so far and of all to decode.
        device: "cpu" or "cuda", which `data.size=auto` is chosen for.

    Raises:
        RaysearchError: a setting is wrong, or the data are: missing, of another layout, with an
            image that cannot be read, a class that is empty or too small, a label out of range.
    """
    chosen = DataSettings.of(settings)
    notices = Notices(None if chosen.root is None else chosen.folder())
    listing = _without_unused(_list(chosen, notices), notices)
    say_alike(listing.classes, notices)
    if chosen.groups is not None:
        listing = with_groups(listing, chosen, notices)
    dataset = make_dataset(listing, chosen, notices, progress, device)
    for note in dataset.notes:
        log.warning("%s", note)
    return dataset


def make_dataset(
    listing: Listing,
    settings: DataSettings,
    notices: Notices,
    progress: Progress | None = None,
    device: str = "cpu",
) -> Dataset:
    """Divide, decode and check what has been found.

    Args:
        listing: the images of each given part, and their labels.
        settings: the data's.
        notices: what has been said; gains the rest.
        progress: as in `load_dataset`.
        device: likewise.

    Raises:
        RaysearchError: as `load_dataset`.
    """
    where = f"data={settings.name}" + (f" data.root={settings.root}" if settings.root else "")
    classes = listing.classes
    with _prefixed(where):
        parts = _divide(listing, settings)
    with ignored_warnings():
        shapes = read_shapes(parts, skip=settings.skip)
        conversion = choose_conversion(parts, shapes, settings.black_and_white, notices)
        size = _choose_size(parts, shapes, settings, device, notices)
        decoder = Decoder(1 if shapes.grey else 3, size, conversion)
        read = read_splits(parts, decoder, settings, progress, notices)
    with _prefixed(where):
        _check_classes(read, classes, settings.duplicates == "drop")
    train = read["train"].split
    pixels, positions = some_pixels(train)
    _say_what_is_odd(listing, read, settings, (pixels, positions), notices)
    mean, std = mean_and_std(pixels)
    black_and_white = conversion.range
    return Dataset(
        name=settings.name,
        classes=classes,
        train=train,
        val=read["val"].split if "val" in read else None,
        test=read["test"].split,
        channels=decoder.channels,
        size=size,
        mean=mean,
        std=std,
        skipped=notices.count(SKIPPED),
        notes=notices.lines,
        given=tuple(listing.parts),
        stored=shapes.stored,
        range=None if black_and_white is None else (black_and_white.low, black_and_white.high),
    )


def _say_what_is_odd(
    listing: Listing,
    read: Mapping[str, ReadSplit],
    settings: DataSettings,
    some: tuple[Pixels, Index],
    notices: Notices,
) -> None:
    """Constant and nearly equal images, likely groups, and classes of which there are too few.

    Of objects in memory, images and names tell nothing that their owner does not know.

    Args:
        listing: what was found.
        read: what has been read of it.
        settings: the data's.
        some: images of train, and where in it they are; see `some_pixels`.
        notices: where to say it.
    """
    classes, in_memory = listing.classes, isinstance(listing.parts["train"].source, ArraySource)
    train, (pixels, positions) = read["train"], some
    if not in_memory:
        say_constant(read, pixels, positions, notices)
    if settings.groups is not None and "test" not in listing.parts:
        lacking = _lacking(read["test"].split.targets.numpy(), classes)
        notices.add("class{es} {are} not in test, for want of groups", map(repr, lacking))
    if settings.groups is None and not in_memory and len(listing.parts) < 3:
        say_likely_groups(listing, settings.folder(), notices)
        say_near_equal(pixels, lambda i: train.name(int(positions[i])), notices)
    if train.split.target_shape and "val" not in read:
        once = (train.split.targets.sum(0) == 1).nonzero()[:, 0].tolist()
        what = "class{es} with one image in train, which a search does not validate on"
        notices.add(what, [repr(classes[label]) for label in once])


def _choose_size(
    parts: dict[str, Part], shapes: Shapes, settings: DataSettings, device: str, notices: Notices
) -> tuple[int, int]:
    """Height and width, as wanted or as they suit the images and the machine."""
    if settings.height_width is not None:
        return settings.height_width
    if settings.size == AUTO:
        images = sum(len(part) for part in parts.values())
        size, reason = choose_size(shapes, images, device, usable_cpus())
    else:
        size, reason = natural_size(shapes)
    if reason:
        notices.say(
            f"{reason}: they are resized and centre-cropped to {size[0]}x{size[1]}; data.size= "
            "chooses another size"
        )
    return size


def _list(settings: DataSettings, notices: Notices) -> Listing:
    if settings.name == "digits":
        return list_digits()
    root = settings.folder()
    if settings.name not in ("folder", "parquet"):
        return list_torchvision(settings.name, root)
    if not root.is_dir():
        raise RaysearchError(f"data.root={root}: there is no such folder")
    return (list_folder if settings.name == "folder" else list_parquet)(settings, notices)


def _without_unused(listing: Listing, notices: Notices) -> Listing:
    """The listing without classes that are named and that no image has."""
    targets = np.concatenate([part.targets for part in listing.parts.values()])
    unused = _lacking(targets, listing.classes)
    classes = tuple(name for name in listing.classes if name not in unused)
    if not unused or len(classes) < 2:
        return listing
    notices.add("class{es} that no image has {are} left out", [repr(name) for name in unused])
    used = np.isin(listing.classes, classes)
    number = np.cumsum(used) - 1
    parts = {
        name: replace(
            part, targets=part.targets[:, used] if part.targets.ndim == 2 else number[part.targets]
        )
        for name, part in listing.parts.items()
    }
    return Listing(classes, parts)


def _divide(listing: Listing, settings: DataSettings) -> dict[str, Part]:
    """Train, test and (where given) val, of the sizes that the settings ask for."""
    parts, classes = dict(listing.parts), listing.classes
    absent = _lacking(parts["train"].targets, classes)
    if absent:
        raise RaysearchError(f"class {absent[0]!r} has no images in train")
    in_train = 1 if "val" in parts else 2  # one to train on, and one for the search to hold out

    def divided(
        part: Part, share: int | float, least: tuple[int, int], groups: Index | None = None
    ) -> list[Part]:
        sides = stratified_split(
            torch.from_numpy(part.targets),
            share,
            settings.split_seed,
            classes=classes,
            least=least,
            groups=groups,
        )
        return [part.subset(side.numpy()) for side in sides]

    if "test" not in parts:
        pool = parts["train"]
        share: int | float = _TEST_FRACTION
        what = "test, a share of all images"
        if settings.test_fraction is not None:
            share = settings.test_fraction
        elif settings.limit is not None:
            share = len(pool) - settings.limit
            what = f"test, what data.limit={settings.limit} leaves"
        with _prefixed(what):
            parts["train"], parts["test"] = divided(pool, share, (in_train, 1), pool.groups)
    check_counts(parts["train"].targets, in_train, classes)
    if settings.val_limit is not None and "val" not in parts:
        raise RaysearchError("data.val_limit is given, but the data have no val split of their own")
    limits = {"": settings.limit, "val_": settings.val_limit, "test_": settings.test_limit}
    for prefix, limit in limits.items():
        name = prefix.rstrip("_") or "train"
        if limit is None or name not in parts:
            continue
        if limit > len(parts[name]):
            found = f"{name} has {len(parts[name])} images"
            raise RaysearchError(f"data.{prefix}limit={limit}, but {found}")
        with _prefixed(f"data.{prefix}limit"):
            least = in_train if name == "train" else 1
            _, parts[name] = divided(parts[name], limit, (0, least))
    return {name: parts[name] for name in PARTS if name in parts}


def _lacking(targets: Targets, classes: tuple[str, ...]) -> list[str]:
    """The classes without an image."""
    has = targets.any(axis=0) if targets.ndim == 2 else np.isin(np.arange(len(classes)), targets)
    present = np.asarray(has).tolist()
    return [name for name, there in zip(classes, present, strict=True) if not there]


def _check_classes(read: dict[str, ReadSplit], classes: tuple[str, ...], dropped: bool) -> None:
    """Whether train still has every class, after images were skipped, and the others an image.

    Args:
        read: the parts.
        classes: their names.
        dropped: whether images that are in another part, too, were left out.
    """
    for name, part in read.items():
        if len(part.split) == 0:
            raise RaysearchError(f"{name} has no readable image")
    targets = read["train"].split.targets.numpy()
    absent = _lacking(targets, classes)
    if absent:
        own = " that is in no other part (data.duplicates=drop)" if dropped else ""
        raise RaysearchError(f"class {absent[0]!r} has no readable image in train{own}")
    check_counts(targets, 1 if "val" in read else 2, classes)


@contextmanager
def _prefixed(where: str) -> Iterator[None]:
    """Says in an error which data set or setting it is about."""
    try:
        yield
    except RaysearchError as error:
        raise RaysearchError(f"{where}: {error}") from error
