"""From references to splits: decoded and held in memory, or as streams."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from raysearch.data._decode import Decoder
from raysearch.data._duplicates import (
    ReadSplit,
    pixel_digests,
    settle_duplicates,
    stored_digests,
)
from raysearch.data._image import DecodeError, Payload
from raysearch.data._notices import SKIPPED, Notices
from raysearch.data._settings import DataSettings
from raysearch.data._source import Part, unreadable
from raysearch.data._split import Index, Mask, Split, TensorSplit
from raysearch.data._stream import StreamSplit

Progress = Callable[[int, int], None]
_CHUNK = 128  # images that a thread decodes at a time


def read_splits(
    parts: dict[str, Part],
    decoder: Decoder,
    settings: DataSettings,
    progress: Progress | None,
    notices: Notices,
) -> dict[str, ReadSplit]:
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
    skip = settings.skip
    count = _Counter(progress, images)
    train, test = parts["train"], parts["test"]
    bases = [train.join(parts["val"]) if "val" in parts else train, test]
    splits: list[Split] = []
    readable: list[Index] = []
    for part in bases:
        if streamed:
            split, good = _stream(part, decoder, settings.workers, skip, count)
        else:
            split, good = _decode(part, decoder, skip, count)
        notices.add(SKIPPED, [part.source.name(int(place)) for place in np.flatnonzero(~good)])
        splits.append(split)
        readable.append(np.flatnonzero(good))
    if streamed:
        told = (lambda _: None) if skip else count
        digests = stored_digests([part.source for part in bases], told)
    else:
        digests = [pixel_digests(split) for split in splits]
    cut = int(np.searchsorted(readable[0], len(train)))
    rows = {
        "train": (0, readable[0][:cut]),
        "val": (0, readable[0][cut:]),
        "test": (1, readable[1]),
    }
    read: dict[str, ReadSplit] = {}
    for name, (base, places) in rows.items():
        if name in parts:
            split = splits[base].subset(torch.from_numpy(places))
            read[name] = ReadSplit(split, bases[base].source, places, digests[base][places])
    return settle_duplicates(read, settings.duplicates, notices)


def _decode(part: Part, decoder: Decoder, skip: bool, count: _Counter) -> tuple[Split, Mask]:
    """All images in memory, and which could be read; of others the pixels are zero.

    Threads decode: Pillow decodes and resizes without the GIL.
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
    return TensorSplit(pixels, part.targets, part.groups), good


def _stream(
    part: Part, decoder: Decoder, workers: int | None, skip: bool, count: _Counter
) -> tuple[Split, Mask]:
    """A stream; to skip images that cannot be read, all are decoded once."""
    split = StreamSplit(part.source, part.targets, decoder, workers, part.groups)
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
