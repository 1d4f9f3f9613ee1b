"""From settings to a data set: list, split, choose a size, decode."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from raysearch.data._auto import choose_size
from raysearch.data._dataset import Dataset
from raysearch.data._decode import DecodeError, Decoder, Payload, ignored_warnings
from raysearch.data._digits import list_digits
from raysearch.data._folder import list_folder
from raysearch.data._format import natural_size, read_shapes
from raysearch.data._parquet_list import list_parquet
from raysearch.data._settings import AUTO, DataSettings
from raysearch.data._source import Listing, Part
from raysearch.data._split import Index, Split, Targets, TensorSplit
from raysearch.data._statistics import mean_and_std
from raysearch.data._stratify import check_counts, stratified_split
from raysearch.data._stream import StreamSplit, unreadable
from raysearch.data._torchvision import list_torchvision
from raysearch.errors import RaysearchError
from raysearch.machine import usable_cpus

log = logging.getLogger("raysearch.data")

Progress = Callable[[int, int], None]
Good = npt.NDArray[np.bool_]  # which images of a part can be read
_TEST_FRACTION = 0.2
_CHUNK = 128  # images that a thread decodes at a time


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
    listing = _list(chosen)
    with _prefixed(where):
        parts = _divide(listing, chosen)
    with ignored_warnings():
        decoder, why = _decoder(parts, chosen, device)
        splits, skipped = _read(parts, decoder, chosen, progress)
    skipped += sum(part.skipped for part in listing.parts.values())
    notes = [*listing.notes, *why, *_seen_once(splits, listing.classes)]
    if skipped:
        notes.append(f"{where}: {skipped} files or rows were skipped, they are no readable images")
    for note in notes:
        log.warning("%s", note)
    with _prefixed(where):
        _check_classes(splits, listing.classes)
    mean, std = mean_and_std(splits["train"])
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
        skipped=skipped,
        notes=tuple(notes),
    )


def _seen_once(splits: dict[str, Split], classes: tuple[str, ...]) -> list[str]:
    """What to know of multi-label classes that a search has no image of to validate on."""
    targets = splits["train"].targets
    if targets.ndim == 1 or "val" in splits:
        return []
    once = [classes[label] for label in (targets.sum(0) == 1).nonzero()[:, 0].tolist()]
    if not once:
        return []
    names = ", ".join(repr(name) for name in once[:3]) + (", ..." if len(once) > 3 else "")
    return [f"classes with one image in train, which a search does not validate on: {names}"]


def _decoder(
    parts: dict[str, Part], settings: DataSettings, device: str
) -> tuple[Decoder, list[str]]:
    """What decodes the images: to one channel where all are grey, to the size asked for or chosen.

    With it, what a person should know of the choice.
    """
    shapes = read_shapes(parts.values(), skip=settings.on_error == "skip")
    size, reason = settings.height_width, ""
    if size is None and settings.size == AUTO:
        images = sum(len(part) for part in parts.values())
        size, reason = choose_size(shapes, images, device, usable_cpus())
    elif size is None:
        size, reason = natural_size(shapes)
    notes = [
        f"{reason}: they are resized and centre-cropped to {size[0]}x{size[1]}; data.size= chooses "
        "another size"
    ]
    return Decoder(1 if shapes.grey else 3, size), notes if reason else []


def _list(settings: DataSettings) -> Listing:
    if settings.name == "digits":
        return list_digits()
    if settings.name == "folder":
        return list_folder(
            settings.folder(), skip=settings.on_error == "skip", links=settings.links
        )
    if settings.name == "parquet":
        return list_parquet(settings.folder(), settings.image_column, settings.label_column)
    return list_torchvision(settings.name, settings.folder())


def _divide(listing: Listing, settings: DataSettings) -> dict[str, Part]:
    """Train, test and (where given) val, of the sizes that the settings ask for."""
    parts = dict(listing.parts)
    classes, seed = listing.classes, settings.split_seed
    absent = _absent(parts["train"].targets, classes)
    if absent is not None:
        raise RaysearchError(f"class {absent!r} has no images in train")
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
                torch.from_numpy(pool.targets), share, seed, classes=classes, least=(in_train, 1)
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


def _absent(targets: Targets, classes: tuple[str, ...]) -> str | None:
    """The first class without an image."""
    present = (
        targets.any(axis=0) if targets.ndim == 2 else np.isin(np.arange(len(classes)), targets)
    )
    return None if present.all() else classes[int(present.argmin())]


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


def _read(
    parts: dict[str, Part], decoder: Decoder, settings: DataSettings, progress: Progress | None
) -> tuple[dict[str, Split], int]:
    """The splits, decoded or as streams, and the number of images that were skipped.

    Train and val share a base.
    """
    images = sum(len(part) for part in parts.values())
    size = images * decoder.channels * decoder.size[0] * decoder.size[1]
    streamed = size > settings.memory_limit_mb << 20
    skip = settings.on_error == "skip"
    count = _Counter(progress, images)

    def read(part: Part) -> tuple[Split, Good]:
        if streamed:
            return _stream(part, decoder, settings.workers, skip, count)
        return _decode(part, decoder, skip, count)

    train, val = parts["train"], parts.get("val")
    base, good = read(train if val is None else train.join(val))
    usable = np.flatnonzero(good)
    in_train = int(np.searchsorted(usable, len(train)))
    splits = {"train": base.subset(torch.from_numpy(usable[:in_train]))}
    if val is not None:
        splits["val"] = base.subset(torch.from_numpy(usable[in_train:]))
    test, good = read(parts["test"])
    splits["test"] = test.subset(torch.from_numpy(np.flatnonzero(good)))
    return splits, images - sum(len(split) for split in splits.values())


def _check_classes(splits: dict[str, Split], classes: tuple[str, ...]) -> None:
    """Whether train still has every class, after images were skipped, and the others an image."""
    for name, split in splits.items():
        if len(split) == 0:
            raise RaysearchError(f"{name} has no readable image")
    targets = splits["train"].targets.numpy()
    absent = _absent(targets, classes)
    if absent is not None:
        raise RaysearchError(f"class {absent!r} has no readable image in train")
    check_counts(targets, 1 if "val" in splits else 2, classes)


def _decode(part: Part, decoder: Decoder, skip: bool, count: _Counter) -> tuple[TensorSplit, Good]:
    """All images in memory, decoded by threads (Pillow decodes and resizes without the GIL).

    With them, which could be read; the others' pixels are zero.
    """
    pixels = np.zeros((len(part), decoder.channels, *decoder.size), np.uint8)
    good = np.ones(len(part), dtype=bool)

    def decode(job: tuple[Index, list[Payload | None]]) -> tuple[int, str]:
        failure = (-1, "")
        for index, payload in zip(*job, strict=True):
            try:
                pixels[index] = decoder(payload)
            except DecodeError as error:
                good[index] = False
                failure = (int(index), str(error))
                if not skip:
                    break
        return failure

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for window in part.source.windows(None):
            payloads = part.source.fetch(window)
            jobs = [
                (window[start : start + _CHUNK], payloads[start : start + _CHUNK])
                for start in range(0, len(window), _CHUNK)
            ]
            done = pool.map(decode, jobs)
            for job, (index, reason) in zip(jobs, done, strict=True):
                if index >= 0 and not skip:
                    pool.shutdown(cancel_futures=True)
                    raise unreadable(part.source, index, reason)
                count(len(job[0]))
    return TensorSplit(pixels, part.targets), good


def _stream(
    part: Part, decoder: Decoder, workers: int | None, skip: bool, count: _Counter
) -> tuple[StreamSplit, Good]:
    """A stream, and which images can be read; to skip the others, all are decoded once."""
    split = StreamSplit(part.source, part.targets, decoder, workers)
    good = np.ones(len(part), dtype=bool)
    if skip:
        for batch in split.decode(_CHUNK, device=torch.device("cpu")):
            good[list(batch.failures)] = False
            count(len(batch.indices))
    return split, good


class _Counter:
    """Adds up images over the parts and reports to `progress`."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def __call__(self, images: int) -> None:
        self.done += images
        if self.progress is not None:
            self.progress(self.done, self.total)


@contextmanager
def _prefixed(where: str) -> Iterator[None]:
    """Says in an error which data set or setting it is about."""
    try:
        yield
    except RaysearchError as error:
        raise RaysearchError(f"{where}: {error}") from error
