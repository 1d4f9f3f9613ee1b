"""From settings to a data set: list, split, choose a size, decode."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raysearch.data._auto import choose_size
from raysearch.data._dataset import Dataset
from raysearch.data._decode import Decoder
from raysearch.data._digits import list_digits
from raysearch.data._folder import list_folder
from raysearch.data._format import Shapes, natural_size, read_shapes
from raysearch.data._groups import groups_file, with_groups
from raysearch.data._image import ignored_warnings
from raysearch.data._likely_groups import (
    say_likely_columns,
    say_likely_groups,
    say_near_equal,
)
from raysearch.data._look import look_at_pixels
from raysearch.data._measure import choose_conversion
from raysearch.data._names import say_alike
from raysearch.data._notices import SKIPPED, Notices
from raysearch.data._parquet import ParquetSource
from raysearch.data._parquet_list import list_parquet
from raysearch.data._read import Progress, read_splits
from raysearch.data._settings import AUTO, DataSettings
from raysearch.data._source import ArraySource, Listing, Part
from raysearch.data._split import Split, Targets
from raysearch.data._statistics import mean_and_std, some_pixels
from raysearch.data._stratify import check_counts, stratified_split
from raysearch.data._torchvision import list_torchvision
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
    where = f"data={chosen.name}" + (f" data.root={chosen.root}" if chosen.root else "")
    notices = Notices()
    listing = _list(chosen, notices)
    listing = _without_unused(listing, notices)
    say_alike(listing.classes, notices)
    root = chosen.folder() if chosen.root else Path()
    if chosen.groups is not None:
        listing = with_groups(listing, chosen.groups, root, notices)
    with _prefixed(where):
        parts = _divide(listing, chosen)
    with ignored_warnings():
        shapes = read_shapes(parts, skip=chosen.on_error == "skip")
        decoder = _decoder(parts, shapes, chosen, device, notices)
        splits = read_splits(parts, decoder, chosen, progress, notices)
    with _prefixed(where):
        _check_classes(splits, listing.classes)
    pixels, places = some_pixels(splits["train"])
    look_at_pixels(splits, parts, pixels, places, notices)
    if chosen.groups is not None and "test" not in listing.parts:
        lacking = _lacking(splits["test"].targets.numpy(), listing.classes)
        notices.add("class{es} {are} not in test, for want of groups", map(repr, lacking))
    in_memory = isinstance(listing.parts["train"].source, ArraySource)
    if chosen.groups is None and not in_memory and len(listing.parts) < 3:
        _say_groups(listing, root, notices)
        name = parts["train"].source.name
        say_near_equal(pixels, lambda i: name(int(places[i])), notices)
    _say_seen_once(splits, listing.classes, notices)
    for note in notices.lines:
        log.warning("%s", note)
    mean, std = mean_and_std(pixels)
    return Dataset(
        name=chosen.name,
        classes=listing.classes,
        train=splits["train"],
        val=splits.get("val"),
        test=splits["test"],
        channels=decoder.channels,
        size=decoder.size,
        mean=mean,
        std=std,
        skipped=notices.count(SKIPPED),
        notes=notices.lines,
        given=tuple(listing.parts),
        stored=shapes.stored,
        range=None if decoder.range is None else (decoder.range.low, decoder.range.high),
    )


def _say_groups(listing: Listing, root: Path, notices: Notices) -> None:
    """Point out what may belong together among the images that are split."""
    source = listing.parts["train"].source
    say_likely_groups(source.relative_paths(root), len(listing.classes), notices)
    if isinstance(source, ParquetSource):
        say_likely_columns(source.columns, notices)


def _say_seen_once(splits: dict[str, Split], classes: tuple[str, ...], notices: Notices) -> None:
    """Name the multi-label classes that a search has no image of to validate on."""
    targets = splits["train"].targets
    if targets.ndim == 1 or "val" in splits:
        return
    once = (targets.sum(0) == 1).nonzero()[:, 0].tolist()
    what = "class{es} with one image in train, which a search does not validate on"
    notices.add(what, [repr(classes[label]) for label in once])


def _decoder(
    parts: dict[str, Part], shapes: Shapes, settings: DataSettings, device: str, notices: Notices
) -> Decoder:
    """What decodes the images: to one channel where all are grey, to the wanted or chosen size."""
    made = choose_conversion(parts, shapes, settings.black_and_white, notices)
    size, reason = settings.height_width, ""
    if size is None and settings.size == AUTO:
        images = sum(len(part) for part in parts.values())
        size, reason = choose_size(shapes, images, device, usable_cpus())
    elif size is None:
        size, reason = natural_size(shapes)
    if reason:
        notices.say(
            f"{reason}: they are resized and centre-cropped to {size[0]}x{size[1]}; data.size= "
            "chooses another size"
        )
    return Decoder(1 if shapes.grey else 3, size, made.range, made.alpha, made.stretched)


def _list(settings: DataSettings, notices: Notices) -> Listing:
    if settings.name == "digits":
        return list_digits()
    root = settings.folder()
    if settings.name not in ("folder", "parquet"):
        return list_torchvision(settings.name, root)
    apart = groups_file(settings.groups, root)
    if settings.name == "parquet":
        columns = settings.image_column, settings.label_column
        return list_parquet(root, notices, *columns, apart)
    skip = settings.on_error == "skip"
    return list_folder(root, notices, skip=skip, links=settings.links, apart=apart)


def _without_unused(listing: Listing, notices: Notices) -> Listing:
    """The listing without classes that are named and that no image has."""
    targets = [part.targets for part in listing.parts.values()]
    if targets[0].ndim == 2:
        used = np.any([own.any(0) for own in targets], axis=0)
    else:
        used = np.isin(np.arange(len(listing.classes)), np.concatenate(targets))
    if used.all() or used.sum() < 2:
        return listing
    classes = tuple(name for name, one in zip(listing.classes, used, strict=True) if one)
    unused = [name for name in listing.classes if name not in classes]
    notices.add("class{es} that no image has {are} left out", [repr(name) for name in unused])
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
    parts = dict(listing.parts)
    classes, seed = listing.classes, settings.split_seed
    absent = _lacking(parts["train"].targets, classes)
    if absent:
        raise RaysearchError(f"class {absent[0]!r} has no images in train")
    in_train = 1 if "val" in parts else 2  # one to train on, and one for the search to hold out
    if "test" not in parts:
        pool = parts["train"]
        share: int | float = settings.test_fraction or _TEST_FRACTION
        what = "test, a share of all images"
        if settings.test_fraction is None and settings.limit is not None:
            share = len(pool) - settings.limit
            what = f"test, what data.limit={settings.limit} leaves"
        with _prefixed(what):
            rest, test = stratified_split(
                torch.from_numpy(pool.targets),
                share,
                seed,
                classes=classes,
                least=(in_train, 1),
                groups=pool.groups,
            )
        parts["train"], parts["test"] = pool.subset(rest.numpy()), pool.subset(test.numpy())
    check_counts(parts["train"].targets, in_train, classes)
    if settings.val_limit is not None and "val" not in parts:
        raise RaysearchError("data.val_limit is given, but the data have no val split of their own")
    limits = {"train": settings.limit, "val": settings.val_limit, "test": settings.test_limit}
    for name, limit in limits.items():
        if limit is not None and name in parts:
            parts[name] = _limited(parts[name], name, limit, in_train, settings, classes)
    return {name: parts[name] for name in ("train", "val", "test") if name in parts}


def _lacking(targets: Targets, classes: tuple[str, ...]) -> list[str]:
    """The classes without an image."""
    has = targets.any(axis=0) if targets.ndim == 2 else np.isin(np.arange(len(classes)), targets)
    present = np.asarray(has).tolist()
    return [name for name, there in zip(classes, present, strict=True) if not there]


def _limited(
    part: Part,
    name: str,
    limit: int,
    in_train: int,
    settings: DataSettings,
    classes: tuple[str, ...],
) -> Part:
    key = "data.limit" if name == "train" else f"data.{name}_limit"
    if limit > len(part):
        raise RaysearchError(f"{key}={limit}, but {name} has {len(part)} images")
    least = in_train if name == "train" else 1
    with _prefixed(key):
        _, chosen = stratified_split(
            torch.from_numpy(part.targets),
            limit,
            settings.split_seed,
            classes=classes,
            least=(0, least),
        )
    return part.subset(chosen.numpy())


def _check_classes(splits: dict[str, Split], classes: tuple[str, ...]) -> None:
    """Whether train still has every class, after images were skipped, and the others an image."""
    for name, split in splits.items():
        if len(split) == 0:
            raise RaysearchError(f"{name} has no readable image")
    targets = splits["train"].targets.numpy()
    absent = _lacking(targets, classes)
    if absent:
        raise RaysearchError(f"class {absent[0]!r} has no readable image in train")
    check_counts(targets, 1 if "val" in splits else 2, classes)


@contextmanager
def _prefixed(where: str) -> Iterator[None]:
    """Says in an error which data set or setting it is about."""
    try:
        yield
    except RaysearchError as error:
        raise RaysearchError(f"{where}: {error}") from error
