"""Public data sets: digits come with scikit-learn, CIFAR and SVHN through torchvision."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from raysearch.data._source import ArraySource, Listing, Part
from raysearch.errors import RaysearchError

_TIMEOUT = 5.0  # seconds without an answer from the network


def list_digits() -> Listing:
    """scikit-learn's handwritten digits: 1,797 grey images of 8x8 pixels; one part, train.

    Their 17 levels, 0 to 16, are spread over 0 to 255.
    """
    from sklearn.datasets import load_digits  # slow to import, and needed by nothing else

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    part = Part(ArraySource.of("digits", pixels), digits.target.astype(np.int64))
    return Listing(tuple(str(name) for name in digits.target_names), {"train": part})


def list_torchvision(name: str, root: Path) -> Listing:
    """Train and test of cifar10, cifar100 or svhn, from `root` or else from the network.

    A download goes to a folder of its own below `root` first, so that `root` only ever holds
    complete files.

    Raises:
        RaysearchError: the data are not in `root` and cannot be downloaded.
    """
    try:
        return _open(name, root)
    except RuntimeError:  # torchvision's word for "not there, or not with the right checksum"
        pass
    there = root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as fresh, _timeout():
            listing = _open(name, Path(fresh), download=True)
            for entry in os.scandir(fresh):
                _move(Path(entry.path), root / entry.name)
            return listing
    except (OSError, RuntimeError) as error:
        if not there:
            shutil.rmtree(root, ignore_errors=True)
        reason = " ".join(str(error).split())
        raise RaysearchError(
            f"data={name}: not in {root}, and the download failed ({reason}); put torchvision's "
            "files there, or use a copy in Parquet files: data=parquet data.root=DIR"
        ) from error


def _open(name: str, root: Path, *, download: bool = False) -> Listing:
    from torchvision import datasets  # slow to import, and needed by nothing else

    parts: dict[str, Part] = {}
    classes: tuple[str, ...] = ()
    for part in ("train", "test"):
        data: Any
        if name == "svhn":
            data = datasets.SVHN(str(root), split=part, download=download)
            classes = tuple(str(digit) for digit in range(10))
            pixels, labels = data.data.transpose(0, 2, 3, 1), data.labels
        else:
            kind = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
            data = kind(str(root), train=part == "train", download=download)
            classes = tuple(data.classes)
            pixels, labels = data.data, data.targets
        source = ArraySource.of(f"{name} {part}", np.ascontiguousarray(pixels))
        parts[part] = Part(source, np.asarray(labels, dtype=np.int64))
    return Listing(classes, parts)


def _move(source: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)  # incomplete, or it would have been used
    os.replace(source, target)


@contextmanager
def _timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
