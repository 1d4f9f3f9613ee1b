"""Images that belong together, which a random split would tear apart.

`data.groups` tells them, by a column, a CSV file or the files' names; likely ones are pointed out.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from raysearch.data._names import nfc
from raysearch.data._notices import Notices
from raysearch.data._parquet import ParquetSource
from raysearch.data._settings import DataSettings
from raysearch.data._source import ArraySource, Listing, Source
from raysearch.data._table import read_csv
from raysearch.errors import RaysearchError

_SINGLE = "image{s} {are} in no group of data.groups, each is taken for one of its own"
_STEM = r"^(.*?)[_. -]+[^_. -]*\d[^_. -]*\.[^.]*$"  # all before the last word, which has a number
_NUMBER = r"^(.*\d)[^\d/]*\.[^.]*$"  # all up to the last number, as of 12_left.png and 12_right.png
_FOLDER = r"([^/]+)/[^/]+$"
_COLUMN = re.compile(
    r"(patient|subject|person|writer|device|camera|scanner|video|clip|scene|site|hospital|group|"
    r"study|series|case|session|user|animal|plant|slide)s?([_-]?(id|name|no|number))?",
    re.IGNORECASE,
)
_COMPARED = 2_000  # images that are compared with each other
_SIDE = 8  # pixels of the small pictures that are compared
_NEAR = 3.0  # grey levels, root mean square
_CONTRAST = 12.0  # standard deviation in grey levels, below which pictures tell nothing
Keys = list[str | None]  # of each image its group, None: not told


def with_groups(listing: Listing, settings: DataSettings, notices: Notices) -> Listing:
    """The listing, with the group of each image.

    Args:
        listing: the images; in files, or in rows of Parquet files.
        settings: of the data. `groups` is the name of a Parquet column; a CSV file of images and
            groups, its path relative to `root`; or else a regular expression, which is looked for
            in the file's name, or if it is in none, in its path below `root`. The group is what its
            parentheses enclose, or all that it matches.
        notices: gains how many groups there are, and which images are in none.

    Raises:
        RaysearchError: it is none of these, or no image has a group.
    """
    sources = [part.source for part in listing.parts.values()]
    keys = _keys(sources, settings, notices)
    names = sorted({key for key in keys if key is not None})
    if not names:
        raise RaysearchError(f"data.groups={settings.groups}: it gives no image a group")
    number = {key: place for place, key in enumerate(names)}
    groups = np.array([-1 if key is None else number[key] for key in keys], dtype=np.int64)
    single = groups < 0
    groups[single] = len(names) + np.arange(np.count_nonzero(single))
    ends = np.cumsum([len(source) for source in sources])[:-1]
    found = dict(zip(listing.parts, np.split(groups, ends), strict=True))
    for own, source in zip(found.values(), sources, strict=True):
        alone = np.flatnonzero(own >= len(names)).tolist()
        notices.add(_SINGLE, [source.name(place) for place in alone[:3]], len(alone))
    largest = int(np.bincount(groups).max())
    if largest == 1:
        notices.say(
            f"data.groups={settings.groups}: each of the {len(keys):,} images is a group of its "
            "own, which keeps nothing together: what several images share should tell groups"
        )
    else:
        notices.say(
            f"data.groups: {len(names):,} groups of {len(keys):,} images, the largest of "
            f"{largest:,}, which splits keep whole"
        )
    for first, second in (("train", "test"), ("train", "val"), ("val", "test")):
        if first in found and second in found:
            shared = np.intersect1d(found[first], found[second])
            what = f"group{{s}} {{are}} in {first} and in {second}"
            notices.add(what, [names[place] for place in shared])
    parts = {name: replace(part, groups=found[name]) for name, part in listing.parts.items()}
    return replace(listing, parts=parts)


def _keys(sources: Sequence[Source], settings: DataSettings, notices: Notices) -> Keys:
    """The group of each image of all sources, one after another."""
    setting = settings.groups or ""
    if any(isinstance(source, ArraySource) for source in sources):
        raise RaysearchError("data.groups is for data=folder and data=parquet")
    columns = [s.column_values(setting) for s in sources if isinstance(s, ParquetSource)]
    if any(values is not None for values in columns):
        if None in columns:
            where = sources[columns.index(None)].name(0)
            raise RaysearchError(f"data.groups={setting}: there is no such column at {where}")
        return [
            None if value is None else str(value) for values in columns for value in values or ()
        ]
    root = settings.folder()
    paths = [nfc(path) for source in sources for path in source.relative_paths(root)]
    if settings.groups_file is not None:
        return _of_file(paths, root, settings.groups_file, notices)
    try:
        pattern = re.compile(setting)
    except re.error as error:
        raise RaysearchError(
            f"data.groups={setting}: no column, no CSV file, and no regular expression: {error}"
        ) from error
    for names in ([path.rsplit("/", 1)[-1] for path in paths], paths):
        keys = [_matched(pattern, name) for name in names]
        if any(key is not None for key in keys):
            return keys
    columned = " nor is it a column" if columns else ""
    raise RaysearchError(f"data.groups={setting}: it matches no image's name{columned}")


def _matched(pattern: re.Pattern[str], name: str) -> str | None:
    match = pattern.search(name)
    if match is None:
        return None
    return "|".join(part or "" for part in match.groups()) if match.groups() else match[0]


def _of_file(paths: Sequence[str], root: Path, file: Path, notices: Notices) -> Keys:
    """The groups that a CSV file has: the path below the root, below the file, or the name."""
    lines = read_csv(file, f"data.groups={file}", notices).values()
    rows = [[nfc(cell) for cell in row] for row in lines]
    wrong = next((row for row in rows if len(row) != 2), None)
    if wrong is not None:
        raise RaysearchError(
            f"data.groups={file}: a row is {wrong[:3]}, expected an image, a group"
        )
    given = {_with_slashes(os.path.normpath(path)): group or None for path, group in rows}
    inside = os.path.relpath(file.parent, root).replace(os.sep, "/") + "/"
    found: Keys = []
    for path in paths:
        names = (path, path.removeprefix(inside), path.rsplit("/", 1)[-1])
        found.append(
            next((given[name] for name in map(_with_slashes, names) if name in given), None)
        )
    return found


def _with_slashes(path: str) -> str:
    """A path that Windows, too, may have written."""
    return path.replace("\\", "/")


def say_likely_groups(listing: Listing, root: Path, notices: Notices) -> None:
    """Point out names that share a stem, as `patient12_slice3.png`, or folders within a class's.

    Of Parquet files also columns that by their names say what images belong together.

    Args:
        listing: the images; those of train are going to be split.
        root: the data set's folder.
        notices: where to say it.
    """
    source = listing.parts["train"].source
    _say_likely_names(source.relative_paths(root), len(listing.classes), notices)
    for column in source.columns if isinstance(source, ParquetSource) else ():
        if _COLUMN.fullmatch(column):
            notices.say(
                f"the column {column!r} may tell groups: data.groups={column} keeps them whole"
            )


def _say_likely_names(names: Sequence[str], classes: int, notices: Notices) -> None:
    """Stems and folders that tell no more than the class are no groups.

    Numbers count within their folder: each class's images may be numbered from 1.
    """
    files = [re.match(_STEM, name.rsplit("/", 1)[-1]) for name in names]
    stems = Counter(match[1] for match in files if match and match[1])
    numbers = Counter(match[1] for match in (re.match(_NUMBER, name) for name in names) if match)
    folders = Counter(name.rsplit("/", 1)[0] for name in names if "/" in name)
    for counts, pattern in ((stems, _STEM), (numbers, _NUMBER), (folders, _FOLDER)):
        several = {key: images for key, images in counts.items() if images > 1}
        covered = sum(several.values())
        numbered = sum(any(sign.isdigit() for sign in key) for key in several)
        least = classes if numbered > len(several) / 2 else 2 * classes
        if len(several) > least and covered > len(names) / 2:
            key, images = Counter(several).most_common(1)[0]
            notices.say(
                f"{len(several):,} likely groups by their names, as {key!r} with {images} images: "
                f"a random split has one on both sides; data.groups='{pattern}' keeps them whole"
            )
            return


def say_near_equal(
    pixels: npt.NDArray[np.uint8], name: Callable[[int], str], notices: Notices
) -> None:
    """Point out images that are nearly equal to another, as frames of a video are.

    Args:
        pixels: uint8 [N, C, H, W], of which up to 2,000 are compared.
        name: what the image at a position is called.
        notices: where to say it.
    """
    step = max(1, -(-len(pixels) // _COMPARED))
    small = _small(pixels[::step])
    told = np.flatnonzero(small.std(1) >= _CONTRAST)
    if len(told) < 2:
        return
    rows = small[told]
    squares = (rows**2).sum(1)
    distance = squares[:, None] + squares - 2 * (rows @ rows.T)
    np.fill_diagonal(distance, np.inf)
    equal = distance < 1e-3 * rows.shape[1]  # copies are said elsewhere
    distance[equal] = np.inf
    near = np.flatnonzero(distance.min(1) <= _NEAR**2 * rows.shape[1])
    if len(near) < max(4, len(rows) / 20):
        return
    pairs = [(int(one), int(distance[one].argmin())) for one in near[:3]]
    shown = [f"{name(int(told[a]) * step)} ~ {name(int(told[b]) * step)}" for a, b in pairs]
    what = (
        f"of {len(small):,} images {{are}} nearly equal to another, as frames of a video are; "
        "data.groups= keeps in one split what belongs together"
    )
    notices.add(what, shown, len(near))


def _small(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Grey pictures of 8x8, means of areas: float32 [N, 64]."""
    grey = pixels.mean(1, dtype=np.float32)
    for axis in (1, 2):
        side = min(_SIDE, grey.shape[axis])
        edges = np.linspace(0, grey.shape[axis], side + 1).astype(int)[:-1]
        widths = np.diff(np.append(edges, grey.shape[axis]))
        shape = [1, 1, 1]
        shape[axis] = side
        grey = np.add.reduceat(grey, edges, axis=axis) / widths.reshape(shape)
    small: npt.NDArray[np.float32] = grey.reshape(len(grey), -1)
    return small
