"""Images whose labels stand in a file beside them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from raysearch.data._label_table import LabelTable
from raysearch.data._layout import NOT_READ
from raysearch.data._names import OnDisk, check_class_names, like, nfc
from raysearch.data._notices import SKIPPED, Notices
from raysearch.data._part_names import PARTS, name_parts, part_words
from raysearch.data._settings import DataSettings
from raysearch.data._source import FileSource, Listing, Part
from raysearch.data._split import Targets
from raysearch.data._table import SUFFIXES, read_table, readable
from raysearch.data._tree import extensions, is_debris
from raysearch.errors import RaysearchError

# Files of all images, without the ending; `_classes` is Roboflow's.
_WHOLE = ("labels", "label", "metadata", "_classes")
_WORDS = frozenset((*_WHOLE, "annotations", "csv", "tsv", "jsonl"))  # beside those of a part


def find_label_files(root: Path, settings: DataSettings, notices: Notices) -> dict[str, Path]:
    """The label file of each part, as far as there are any.

    `root/labels.csv` is one of all images; else each part has `root/<part>/labels.csv` or
    `root/<part>.csv`, `root/<part>_labels.csv`, and train has one. Parts may be named as in
    `name_parts`, in any case. A file may also be `metadata.csv` with a column of labels, as on the
    Hugging Face Hub, and of any kind that `read_table` reads.

    Raises:
        RaysearchError: two files may be those of one part, or one cannot be read.
    """
    whole = _own(root, settings, notices)
    if whole is not None:
        return {"train": whole}
    inside, beside = {}, {}
    for path in _entries(root):
        if part_words(path.name, _WORDS) is None or path == settings.groups_file:
            continue
        own = _own(path, settings, notices) if path.is_dir() else None
        if own is not None:
            inside[path.name] = own
        elif path.suffix.lower() in SUFFIXES and path.suffix != ".parquet" and path.is_file():
            beside[path.name] = path
    named = name_parts(beside, root, _WORDS).one_each(root)
    found = {part: beside[name] for part, name in named.items()}
    found |= {part: inside[name] for part, name in name_parts(inside, root).one_each(root).items()}
    return found if "train" in found else {}


def _entries(folder: Path) -> list[Path]:
    with readable(folder):
        return [path for path in sorted(folder.iterdir()) if not is_debris(path.name)]


def _own(folder: Path, settings: DataSettings, notices: Notices) -> Path | None:
    """The label file of all images in a folder; other columns than labels may be `metadata`'s."""
    found = [
        path
        for path in _entries(folder)
        if path.stem.lower() in _WHOLE
        and path.suffix.lower() in SUFFIXES
        and path != settings.groups_file
        and (path.stem.lower() != "metadata" or _has_labels(path, settings, notices))
    ]
    if len(found) > 1:
        raise RaysearchError(
            f"{folder}: {found[0].name} and {found[1].name} may each hold the labels: keep one"
        )
    return found[0] if found else None


def _has_labels(path: Path, settings: DataSettings, notices: Notices) -> bool:
    rows = read_table(path, notices)
    return nfc(settings.label_column) in map(nfc, rows[min(rows)] if rows else ())


def list_labelled(files: dict[str, Path], settings: DataSettings, notices: Notices) -> Listing:
    """The images that label files name.

    A label file is read by `read_table`. Its first line is a header. A column holds the images'
    paths, relative to the file's own folder or to one in it. Beside that there is

    - one column of class names with `|` between them, nothing where an image has none: `a|c`. It is
      the only one, or called `label` or as `data.label_column` says; or
    - a column for each class, which the header names, with 0 or 1.

    Where a further column says `train` and `test`, or the images lie in folders that are called
    so, a single file is one of several parts.

    Where an image has several names, or there is a column for each class, the data are
    multi-label. Elsewhere they are not, and images of no class are set aside as unlabelled. Classes
    are in alphabetical order or in the header's.

    Args:
        files: of each part its label file; of train always.
        settings: of the data: its folder, whether to pass over images that are not there or lie
            outside it (`skip`), and whether those outside are taken (`links`).
        notices: gains what was set aside.

    Raises:
        RaysearchError: a file is of another form, names an image that is not there (unless `skip`)
            or twice, or val or test has a class that train has not.
    """
    root = settings.folder()
    read = {
        part: LabelTable.read(files[part], part, settings, notices)
        for part in PARTS
        if part in files
    }
    tables = {part: table for part, table in read.items() if table is not None}
    if len(files) == 1:
        tables = tables["train"].divided()
    train = tables["train"]
    for table in tables.values():
        if table.header[1:] != train.header[1:]:
            raise RaysearchError(f"{table.path}: its columns differ from those of {train.path}")
    labels = {part: table.labels() for part, table in tables.items()}
    classes = tuple(sorted(set().union(*labels["train"])) if train.named else train.header[1:])
    if len(classes) < 2:
        raise RaysearchError(f"{train.path} has {len(classes)} classes; at least two are needed")
    check_class_names(classes, train.path)
    home = os.path.realpath(root) if settings.links == "inside" else None
    parts: dict[str, Part] = {}
    for part, table in tables.items():
        has = _targets(table, labels[part], classes)
        parts[part] = _part(table, has, home, settings.skip, notices)
    read_files = [*dict.fromkeys(table.path for table in tables.values())]
    _say_not_named(settings, read_files, parts.values(), notices)
    if train.named and all(len(own) <= 1 for rows in labels.values() for own in rows):
        parts = _single_label(parts, notices)
    shown = ", ".join(os.path.relpath(path, root) for path in read_files)
    told = f", which tells {', '.join(tables)}" if len(tables) > len(read_files) else ""
    notices.say(f"the labels are those of {shown}{told}")
    return Listing(classes, parts)


def _targets(table: LabelTable, labels: list[set[str]], classes: tuple[str, ...]) -> Targets:
    number = {name: place for place, name in enumerate(classes)}
    has = np.zeros((len(labels), len(classes)), np.float32)
    for row, (line, own) in enumerate(zip(table.rows, labels, strict=True)):
        for name in sorted(own):
            if name not in number:
                near = like(name, classes)
                raise table.wrong(line, f"there is no class {name[:100]!r} in train{near}")
            has[row, number[name]] = 1
    return has


def _part(table: LabelTable, has: Targets, home: str | None, skip: bool, notices: Notices) -> Part:
    """The images of a table; `home` is the folder that they must lie in, None any."""
    lines: dict[str, int] = {}  # by the image's path
    good = np.ones(len(has), dtype=bool)
    on_disk = OnDisk()
    for place, (line, (name, *_)) in enumerate(table.rows.items()):
        path = on_disk.find(table.file(name))
        if path in lines:
            raise table.wrong(line, f"{name[:200]!r} stands in line {lines[path]}, too")
        lines[path] = line
        fault = _fault(path, home)
        if fault and not skip:
            hint = "(data.on_error=skip passes over it)"
            raise table.wrong(line, f"{name[:200]!r} {fault} {hint}")
        good[place] = not fault
        if fault:
            notices.add(SKIPPED, f"{name[:200]} {fault}")
    if not good.any():
        raise RaysearchError(f"{table.path}: none of its images is there")
    return Part(FileSource.of([*itertools.compress(lines, good)]), has[good])


def _single_label(parts: dict[str, Part], notices: Notices) -> dict[str, Part]:
    """The parts with class indices; where no image has two classes, one of none is unlabelled."""
    found: dict[str, Part] = {}
    for name, part in parts.items():
        labelled = np.flatnonzero(part.targets.any(1))
        what = f"image{{s}} of {name} {{are}} set aside, unlabelled"
        notices.add(what, count=len(part) - len(labelled))
        if len(labelled):
            chosen = part.subset(labelled)
            found[name] = Part(chosen.source, chosen.targets.argmax(1))
    return found


def _say_not_named(
    settings: DataSettings, read: Iterable[Path], parts: Iterable[Part], notices: Notices
) -> None:
    """Say which images below the root no label file names, and which such files are not read."""
    root = settings.folder()
    known = {path for part in parts for path in part.source.fetch(np.arange(len(part)))}
    known |= {*map(str, read), str(settings.groups_file)}
    endings = {*extensions(), *SUFFIXES}
    for folder, below, files in os.walk(root):
        below[:] = sorted(name for name in below if not is_debris(name))
        paths = [os.path.join(folder, name) for name in sorted(files) if not is_debris(name)]
        data = [path for path in paths if os.path.splitext(path)[1].lower() in endings]
        beside = [path for path in data if path not in known]
        notices.add(NOT_READ, [os.path.relpath(path, root) for path in beside])


def _fault(path: str, home: str | None) -> str:
    """Why an image cannot be taken; empty where it can."""
    if not os.path.isfile(path):
        return "is no file"
    if home is not None and os.path.commonpath([os.path.realpath(path), home]) != home:
        return "lies outside data.root; data.links=anywhere takes such images"
    return ""
