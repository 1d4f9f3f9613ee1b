"""Images whose labels stand in a CSV file beside them."""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raysearch.data._layout import NOT_READ
from raysearch.data._names import OnDisk, check_class_names, like, nfc
from raysearch.data._notices import SKIPPED, Notices
from raysearch.data._part_names import PARTS, name_parts, part_words
from raysearch.data._settings import DataSettings
from raysearch.data._source import FileSource, Listing, Part
from raysearch.data._split import Targets
from raysearch.data._tree import extensions, is_debris
from raysearch.errors import RaysearchError

NAME = "labels.csv"
_FORMS = "expected, with commas, a first line `image,labels` or `image,<class>,<class>,...`"


@dataclass(frozen=True)
class _Table:
    """A label file.

    Attributes:
        path: the file's.
        header: its first line; the first column holds the images' paths.
        rows: the others, each as long as the header, by the numbers of their lines.
    """

    path: Path
    header: list[str]
    rows: dict[int, list[str]]

    @classmethod
    def read(cls, path: Path) -> _Table:
        """The table, once it has a header and rows of its length."""
        lines = read_csv(path, path)
        header = [nfc(cell) for cell in lines.pop(min(lines, default=0), [])]
        if len(header) < 2 or not all(header[1:]):
            raise RaysearchError(f"{path} has another layout: {_FORMS}")
        if os.path.isfile(path.parent / header[0]):
            raise RaysearchError(f"{path} has no header, its first line names an image: {_FORMS}")
        twice = [name for name in header[1:] if header.count(name) > 1]
        if twice:
            raise RaysearchError(f"{path}: there are two columns {twice[0]!r}")
        if not lines:
            raise RaysearchError(f"{path} names no images")
        table = cls(path, header, lines)
        for line, row in lines.items():
            if len(row) != len(header):
                raise table.wrong(line, f"it has {len(row)} columns, the header {len(header)}")
        return table

    @property
    def named(self) -> bool:
        """Whether one column holds names of classes, and not a column for each class 0 or 1."""
        return len(self.header) == 2

    def labels(self) -> list[set[str]]:
        """The classes of each row."""
        found: list[set[str]] = []
        for line, (_, *cells) in self.rows.items():
            if self.named:
                own = {nfc(name.strip()) for name in cells[0].split("|")} if cells[0] else set()
                if "" in own:
                    raise self.wrong(line, f"a name in {cells[0][:100]!r} is empty")
            else:
                by_class = dict(zip(self.header[1:], cells, strict=True))
                odd = next((name for name, cell in by_class.items() if cell not in ("0", "1")), "")
                if odd:
                    cell = by_class[odd][:100]
                    raise self.wrong(line, f"{cell!r} in column {odd!r} is not 0 or 1")
                own = {name for name, cell in by_class.items() if cell == "1"}
            found.append(own)
        return found

    def wrong(self, line: int, what: str) -> RaysearchError:
        """The error of a line."""
        return RaysearchError(f"{self.path}, line {line}: {what}")


def read_csv(path: Path, where: object) -> dict[int, list[str]]:
    """The lines of a CSV file that are not empty, by their numbers.

    Raises:
        RaysearchError: it cannot be read; `where` is how it is called.
    """
    with readable(where), open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        rows = ((reader.line_num, row) for row in reader)
        return {line: [cell.strip() for cell in row] for line, row in rows if row}


@contextmanager
def readable(where: object) -> Iterator[None]:
    """Says which file or folder it is that cannot be read."""
    try:
        yield
    except OSError as error:
        raise RaysearchError(f"{where}: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise RaysearchError(f"{where} is no CSV file in UTF-8: {error}") from error


def find_label_files(root: Path) -> dict[str, Path]:
    """The label file of each part, as far as there are any.

    `root/labels.csv` is one of all images; else each part has `root/<part>/labels.csv` or
    `root/<part>.csv`, and train has one. Parts may be named as in `name_parts`, in any case.

    Raises:
        RaysearchError: two files may be those of one part.
    """
    whole = _own(root)
    if whole is not None:
        return {"train": whole}
    inside, beside = {}, {}
    for path in sorted(root.iterdir()):
        if is_debris(path.name) or part_words(path.stem) is None:
            continue
        own = _own(path) if path.is_dir() else None
        if own is not None:
            inside[path.name] = own
        elif path.suffix.lower() == ".csv" and path.is_file():
            beside[path.stem] = path
    found = {part: beside[name] for part, name in name_parts(beside, root).one_each(root).items()}
    found |= {part: inside[name] for part, name in name_parts(inside, root).one_each(root).items()}
    return found if "train" in found else {}


def _own(folder: Path) -> Path | None:
    """The file `labels.csv` in a folder, in any case."""
    with readable(folder):
        return next((p for p in sorted(folder.iterdir()) if p.name.lower() == NAME), None)


def list_labelled(files: dict[str, Path], settings: DataSettings, notices: Notices) -> Listing:
    """The images that label files name.

    A label file is UTF-8 with commas. Its first line is a header, its first column the image's path
    relative to the file's own folder. Then comes

    - one column of class names with `|` between them, nothing where an image has none: `a|c`; or
    - a column for each class, which the header names, with 0 or 1.

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
    tables = {part: _Table.read(files[part]) for part in PARTS if part in files}
    train = tables["train"]
    for table in tables.values():
        if table.header[1:] != train.header[1:]:
            raise RaysearchError(f"{table.path}: its columns differ from those of {train.path}")
    labels = {part: table.labels() for part, table in tables.items()}
    classes = tuple(sorted(set().union(*labels["train"])) if train.named else train.header[1:])
    if len(classes) < 2:
        raise RaysearchError(f"{train.path} has {len(classes)} classes; at least two are needed")
    check_class_names(classes, train.path)
    root = settings.folder()
    home = os.path.realpath(root) if settings.links == "inside" else None
    parts: dict[str, Part] = {}
    for part, table in tables.items():
        has = _targets(table, labels[part], classes)
        parts[part] = _part(table, has, home, settings.skip, notices)
    _say_not_named(root, parts.values(), notices)
    if train.named and all(len(own) <= 1 for rows in labels.values() for own in rows):
        parts = _single_label(parts, notices)
    shown = ", ".join(os.path.relpath(path, root) for path in files.values())
    notices.say(f"the labels are those of {shown}")
    return Listing(classes, parts)


def _targets(table: _Table, labels: list[set[str]], classes: tuple[str, ...]) -> Targets:
    number = {name: place for place, name in enumerate(classes)}
    has = np.zeros((len(labels), len(classes)), np.float32)
    for row, (line, own) in enumerate(zip(table.rows, labels, strict=True)):
        for name in sorted(own):
            if name not in number:
                near = like(name, classes)
                raise table.wrong(line, f"there is no class {name[:100]!r} in train{near}")
            has[row, number[name]] = 1
    return has


def _part(table: _Table, has: Targets, home: str | None, skip: bool, notices: Notices) -> Part:
    """The images of a table; `home` is the folder that they must lie in, None any."""
    lines: dict[str, int] = {}  # by the image's path
    good = np.ones(len(has), dtype=bool)
    on_disk = OnDisk()
    for place, (line, (name, *_)) in enumerate(table.rows.items()):
        path = on_disk.find(os.path.normpath(os.path.join(table.path.parent, name)))
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


def _say_not_named(root: Path, parts: Iterable[Part], notices: Notices) -> None:
    """Say which images below the root no label file names."""
    named = {path for part in parts for path in part.source.fetch(np.arange(len(part)))}
    for folder, below, files in os.walk(root):
        below[:] = sorted(name for name in below if not is_debris(name))
        paths = [os.path.join(folder, name) for name in sorted(files) if not is_debris(name)]
        images = [path for path in paths if os.path.splitext(path)[1].lower() in extensions()]
        beside = [path for path in images if path not in named]
        notices.add(NOT_READ, [os.path.relpath(path, root) for path in beside])


def _fault(path: str, home: str | None) -> str:
    """Why an image cannot be taken; empty where it can."""
    if not os.path.isfile(path):
        return "is no file"
    if home is not None and os.path.commonpath([os.path.realpath(path), home]) != home:
        return "lies outside data.root; data.links=anywhere takes such images"
    return ""
