"""Images in a folder per class."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from raysearch.data._source import FileSource, Listing, Part
from raysearch.errors import RaysearchError

_PARTS = ("train", "val", "test")
_OTHER_NAMES = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})
_LAYOUT = (
    "expected DIR/train/<class>/<image> (and DIR/val, DIR/test likewise) or DIR/<class>/<image>"
)


def list_folder(root: Path, *, skip: bool) -> Listing:
    """The images below `root`, by class.

    `root/train/<class>/` holds a class's training images, at any depth; `root/val` and `root/test`
    likewise, where there are such. Without a folder `train`, `val` or `test`, the folders in `root`
    are the classes. Classes are in alphabetical order of their names. Hidden files and folders are
    ignored.

    Args:
        root: the data set's folder.
        skip: pass over files that by their name are no images, and count them.

    Raises:
        RaysearchError: a folder is missing, there are fewer than two classes, a class has no
            image, val or test has a class that train has not, or (unless `skip`) a file is no
            image by its name.
    """
    if not root.is_dir():
        raise RaysearchError(f"data.root={root}: there is no such folder")
    below = [path.name for path in _folders(root)]
    for name in below:
        if name.lower() in _OTHER_NAMES and not _looks_like_classes(below):
            wanted = _OTHER_NAMES[name.lower()]
            raise RaysearchError(
                f"{root / name}: this folder must be called {wanted!r} ({_LAYOUT})"
            )
    if not any(part in below for part in _PARTS):
        classes = _classes(root)
        return Listing(classes, {"train": _list_part(root, classes, skip)})
    if "train" not in below:
        raise RaysearchError(f"{root} has no folder 'train' ({_LAYOUT})")
    classes = _classes(root / "train")
    parts = {"train": _list_part(root / "train", classes, skip)}
    for part in ("val", "test"):
        if part in below:
            for folder in _folders(root / part):
                if folder.name not in classes:
                    raise RaysearchError(f"{folder}: there is no such class in {root / 'train'}")
            parts[part] = _list_part(root / part, classes, skip)
    return Listing(classes, parts)


def _looks_like_classes(names: list[str]) -> bool:
    """Whether a folder 'training' or 'valid' may be a class: it stands among other classes."""
    parts = {*_PARTS, *_OTHER_NAMES}
    return not any(name in _PARTS for name in names) and any(
        name.lower() not in parts for name in names
    )


def _folders(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            names = [e.name for e in entries if e.is_dir() and not e.name.startswith(".")]
    except OSError as error:
        raise RaysearchError(f"{path}: {error.strerror}") from error
    return [path / name for name in sorted(names)]


def _classes(path: Path) -> tuple[str, ...]:
    names = tuple(folder.name for folder in _folders(path))
    if len(names) < 2:
        found = f"only the folder {names[0]!r}" if names else "no folders"
        raise RaysearchError(f"{path} has {found}; at least two classes are needed ({_LAYOUT})")
    return names


def _list_part(path: Path, classes: tuple[str, ...], skip: bool) -> Part:
    paths: list[str] = []
    labels: list[int] = []
    skipped = 0
    for label, name in enumerate(classes):
        folder = path / name
        if not folder.is_dir():
            continue  # val and test may be without a class
        images, others = _files(folder)
        if others and not skip:
            raise RaysearchError(
                f"{others[0]} is not an image by its name (data.on_error=skip passes over it)"
            )
        if not images:
            raise RaysearchError(f"class {name!r}: there is no image in {folder}")
        skipped += len(others)
        paths += images
        labels += [label] * len(images)
    if not paths:
        raise RaysearchError(f"{path} has no images ({_LAYOUT})")
    return Part(FileSource.of(paths), np.array(labels, dtype=np.int64), skipped)


def _files(folder: Path) -> tuple[list[str], list[str]]:
    """Files that may be images (a file without an extension may be one), and the others."""
    images: list[str] = []
    others: list[str] = []
    for parent, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.startswith(".") or name.lower() in _SYSTEM_FILES:
                continue
            extension = os.path.splitext(name)[1].lower()
            known = not extension or extension in _extensions()
            (images if known else others).append(os.path.join(parent, name))
    return images, others


def _raise(error: OSError) -> None:
    raise RaysearchError(f"{error.filename}: {error.strerror}") from error


@cache
def _extensions() -> frozenset[str]:
    """File name extensions of the formats that Pillow reads, lower case, with the dot."""
    known = Image.registered_extensions()
    return frozenset(extension for extension, name in known.items() if name in Image.OPEN)
