"""Which Parquet files are which part of a data set."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from raysearch.data._layout import NOT_READ, is_document
from raysearch.data._notices import Notices
from raysearch.data._part_names import PARTS, NamedParts, name_parts, part_words
from raysearch.data._settings import DataSettings
from raysearch.data._tree import PASSED_OVER, extensions, is_debris
from raysearch.errors import RaysearchError

_ENDINGS = (".parquet", ".parq", ".pq")
_OF = re.compile(r"(?P<before>.*?)[-_.]?(?P<index>\d+)[-_]of[-_](?P<total>\d+)(?:[-_.].*)?")
_NUMBERED = re.compile(r"(?P<before>.*?)[-_.]?(?P<index>\d+)(?P<rest>.*)")


@dataclass(frozen=True)
class _File:
    """A Parquet file, by its name.

    Attributes:
        path: the file.
        name: what may say which part it is of: its name, without a number where it has one.
        series: what the shards of one export have in common: folder, name before the number, how
            many there are (None where that is not told), what follows the number.
        index: its number among them; None where it has none.
    """

    path: Path
    name: str
    series: tuple[Path, str, int | None, str]
    index: int | None = None

    @classmethod
    def of(cls, path: Path) -> _File:
        """`train-00000-of-00002-<hash>`, `train_0`, `part-00000-<id>-c000`, `part.0`, `0000`."""
        stem = path.name.rsplit(".", 1)[0]
        if match := _OF.fullmatch(stem):  # the hash is another for each shard
            before, total = match["before"], int(match["total"])
            series = (path.parent, before.lower(), total, "")
            return cls(path, before, series, int(match["index"]))
        if match := _NUMBERED.fullmatch(stem):
            before = match["before"]
            name = before if part_words(before) else stem
            alike = (path.parent, before.lower(), None, match["rest"])
            return cls(path, name, alike, int(match["index"]))
        return cls(path, stem, (path.parent, stem.lower(), None, ""))

    @property
    def total(self) -> int | None:
        """How many shards the export has; None where the name does not tell."""
        return self.series[2]


def find_parts(settings: DataSettings, notices: Notices) -> dict[str, list[Path]]:
    """The files of train, val and test, at any depth below a folder.

    A part is named by its files, `train.parquet` or its shards `train-*.parquet`, or by a folder
    that they lie in, `train/0000.parquet`, in the words of `name_parts`. So a download of the Hub
    is read as it is, with its folders `data` or `default`. One export that names no part is train.

    Args:
        settings: of the data: its folder, and a file in it that is read elsewhere.
        notices: gains what was read as which part, and what was not read.

    Raises:
        RaysearchError: the folder is missing or has no training file, or several; a part has
            several files that are not the shards of one export, or an export is not complete.
    """
    root = settings.folder()
    files = [_File.of(path) for path in _parquet_files(root, notices)]
    places: dict[Path, dict[str, list[_File]]] = {}  # where parts lie, and by what name
    for file in files:
        place, name = _place(root, file)
        places.setdefault(place, {}).setdefault(name, []).append(file)
    named = {place: name_parts(names, place) for place, names in places.items()}
    said = any(part_words(name) for names in places.values() for name in names)
    whole = len(files) == 1 or all(file.total is not None for file in files)
    if not said and whole and len(places) == 1:  # all there is, as data.parquet
        named = {place: NamedParts({"train": [*names]}) for place, names in places.items()}
    complete = [place for place, names in named.items() if "train" in names.parts]
    if len(complete) > 1:
        shown = " and ".join(_shown(root, places[p], named[p]) for p in complete[:3])
        raise RaysearchError(
            f"data.root={root}: there are several data sets, {shown}: move all but one elsewhere, "
            "or give the folder of one as data.root"
        )
    if not complete:
        found = ", ".join(os.path.relpath(file.path, root) for file in files[:3])
        raise RaysearchError(
            f"data.root={root}: expected train.parquet or train-*.parquet (and, where there is "
            f"one, test and val likewise), found {found or 'no Parquet file'}"
        )
    [place] = complete
    parts = {
        part: _one_export([file for name in names for file in places[place][name]], part)
        for part, names in named[place].parts.items()
    }
    _say_what_is_read(root, parts, notices)
    read = {path for paths in parts.values() for path in paths}
    apart = {settings.groups_file} if settings.groups_file else set()
    _say_beside(place, files, read | apart, root, notices)
    return {part: parts[part] for part in PARTS if part in parts}


def _parquet_files(root: Path, notices: Notices) -> Iterator[Path]:
    for folder, below, files in os.walk(root):
        debris = {name for name in [*below, *files] if is_debris(name)}
        paths = [os.path.join(folder, name) for name in sorted(debris)]
        notices.add(PASSED_OVER, [os.path.relpath(path, root) for path in paths])
        below[:] = sorted(set(below) - debris)
        for name in sorted(set(files) - debris):
            if name.lower().endswith(_ENDINGS):
                yield Path(folder) / name


def _place(root: Path, file: _File) -> tuple[Path, str]:
    """The folder that a file's part lies in, and its name there: the file's, or a folder's."""
    place, own = file.path.parent, part_words(file.name)
    if own is not None:
        while place != root and (part_words(_stem(place)) or ("",))[0] == own[0]:
            place = place.parent  # train/train-00000-of-00001.parquet
        return place, file.name
    above = [place, *place.parents]
    for folder in above[: above.index(root)]:
        if part_words(_stem(folder)):
            return folder.parent, _stem(folder)
    return place, file.name


def _stem(folder: Path) -> str:
    return folder.name.removesuffix(".parquet")  # Dask's and Spark's files are such folders


def _one_export(files: list[_File], part: str) -> list[Path]:
    """The files of a part, in order, once they are the shards of one export.

    Raises:
        RaysearchError: they are of several, or some are missing.
    """
    ordered = sorted(files, key=lambda file: file.path)
    first = ordered[0]
    numbers: dict[int, _File] = {}
    for file in ordered:
        if file is not first and (file.index is None or file.series != first.series):
            raise _several(first, file, part)
        if file.index in numbers:
            raise _several(numbers[file.index], file, part)
        if file.index is not None:
            numbers[file.index] = file
    # Without a total a year may be the number of a single file, and Spark leaves out empty shards.
    if first.total is not None or (len(ordered) > 1 and not first.series[3]):
        start = 1 if 0 not in numbers and first.total in (None, max(numbers)) else 0
        count = first.total or max(numbers) - start + 1
        missing = next((n for n in range(start, start + count) if n not in numbers), None)
        if missing is not None:
            names = first.path.name
            names += f" and {ordered[-1].path.name}" if first.total is None else ""
            raise RaysearchError(
                f"{first.path.parent}: of the {count} shards like {names}, number {missing} is "
                "missing"
            )
    return [file.path for file in ordered]


def _several(one: _File, other: _File, part: str) -> RaysearchError:
    return RaysearchError(
        f"{one.path.parent} has both {one.path.name} and {other.path.name}, which are not shards "
        f"of one export of {part}: keep one export"
    )


def _shown(root: Path, files: dict[str, list[_File]], named: NamedParts) -> str:
    return os.path.relpath(files[named.parts["train"][0]][0].path, root)


def _say_what_is_read(root: Path, parts: dict[str, list[Path]], notices: Notices) -> None:
    """Say which files are which part, where their names are not those words."""
    where = {part: os.path.relpath(paths[0], root) for part, paths in parts.items()}
    if not all(re.match(rf"{part}[-.]", name) for part, name in where.items()):
        more = {part: f" and {len(paths) - 1} more" for part, paths in parts.items() if paths[1:]}
        said = (f"{part} is read from {name}{more.get(part, '')}" for part, name in where.items())
        notices.say("; ".join(said))


def _say_beside(
    place: Path, files: list[_File], read: set[Path], root: Path, notices: Notices
) -> None:
    """Say what is not read: Parquet files, and what is no image that a row may name."""
    beside = {file.path for file in files} - read
    for entry in place.iterdir():
        used = entry in read or any(entry in path.parents for path in read | beside)
        images = entry.is_dir() or entry.suffix.lower() in extensions()
        known = used or is_debris(entry.name) or is_document(entry)
        if not known and (not images or part_words(entry.stem)):
            beside.add(entry)
    notices.add(NOT_READ, [os.path.relpath(path, root) for path in sorted(beside)])
