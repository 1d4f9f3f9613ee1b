"""From references to splits: decoded and held in memory, or as streams."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from raysearch.data._decode import Decoder
from raysearch.data._duplicates import Fingerprints, settle_duplicates
from raysearch.data._fingerprint import content_digests, digest
from raysearch.data._image import DecodeError, Payload
from raysearch.data._notices import SKIPPED, Notices
from raysearch.data._settings import DataSettings
from raysearch.data._source import Part
from raysearch.data._split import Index, Split, TensorSplit
from raysearch.data._stream import StreamSplit, unreadable

Progress = Callable[[int, int], None]
_CHUNK = 128  # images that a thread decodes at a time


@dataclass(frozen=True)
class _Base:
    """A split of all images of a base.

    Attributes:
        part: where they come from.
        split: the images; of such as cannot be read, the pixels are zero.
        good: which can be read, bool [N].
        digests: fingerprints, see `digest`; None: not taken.
    """

    part: Part
    split: Split
    good: npt.NDArray[np.bool_]
    digests: Index | None = None


def read_splits(
    parts: dict[str, Part],
    decoder: Decoder,
    settings: DataSettings,
    progress: Progress | None,
    notices: Notices,
) -> dict[str, Split]:
    """The splits, without images that are duplicates, where `settings` say so.

    Decoded images are compared as they are; of streams, the files' or rows' bytes. Train and val
    share a base.

    Args:
        parts: train, test and where given val.
        decoder: what decodes the images.
        settings: the data's.
        progress: called with the number of images decoded so far and of all to decode.
        notices: gains what was skipped, and which images are there twice.

    Raises:
        RaysearchError: an image cannot be read (unless `on_error` is "skip"), or one is in two
            parts and `duplicates` is "error".
    """
    images = sum(len(part) for part in parts.values())
    size = images * decoder.channels * decoder.size[0] * decoder.size[1]
    streamed = size > settings.memory_limit_mb << 20
    skip = settings.on_error == "skip"
    count = _Counter(progress, images)
    train, val, test = parts["train"], parts.get("val"), parts["test"]
    bases: list[_Base] = []
    for part in (train if val is None else train.join(val), test):
        if streamed:
            base = _stream(part, decoder, settings.workers, skip, count)
        else:
            base = _decode(part, decoder, skip, count)
        unread = np.flatnonzero(~base.good)
        notices.add(SKIPPED, [part.source.name(int(index)) for index in unread])
        bases.append(base)
    digests = [base.digests for base in bases if base.digests is not None]
    if not digests:
        told = (lambda _: None) if skip else count
        digests = content_digests([base.part.source for base in bases], told)
    used = [np.flatnonzero(base.good) for base in bases]
    cut = int(np.searchsorted(used[0], len(train)))
    rows = {"train": (0, used[0][:cut]), "val": (0, used[0][cut:]), "test": (1, used[1])}
    if val is None:
        del rows["val"]
    prints = {
        name: _prints(bases[number].part, digests[number], places)
        for name, (number, places) in rows.items()
    }
    keep = settle_duplicates(prints, settings.duplicates, notices)
    return {
        name: bases[number].split.subset(torch.from_numpy(places[keep[name]]))
        for name, (number, places) in rows.items()
    }


def _prints(part: Part, digests: Index, places: Index) -> Fingerprints:
    """Those of a base's images at some places."""
    return Fingerprints(
        digests[places], part.targets[places], lambda i: part.source.name(int(places[i]))
    )


def _decode(part: Part, decoder: Decoder, skip: bool, count: _Counter) -> _Base:
    """All images in memory, decoded by threads (Pillow decodes and resizes without the GIL)."""
    pixels = np.zeros((len(part), decoder.channels, *decoder.size), np.uint8)
    good = np.ones(len(part), dtype=bool)
    digests = np.zeros(len(part), dtype=np.int64)

    def decode(job: tuple[Index, list[Payload | None]]) -> tuple[int, str]:
        failure = (-1, "")
        for index, payload in zip(*job, strict=True):
            try:
                pixels[index] = decoder(payload)
                digests[index] = digest(pixels[index])
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
    return _Base(part, TensorSplit(pixels, part.targets, part.groups), good, digests)


def _stream(
    part: Part, decoder: Decoder, workers: int | None, skip: bool, count: _Counter
) -> _Base:
    """A stream; to skip images that cannot be read, all are decoded once."""
    split = StreamSplit(part.source, part.targets, decoder, workers, part.groups)
    good = np.ones(len(part), dtype=bool)
    if skip:
        for batch in split.decode(_CHUNK, device=torch.device("cpu")):
            good[list(batch.failures)] = False
            count(len(batch.indices))
    return _Base(part, split, good)


class _Counter:
    """Adds up images over the parts and reports to `progress`."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def __call__(self, images: int) -> None:
        self.done += images
        if self.progress is not None:
            self.progress(self.done, self.total)
