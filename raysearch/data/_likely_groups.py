"""Images that seem to belong together, which a random split would tear apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from raysearch.data._notices import Notices

_STEM = r"^(.*?)[_. -]+[^_. -]*\d[^_. -]*\.[^.]*$"  # all before the last word, which has a number
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


def say_likely_groups(names: Sequence[str], classes: int, notices: Notices) -> None:
    """Point out names that share a stem, as `patient12_slice3.png`, or folders within a class's.

    Args:
        names: paths of images that are going to be split, below the data set's folder.
        classes: how many there are; stems that tell no more than the class are no groups.
        notices: where to say it.
    """
    matched = [re.match(_STEM, name.rsplit("/", 1)[-1]) for name in names]
    stems = Counter(match[1] for match in matched if match and match[1])
    folders = Counter(name.rsplit("/", 1)[0] for name in names if "/" in name)
    for counts, pattern in ((stems, _STEM), (folders, _FOLDER)):
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


def say_likely_columns(columns: Sequence[str], notices: Notices) -> None:
    """Point out columns of Parquet files that by their names say what images belong together."""
    for column in columns:
        if _COLUMN.fullmatch(column):
            notices.say(
                f"the column {column!r} may tell groups: data.groups={column} keeps them whole"
            )


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
