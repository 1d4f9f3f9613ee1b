"""Images in a folder per class, or with their labels in a CSV file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from raysearch.data._image import formats
from raysearch.data._label_file import find_label_files, list_labelled
from raysearch.data._notices import SKIPPED, Notices
from raysearch.data._source import FileSource, Listing, Part, check_class_names
from raysearch.errors import RaysearchError

_PARTS = ("train", "val", "test")
_OTHER_NAMES = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})
_OUT = "is a symbolic link out of data.root; data.links=anywhere follows such links"
_LAYOUT = (
    "expected DIR/train/<class>/<image> (and DIR/val, DIR/test likewise), DIR/<class>/<image> or "
    "DIR/labels.csv"
)


def list_folder(root: Path, notices: Notices, *, skip: bool, links: str = "inside") -> Listing:
    """The images below `root`, by class.

    Where a file holds the labels (see `find_label_files`), the folders do not matter. Else
    `root/train/<class>/` holds a class's training images, at any depth; `root/val` and `root/test`
    likewise, where there are such. Without a folder `train`, `val` or `test`, the folders in `root`
    are the classes. Classes are in alphabetical order of their names. Hidden files and folders are
    ignored.

    Symbolic links, to images as to folders, count as what they lead to, as long as that lies in
    `root`, which may be a link itself; a folder that is reached twice counts once.

    Args:
        root: the data set's folder.
        notices: gains what was set aside.
        skip: pass over files that by their name are no images or that are links out of `root`,
            and count them.
        links: "inside", or "anywhere" to follow links out of `root`, too.

    Raises:
        RaysearchError: a folder is missing or a link out of `root`, there are fewer than two
            classes, a class has no image or a name that cannot be shown, val or test has a class
            that train has not, or (unless `skip`) a file is no image by its name or a link out of
            `root`.
    """
    if not root.is_dir():
        raise RaysearchError(f"data.root={root}: there is no such folder")
    files = find_label_files(root)
    if files:
        return list_labelled(files, root, notices, skip=skip, links=links)
    home = os.path.realpath(root) if links == "inside" else None
    below = [path.name for path in _folders(root, home)]
    for name in below:
        if name.lower() in _OTHER_NAMES and not _looks_like_classes(below):
            wanted = _OTHER_NAMES[name.lower()]
            raise RaysearchError(
                f"{root / name}: this folder must be called {wanted!r} ({_LAYOUT})"
            )
    if not any(part in below for part in _PARTS):
        classes = _classes(root, home)
        return Listing(classes, {"train": _list_part(root, classes, home, skip, notices)})
    if "train" not in below:
        raise RaysearchError(f"{root} has no folder 'train' ({_LAYOUT})")
    classes = _classes(root / "train", home)
    parts = {"train": _list_part(root / "train", classes, home, skip, notices)}
    for part in ("val", "test"):
        if part in below:
            for folder in _folders(root / part, home):
                if folder.name not in classes:
                    raise RaysearchError(f"{folder}: there is no such class in {root / 'train'}")
            parts[part] = _list_part(root / part, classes, home, skip, notices)
    return Listing(classes, parts)


def _looks_like_classes(names: list[str]) -> bool:
    """Whether a folder 'training' or 'valid' may be a class: it stands among other classes."""
    parts = {*_PARTS, *_OTHER_NAMES}
    return not any(name in _PARTS for name in names) and any(
        name.lower() not in parts for name in names
    )


def _folders(path: Path, home: str | None) -> list[Path]:
    """The folders in a folder; raises for one that is a link out of `home`, unless that is None."""
    with _scan(path) as entries:
        found = [e for e in entries if _is_folder(e) and not e.name.startswith(".")]
    for entry in found:
        if _leads_out(entry, home):
            raise RaysearchError(f"{entry.path} {_OUT}")
    return [path / name for name in sorted(entry.name for entry in found)]


def _classes(path: Path, home: str | None) -> tuple[str, ...]:
    names = tuple(folder.name for folder in _folders(path, home))
    if len(names) < 2:
        found = f"only the folder {names[0]!r}" if names else "no folders"
        raise RaysearchError(f"{path} has {found}; at least two classes are needed ({_LAYOUT})")
    check_class_names(names, path)
    return names


def _list_part(
    path: Path, classes: tuple[str, ...], home: str | None, skip: bool, notices: Notices
) -> Part:
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        folder = path / name
        if not folder.is_dir():
            continue  # val and test may be without a class
        images, others = _files(folder, home)
        if others and not skip:
            raise RaysearchError(f"{others[0]} (data.on_error=skip passes over it)")
        if not images:
            raise RaysearchError(f"class {name!r}: there is no image in {folder}")
        notices.add(SKIPPED, others)
        paths += images
        labels += [label] * len(images)
    if not paths:
        raise RaysearchError(f"{path} has no images ({_LAYOUT})")
    return Part(FileSource.of(paths), np.array(labels, dtype=np.int64))


def _files(folder: Path, home: str | None) -> tuple[list[str], list[str]]:
    """Files that may be images (one without an extension may), and what is wrong with others."""
    images: list[str] = []
    others: list[str] = []
    folders = [str(folder)]  # to go through, from the last
    seen: set[tuple[int, int]] = set()
    while folders:
        parent = folders.pop()
        with _scan(parent) as scanned:
            place = os.stat(parent)
            entries = sorted(scanned, key=lambda entry: entry.name)
        if (place.st_dev, place.st_ino) in seen:
            continue
        seen.add((place.st_dev, place.st_ino))
        below: list[str] = []
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in _SYSTEM_FILES:
                continue
            is_folder = _is_folder(entry)
            extension = os.path.splitext(entry.name)[1].lower()
            if not is_folder and extension and extension not in _extensions():
                others.append(f"{entry.path} is not an image by its name")
            elif _leads_out(entry, home):
                if is_folder:
                    raise RaysearchError(f"{entry.path} {_OUT}")
                others.append(f"{entry.path} {_OUT}")
            else:
                (below if is_folder else images).append(entry.path)
        folders += reversed(below)
    return images, others


@contextmanager
def _scan(path: str | Path) -> Iterator[Iterator[os.DirEntry[str]]]:
    try:
        with os.scandir(path) as entries:
            yield entries
    except OSError as error:
        raise RaysearchError(f"{path}: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def _leads_out(entry: os.DirEntry[str], home: str | None) -> bool:
    """Whether it is a link to what does not lie in `home`; None is everywhere."""
    if home is None or not entry.is_symlink():
        return False
    return os.path.commonpath([os.path.realpath(entry.path), home]) != home


@cache
def _extensions() -> frozenset[str]:
    """File name extensions of the formats that are read, lower case, with the dot."""
    known = Image.registered_extensions()
    return frozenset(extension for extension, name in known.items() if name in formats())
