"""How images become 8 bits of grey or colour, and what that costs.

All of it is decided on the training images, once, and holds for the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from raysearch.data._alpha import OVER_WHITE, WHITE, Alpha, Look, choose_alpha
from raysearch.data._decode import eight_bits
from raysearch.data._format import Shapes
from raysearch.data._image import DecodeError, Payload, Pixels, explained, open_image, refuse_bomb
from raysearch.data._source import Part
from raysearch.data._values import Opens, Range, Seen, choose_range, deep_values

T = TypeVar("T")
Found = Mapping[str, Sequence[tuple[str, T]]]  # by part, an image's name and what is found in it
_DECIDING = 2_000  # images of train that are measured
_CHECKED = 500  # images of each other part, for what is said of them
_CHUNK = 128  # images in memory at a time
_FLAT = 4  # levels within which an image counts as constant


@dataclass(frozen=True)
class Conversion:
    """How a data set's images become 8 bits of grey or colour.

    Attributes:
        range: of deep images, what becomes black and white.
        alpha: what becomes of transparency.
        stretched: whether `range` is for images of 8 bits, as no others were found.
        notes: what that costs, in words.
    """

    range: Range | None = None
    alpha: Alpha = OVER_WHITE
    stretched: bool = False
    notes: tuple[str, ...] = ()


def choose_conversion(
    parts: Mapping[str, Part], shapes: Shapes, given: tuple[float, float] | None
) -> Conversion:
    """What suits the images; decodes those that are deep or transparent, up to 2,000 of train.

    Args:
        parts: the images.
        shapes: what their headers say.
        given: the range that the user asks for.
    """
    notes = [
        f"{many(names, shapes.count)} have {what}: not read (data of 8 bits and 3 channels are)"
        for what, names in shapes.unread.items()
    ]
    kept = None if given is None else Range(*given)
    stretched = given is not None and not shapes.deep
    if shapes.deep:
        seen = _measured(parts, shapes.deep, _values)
        if given is None and any(seen.values()):
            kept = choose_range(each for _, each in deciding(seen))
        if kept is not None:
            deep = sum(len(places) for places in shapes.deep.values())
            notes += said_of_range(seen, deep, shapes.count, kept)
    alpha = OVER_WHITE
    if shapes.alpha:
        looks = _measured(parts, shapes.alpha, partial(_look, kept=kept))
        alpha = choose_alpha(look for _, look in deciding(looks))
        notes += said_of_alpha(looks, alpha)
    return Conversion(kept, alpha, stretched, tuple(notes))


def said_of_pixels(parts: Iterable[tuple[Pixels, Callable[[int], str]]]) -> list[str]:
    """Which images are nearly constant, or equal to another one, after decoding.

    Args:
        parts: decoded images, uint8 [N, C, H, W], and what one is called, by its position.
    """
    flat: list[str] = []
    equal: list[str] = []
    first: dict[bytes, str] = {}
    total = 0
    for pixels, name in parts:
        total += len(pixels)
        rows = pixels.reshape(len(pixels), -1)
        low, high = rows.min(axis=1), rows.max(axis=1)
        flat += [name(place) for place in np.flatnonzero(high - low <= _FLAT).tolist()]
        for place, row in enumerate(rows):
            key = hashlib.blake2b(row, digest_size=16).digest()
            if key in first:
                equal.append(f"{name(place)} = {first[key]}")
            else:
                first[key] = name(place)
    notes = []
    if flat:
        notes.append(f"{many(flat, total)} are of one colour, or nearly, once decoded")
    if equal:
        notes.append(f"{many(equal, total)} are equal to another once decoded")
    return notes


def _measured(
    parts: Mapping[str, Part],
    places: Mapping[str, Sequence[int]],
    look: Callable[[Image.Image, Opens], T],
) -> dict[str, list[tuple[str, T]]]:
    """By part, the name of an image and what `look` finds in it; without those that are broken."""

    def measure(payload: Payload | None) -> T | None:
        try:
            with explained(), open_image(payload) as image:
                refuse_bomb(image)
                return look(image, lambda: open_image(payload))
        except DecodeError:
            return None  # it is said or skipped where all images are decoded

    found: dict[str, list[tuple[str, T]]] = {}
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for part, all_places in places.items():
            most = _DECIDING if part == "train" or "train" not in places else _CHECKED
            some = np.array(all_places)[:: max(1, -(-len(all_places) // most))]
            source = parts[part].source
            found[part] = []
            for chunk in _chunks(some):
                for index, each in zip(chunk, pool.map(measure, source.fetch(chunk)), strict=True):
                    if each is not None:
                        found[part].append((source.name(int(index)), each))
    return found


def _chunks(indices: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(indices), _CHUNK):
        yield indices[start : start + _CHUNK]


def deciding(found: Found[T]) -> Sequence[tuple[str, T]]:
    """Those of train, or of the others where train has none."""
    return found.get("train") or [each for part in found.values() for each in part]


def _values(image: Image.Image, again: Opens) -> Seen:
    return Seen.of(deep_values(image, again)[0])


def _look(image: Image.Image, again: Opens, kept: Range | None) -> Look:
    return Look.of(eight_bits(image, again, kept))


def said_of_range(found: Found[Seen], deep: int, total: int, kept: Range) -> list[str]:
    """What is known of images of more than 8 bits, and what their range costs.

    Args:
        found: the values of those that were measured.
        deep: how many there are.
        total: how many images there are, of any bits.
        kept: the range.
    """
    images = [each for part in found.values() for each in part]
    if not images:
        return []
    low, high = min(seen.low for _, seen in images), max(seen.high for _, seen in images)
    text = f"{deep:,} of {total:,} images have more than 8 bits, values from {low:g} to {high:g}"
    if len(images) < deep:
        text += f" (in {len(images):,} that were looked at)"
    if kept == Range(0, 255):
        text += ": used as they are"
    else:
        text += f": {kept.low:g} becomes black and {kept.high:g} white"
        if (step := (kept.high - kept.low + 1) / 256) > 1:
            text += f", {step:.4g} values one of 256 levels"
    usual = float(np.median([seen.high for _, seen in images]))
    if usual - kept.low < (kept.high - kept.low) / 8:
        text += f", though half of the images reach no more than {usual:g}"
    notes = [f"{text}; data.range=[LOW,HIGH] chooses others"]
    cut = [name for name, seen in images if not kept.holds(seen)]
    if cut:
        notes.append(f"{many(cut, len(images))} have values beyond {kept}, which are cut off")
    broken = [name for name, seen in images if not seen.finite]
    if broken:
        notes.append(f"{many(broken, len(images))} have pixels that are no numbers: black")
    return notes


def said_of_alpha(found: Found[Look], alpha: Alpha) -> list[str]:
    """What becomes of images with transparency."""
    images = [each for part in found.values() for each in part]
    laid = [name for name, look in images if alpha.lays(look)]
    kept = [name for name, look in images if not look.opaque and not alpha.lays(look)]
    ground = {WHITE: "white", 0: "black"}.get(alpha.ground, f"grey ({alpha.ground} of 255)")
    notes = []
    if laid:
        why = "" if alpha.ground == WHITE else ", as some would not be seen on white"
        notes.append(f"{many(laid, len(images))} are transparent in part: laid over {ground}{why}")
    if kept:
        why = "it is a further channel" if alpha.ignored else "it hides no part of the picture"
        notes.append(f"{many(kept, len(images))} have their transparency ignored: {why}")
    return notes


def many(names: Sequence[str], total: int) -> str:
    """So many of all images, with the name of the first."""
    return f"{len(names):,} of {total:,} images ({names[0]}{', ...' if len(names) > 1 else ''})"
