"""The same image twice: in two parts of a data set, or in one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raysearch.data._notices import Notices
from raysearch.data._split import Index, Targets
from raysearch.errors import RaysearchError

Mask = npt.NDArray[np.bool_]
_BEFORE = {"train": ("test", "val"), "val": ("test",)}  # whose images a part may not have, too


@dataclass(frozen=True)
class Fingerprints:
    """What an image is recognised by, for each image of a part.

    Attributes:
        digests: equal for equal images, see `digest`; int64 [N].
        targets: class indices, int64 [N], or which classes an image has, float32 [N, K].
        name: what the image at a position is called.
    """

    digests: Index
    targets: Targets
    name: Callable[[int], str]


def settle_duplicates(
    parts: dict[str, Fingerprints], choice: str, notices: Notices
) -> dict[str, Mask]:
    """Look for images that are in two parts, and for those that a part has twice.

    Args:
        parts: train and test, and val where there is one.
        choice: for images in two parts: "warn"; "error"; or "drop", from train before val, and
            never from test.
        notices: gains what was found.

    Returns:
        For each part, which of its images are kept.

    Raises:
        RaysearchError: an image is in two parts, and `choice` is "error".
    """
    keep = {name: np.ones(len(part.digests), dtype=bool) for name, part in parts.items()}
    for name, others in _BEFORE.items():
        for other in others:
            if name not in parts or other not in parts:
                continue
            pairs = _common(parts[name], parts[other])
            shown = [f"{parts[name].name(i)} = {parts[other].name(j)}" for i, j in pairs[:3]]
            if len(pairs) and choice == "error":
                raise RaysearchError(
                    f"{len(pairs)} images of {name} are in {other}, too: {', '.join(shown)} "
                    f"(data.duplicates=drop leaves them out of {name})"
                )
            end = (
                f"{{were}} left out of {name}" if choice == "drop" else "data.duplicates=drop helps"
            )
            what = f"image{{s}} of {name} {{are}} in {other}, too ({end})"
            notices.add(what, shown, len(pairs))
            if choice == "drop":
                keep[name][[i for i, _ in pairs]] = False
    for name, part in parts.items():
        _say_repeated(name, part, keep[name], notices)
    return keep


def _common(part: Fingerprints, other: Fingerprints) -> list[tuple[int, int]]:
    """Positions of a part's images that another has, too, each with one of the other's."""
    if not len(other.digests):
        return []
    order = np.argsort(other.digests, kind="stable")
    place = np.searchsorted(other.digests, part.digests, sorter=order)
    nearest = order[np.minimum(place, len(order) - 1)]
    equal = np.flatnonzero(other.digests[nearest] == part.digests)
    return [(int(i), int(nearest[i])) for i in equal]


def _say_repeated(name: str, part: Fingerprints, keep: Mask, notices: Notices) -> None:
    """Say which images a part has more than once, and which of them under different labels."""
    positions = np.flatnonzero(keep)
    if not len(positions):
        return
    _, image = np.unique(part.digests[positions], return_inverse=True)
    _, label = np.unique(part.targets[positions], axis=0, return_inverse=True)
    pairs, first, each = np.unique(
        np.stack((image, label.reshape(-1))), axis=1, return_index=True, return_inverse=True
    )
    again = np.setdiff1d(np.arange(len(positions)), first)
    names = [
        f"{part.name(int(positions[i]))} = {part.name(int(positions[first[each.reshape(-1)[i]]]))}"
        for i in again[:3]
    ]
    notices.add(f"image{{s}} of {name} {{are}} there more than once", names, len(again))
    labels = np.bincount(pairs[0])  # different ones, of each different image
    odd = np.flatnonzero(labels[image] > 1)
    by_image = odd[np.argsort(image[odd], kind="stable")]
    names = [part.name(int(positions[i])) for i in by_image[:3]]
    notices.add(f"image{{s}} of {name} {{are}} there under another label, too", names, len(odd))
