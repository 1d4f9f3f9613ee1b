"""`data.groups`: which images belong together, from a column, a CSV file or the files' names."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from raysearch.data._names import nfc
from raysearch.data._notices import Notices
from raysearch.data._parquet import ParquetSource
from raysearch.data._source import ArraySource, Listing, Part
from raysearch.errors import RaysearchError

_SINGLE = "image{s} {are} in no group of data.groups, each is taken for one of its own"
Keys = list[str | None]  # of each image its group, None: not told


def with_groups(listing: Listing, setting: str, root: Path, notices: Notices) -> Listing:
    """The listing, with the group of each image.

    Args:
        listing: the images; in files, or in rows of Parquet files.
        setting: the name of a Parquet column; a CSV file of images and groups, its path relative
            to `root`; or else a regular expression, which is looked for in the file's name, or if
            it is in none, in its path below `root`. The group is what its parentheses enclose, or
            all that it matches.
        root: the data set's folder.
        notices: gains how many groups there are, and which images are in none.

    Raises:
        RaysearchError: it is none of these, or no image has a group.
    """
    keys = _keys(listing.parts, setting, root)
    found = {key for own in keys.values() for key in own if key is not None}
    if not found:
        raise RaysearchError(f"data.groups={setting}: it gives no image a group")
    number = {key: place for place, key in enumerate(sorted(found))}
    parts: dict[str, Part] = {}
    count = len(number)
    for name, part in listing.parts.items():
        single = [place for place, key in enumerate(keys[name]) if key is None]
        notices.add(_SINGLE, [part.source.name(place) for place in single[:3]], len(single))
        groups = np.array([-1 if key is None else number[key] for key in keys[name]])
        groups[single] = np.arange(count, count + len(single))
        count += len(single)
        parts[name] = replace(part, groups=groups.astype(np.int64))
    images = sum(len(part) for part in parts.values())
    notices.say(f"data.groups: {len(found):,} groups of {images:,} images, which splits keep whole")
    for first, second in (("train", "test"), ("train", "val"), ("val", "test")):
        if first in keys and second in keys:
            shared = sorted({*keys[first]} & {*keys[second]} - {None}, key=str)
            notices.add(f"group{{s}} {{are}} in {first} and in {second}", [str(k) for k in shared])
    return replace(listing, parts=parts)


def groups_file(setting: str | None, root: Path) -> Path | None:
    """The file that `data.groups` names, where it names one."""
    if setting is None or not setting.lower().endswith(".csv"):
        return None
    return root / Path(setting).expanduser()


def _keys(parts: Mapping[str, Part], setting: str, root: Path) -> dict[str, Keys]:
    if any(isinstance(part.source, ArraySource) for part in parts.values()):
        raise RaysearchError("data.groups is for data=folder and data=parquet")
    sources = {name: part.source for name, part in parts.items()}
    columns = {
        n: s.column_values(setting) for n, s in sources.items() if isinstance(s, ParquetSource)
    }
    if any(values is not None for values in columns.values()):
        absent = next((name for name, values in columns.items() if values is None), None)
        if absent is not None:
            raise RaysearchError(f"data.groups={setting}: {absent} has no such column")
        return {
            name: [None if value is None else str(value) for value in values or ()]
            for name, values in columns.items()
        }
    paths = {
        name: [nfc(path) for path in source.relative_paths(root)]
        for name, source in sources.items()
    }
    if (file := groups_file(setting, root)) is not None:
        return _of_file(paths, root, file)
    try:
        pattern = re.compile(setting)
    except re.error as error:
        raise RaysearchError(
            f"data.groups={setting}: no column, no CSV file, and no regular expression: {error}"
        ) from error
    for names in ({n: [p.rsplit("/", 1)[-1] for p in own] for n, own in paths.items()}, paths):
        keys = {name: [_matched(pattern, each) for each in own] for name, own in names.items()}
        if any(key is not None for own in keys.values() for key in own):
            return keys
    columned = " nor is it a column" if columns else ""
    raise RaysearchError(f"data.groups={setting}: it matches no image's name{columned}")


def _matched(pattern: re.Pattern[str], name: str) -> str | None:
    match = pattern.search(name)
    if match is None:
        return None
    return "|".join(part or "" for part in match.groups()) if match.groups() else match[0]


def _of_file(paths: Mapping[str, Sequence[str]], root: Path, file: Path) -> dict[str, Keys]:
    """The groups that a CSV file has: the path below the root, below the file, or the name."""
    try:
        with open(file, encoding="utf-8-sig", newline="") as opened:
            rows = [[nfc(cell.strip()) for cell in row] for row in csv.reader(opened) if row]
    except OSError as error:
        raise RaysearchError(f"data.groups={file}: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise RaysearchError(f"data.groups={file} is no CSV file in UTF-8: {error}") from error
    wrong = next((row for row in rows if len(row) != 2), None)
    if wrong is not None:
        raise RaysearchError(
            f"data.groups={file}: a row is {wrong[:3]}, expected an image, a group"
        )
    given = {os.path.normpath(path).replace(os.sep, "/"): group or None for path, group in rows}
    inside = os.path.relpath(file.parent, root).replace(os.sep, "/") + "/"

    def group(path: str) -> str | None:
        for name in (path, path.removeprefix(inside), path.rsplit("/", 1)[-1]):
            if name in given:
                return given[name]
        return None

    return {name: [group(path) for path in own] for name, own in paths.items()}
