"""Images whose labels stand in a CSV file beside them."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from raysearch.data._debris import is_debris
from raysearch.data._layout import NOT_READ
from raysearch.data._names import OnDisk, nfc
from raysearch.data._notices import SKIPPED, Notices
from raysearch.data._part_names import PARTS, name_parts, part_words
from raysearch.data._source import FileSource, Listing, Part, check_class_names
from raysearch.data._tree import extensions
from raysearch.errors import RaysearchError

NAME = "labels.csv"
_FORMS = "expected a first line `image,labels` or `image,<class>,<class>,...`"


@dataclass(frozen=True)
class _Table:
    """A label file.

    Attributes:
        path: the file's.
        header: its first line; the first column holds the images' paths.
        lines: number of each row's line, for messages.
        rows: the others, each as long as the header.
    """

    path: Path
    header: list[str]
    lines: list[int]
    rows: list[list[str]]

    @property
    def named(self) -> bool:
        """Whether one column holds names of classes, and not a column for each class 0 or 1."""
        return len(self.header) == 2

    def line(self, row: int) -> str:
        return f"{self.path}, line {self.lines[row]}"


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
    with _readable(folder):
        return next((p for p in sorted(folder.iterdir()) if p.name.lower() == NAME), None)


def list_labelled(
    files: dict[str, Path], root: Path, notices: Notices, *, skip: bool, links: str
) -> Listing:
    """The images that label files name.

    A label file is UTF-8 with commas. Its first line is a header, its first column the image's path
    relative to the file's own folder. Then comes

    - one column of class names with `|` between them, nothing where an image has none: `a|c`; or
    - a column for each class, which the header names, with 0 or 1.

    Images that each have exactly one name are single-label, others multi-label. Classes are in
    alphabetical order or in the header's.

    Args:
        files: of each part its label file; of train always.
        root: the data set's folder.
        notices: gains what was set aside.
        skip: pass over images that are not there or lie outside `root`, and count them.
        links: "inside", or "anywhere" for images outside `root`, too.

    Raises:
        RaysearchError: a file is of another form, names an image that is not there (unless `skip`)
            or twice, or val or test has a class that train has not.
    """
    tables = {part: _read(path) for part, path in files.items()}
    train = tables["train"]
    for table in tables.values():
        if table.header[1:] != train.header[1:]:
            raise RaysearchError(f"{table.path}: its columns differ from those of {train.path}")
    if train.named:
        names = {part: _all_names(table) for part, table in tables.items()}
        classes = tuple(sorted({name for row in names["train"] for name in row}))
    else:
        names, classes = {}, tuple(train.header[1:])
    if len(classes) < 2:
        raise RaysearchError(f"{train.path} has {len(classes)} classes; at least two are needed")
    check_class_names(classes, train.path)
    home = os.path.realpath(root) if links == "inside" else None
    parts: dict[str, Part] = {}
    for part, table in sorted(tables.items(), key=lambda one: PARTS.index(one[0])):
        has = _from_names(table, names[part], classes) if names else _from_columns(table)
        parts[part] = _part(table, has, home, skip, notices)
    if names and all(len(row) == 1 for rows in names.values() for row in rows):
        parts = {name: Part(part.source, part.targets.argmax(1)) for name, part in parts.items()}
    _say_not_named(root, parts.values(), notices)
    notices.say(f"the labels are those of {', '.join(str(path) for path in files.values())}")
    return Listing(classes, parts)


def _read(path: Path) -> _Table:
    with _readable(path), open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        header = [nfc(cell.strip()) for cell in next(reader, [])]
        table = _Table(path, header, [], [])
        for row in reader:
            if row:
                table.lines.append(reader.line_num)
                table.rows.append([cell.strip() for cell in row])
    if len(header) < 2 or not all(header[1:]):
        raise RaysearchError(f"{path} has another layout: {_FORMS}")
    if os.path.isfile(path.parent / header[0]):
        raise RaysearchError(f"{path} has no header, its first line names an image: {_FORMS}")
    twice = [name for name in header[1:] if header.count(name) > 1]
    if twice:
        raise RaysearchError(f"{path}: there are two columns {twice[0]!r}")
    if not table.rows:
        raise RaysearchError(f"{path} names no images")
    for number, row in enumerate(table.rows):
        if len(row) != len(header):
            raise RaysearchError(
                f"{table.line(number)}: it has {len(row)} columns, the header {len(header)}"
            )
    return table


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Says which file it is that cannot be read."""
    try:
        yield
    except OSError as error:
        raise RaysearchError(f"{path}: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise RaysearchError(f"{path} is no CSV file in UTF-8: {error}") from error


def _all_names(table: _Table) -> list[list[str]]:
    """The names of each row, without repetition."""
    found: list[list[str]] = []
    for row, (_, text) in enumerate(table.rows):
        names = [nfc(name.strip()) for name in text.split("|")] if text else []
        if "" in names:
            raise RaysearchError(f"{table.line(row)}: a name in {text[:100]!r} is empty")
        found.append(sorted(set(names)))
    return found


def _from_names(
    table: _Table, names: list[list[str]], classes: tuple[str, ...]
) -> npt.NDArray[np.float32]:
    index = {name: number for number, name in enumerate(classes)}
    has = np.zeros((len(names), len(classes)), np.float32)
    for row, own in enumerate(names):
        for name in own:
            if name not in index:
                raise RaysearchError(
                    f"{table.line(row)}: there is no class {name[:100]!r} in train"
                )
            has[row, index[name]] = 1
    return has


def _from_columns(table: _Table) -> npt.NDArray[np.float32]:
    cells = np.array([row[1:] for row in table.rows])
    wrong = np.argwhere((cells != "0") & (cells != "1"))
    if len(wrong):
        row, column = wrong[0].tolist()
        raise RaysearchError(
            f"{table.line(row)}: {str(cells[row, column])[:100]!r} in column "
            f"{table.header[column + 1]!r} is not 0 or 1"
        )
    has: npt.NDArray[np.float32] = (cells == "1").astype(np.float32)
    return has


def _part(
    table: _Table, has: npt.NDArray[np.float32], home: str | None, skip: bool, notices: Notices
) -> Part:
    """The images of a table; `home` is the folder that they must lie in, None any."""
    folder = str(table.path.parent)
    paths: list[str] = []
    good = np.ones(len(has), dtype=bool)
    seen: dict[str, int] = {}
    on_disk = OnDisk()
    for row, (name, *_) in enumerate(table.rows):
        path = on_disk.find(os.path.normpath(os.path.join(folder, name)))
        if path in seen:
            raise RaysearchError(
                f"{table.line(row)}: {name[:200]!r} stands in line {table.lines[seen[path]]}, too"
            )
        seen[path] = row
        wrong = _fault(path, home)
        if wrong and not skip:
            raise RaysearchError(
                f"{table.line(row)}: {name[:200]!r} {wrong} (data.on_error=skip passes over it)"
            )
        good[row] = not wrong
        if wrong:
            notices.add(SKIPPED, f"{name[:200]} {wrong}")
        else:
            paths.append(path)
    if not paths:
        raise RaysearchError(f"{table.path}: none of its images is there")
    return Part(FileSource.of(paths), has[good])


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
