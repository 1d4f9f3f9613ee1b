"""What an image is recognised by: a hash of its pixels, or of its bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from raysearch.data._image import Payload
from raysearch.data._source import FileSource, Source
from raysearch.data._split import Index
from raysearch.files import check_regular

_CHUNK = 128  # images in memory at a time, of files


def digest(content: Payload) -> int:
    """64 bits of a hash; that any two of a million images share them by chance is unlikely.

    Args:
        content: bytes, pixels, or the path of a file, which is read. One that cannot be read is
            like no other.
    """
    if isinstance(content, str):
        try:
            check_regular(content)
            with open(content, "rb") as file:
                content = file.read()
        except OSError:
            content = os.fsencode(content)
    plain = content.tobytes() if isinstance(content, np.ndarray) else content
    hashed = hashlib.blake2b(plain, digest_size=8)
    return int.from_bytes(hashed.digest(), "little", signed=True)


def content_digests(sources: Sequence[Source], count: Callable[[int], None]) -> list[Index]:
    """The `digest` of what is stored, for each image of each source: equal for equal images.

    Of files only those are read that have the size of another one.

    Args:
        sources: the images.
        count: told how many more are done.
    """
    wanted = [np.ones(len(source), dtype=bool) for source in sources]
    if all(isinstance(source, FileSource) for source in sources):
        sizes = np.concatenate([_sizes(source) for source in sources])
        _, each, times = np.unique(sizes, return_inverse=True, return_counts=True)
        ends = np.cumsum([len(source) for source in sources])[:-1]
        wanted = np.split(times[each] > 1, ends)
    found: list[Index] = []
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for source, some in zip(sources, wanted, strict=True):
            # What is not read is like no other: its number is its own, and negative.
            digests = -1 - np.arange(len(source)) - (len(found) << 40)
            for window in source.windows(None):
                count(int((~some[window]).sum()))
                read = window[some[window]]
                payloads = source.fetch(read)
                for start in range(0, len(read), _CHUNK):
                    chunk = read[start : start + _CHUNK]
                    own = payloads[start : start + _CHUNK]
                    there = np.array([payload is not None for payload in own])
                    images = [payload for payload in own if payload is not None]
                    digests[chunk[there]] = list(pool.map(digest, images))
                    count(len(chunk))
            found.append(digests)
    return found


def _sizes(source: Source) -> Index:
    """Of files, in bytes; -1 where there is none."""
    return np.array([_size(path) for path in source.fetch(np.arange(len(source)))], dtype=np.int64)


def _size(path: Payload | None) -> int:
    try:
        return os.stat(path).st_size if isinstance(path, str) else -1
    except OSError:
        return -1
