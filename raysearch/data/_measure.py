"""How images become 8 bits of grey or colour, and what that costs.

All of it is decided on the training images, once, and holds for the others.
"""

from __future__ import annotations

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
from raysearch.data._image import DecodeError, Payload, explained, open_image, refuse_bomb
from raysearch.data._notices import Notices
from raysearch.data._source import Part
from raysearch.data._values import Opens, Range, Seen, choose_range, deep_values, is_settled

T = TypeVar("T")
Found = Mapping[str, Sequence[tuple[str, T]]]  # by part, an image's name and what is found in it
_DECIDING = 2_000  # images of train that are measured
_CHECKED = 500  # images of each other part, for what is said of them
_CHUNK = 64  # images in memory at a time


@dataclass(frozen=True)
class Conversion:
    """How a data set's images become 8 bits of grey or colour.

    Attributes:
        range: of deep images, what becomes black and white.
        alpha: what becomes of transparency.
        stretched: whether `range` is for images of 8 bits, as no others were found.
    """

    range: Range | None = None
    alpha: Alpha = OVER_WHITE
    stretched: bool = False


def choose_conversion(
    parts: Mapping[str, Part],
    shapes: Shapes,
    given: tuple[float, float] | None,
    notices: Notices,
) -> Conversion:
    """What suits the images; decodes those that are deep or transparent, up to 2,000 of train.

    Args:
        parts: the images.
        shapes: what their headers say.
        given: the range that the user asks for.
        notices: where to say what it costs.
    """
    for what, names in shapes.said.items():
        notices.add(f"of {shapes.count:,} images {what}", names)
    kept = None if given is None else Range(*given)
    stretched = given is not None and not shapes.deep
    if shapes.deep:
        seen = _measured(parts, shapes.deep, _values, is_settled if given is None else None)
        if given is None and any(seen.values()):
            kept = choose_range(each for _, each in deciding(seen))
        if kept is not None and any(seen.values()):
            deep = sum(len(places) for places in shapes.deep.values())
            say_range(seen, deep, shapes.count, kept, notices)
    alpha = OVER_WHITE
    if shapes.alpha:
        looks = _measured(parts, shapes.alpha, partial(_look, kept=kept))
        alpha = choose_alpha(look for _, look in deciding(looks))
        say_alpha(looks, alpha, notices)
    return Conversion(kept, alpha, stretched)


def _measured(
    parts: Mapping[str, Part],
    places: Mapping[str, Sequence[int]],
    look: Callable[[Image.Image, Opens], T],
    is_enough: Callable[[Iterable[T]], bool] | None = None,
) -> dict[str, list[tuple[str, T]]]:
    """By part, the name of an image and what `look` finds in it; without those that are broken.

    After some images of a part, `is_enough` says whether to look no further.
    """

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
                if is_enough is not None and is_enough(each for _, each in found[part]):
                    break
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


def say_range(found: Found[Seen], deep: int, total: int, kept: Range, notices: Notices) -> None:
    """Say what is known of images of more than 8 bits, and what their range costs.

    Args:
        found: the values of those that were measured.
        deep: how many there are.
        total: how many images there are, of any bits.
        kept: the range.
        notices: where to say it.
    """
    images = [each for part in found.values() for each in part]
    low, high = min(seen.low for _, seen in images), max(seen.high for _, seen in images)
    text = f"{deep:,} of {total:,} images have more than 8 bits, values from {low:g} to {high:g}"
    if len(images) < deep:
        text += f" (in {len(images):,} that were looked at)"
    if kept == Range(0, 255):
        text += ": used as they are"
    else:
        text += f": {kept.low:g} becomes black and {kept.high:g} white"
        if (step := (kept.high - kept.low + 1) / 256) > 1:
            text += f", {step:.3g} values to a level of 256"
    usual = float(np.median([seen.high for _, seen in images]))
    if usual - kept.low < (kept.high - kept.low) / 8:
        text += f", though half of the images reach no more than {usual:g}"
    notices.say(f"{text}; data.range=[LOW,HIGH] chooses others")
    cut = [name for name, seen in images if not kept.holds(seen)]
    notices.add(f"of {len(images):,} images with values beyond {kept}, which are cut off", cut)
    broken = [name for name, seen in images if not seen.finite]
    notices.add(f"of {len(images):,} images with pixels that are no numbers, read as black", broken)


def say_alpha(found: Found[Look], alpha: Alpha, notices: Notices) -> None:
    """Say what becomes of images with transparency."""
    images = [each for part in found.values() for each in part]
    laid = [name for name, look in images if alpha.lays(look)]
    kept = [name for name, look in images if not look.opaque and not alpha.lays(look)]
    ground = {WHITE: "white", 0: "black"}.get(alpha.ground, f"grey ({alpha.ground} of 255)")
    why = "" if alpha.ground == WHITE else ", as some would not be seen on white"
    of_all = f"of {len(images):,} images with transparency"
    notices.add(f"{of_all} {{are}} laid over {ground}{why}", laid)
    why = "it is a further channel" if alpha.ignored else "it hides no part of the picture"
    notices.add(f"{of_all} {{are}} read by colours alone, as {why}", kept)
