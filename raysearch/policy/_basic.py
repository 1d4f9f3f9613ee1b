"""Mirroring, cropping and Cutout as a policy: what practitioners use without a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from raysearch import ops
from raysearch.policy import _checks as checks
from raysearch.policy._base import Policy

MOST_PIXELS = 65_536


class Basic(Policy):
    """Mirroring with probability 1/2, padding (black) and cropping, Cutout, in this order.

    Args:
        flip: left to right.
        vertical_flip: top to bottom.
        padding: pixels on each side, of which a window of the image's size is cut out; 0 is none.
        cutout: side in pixels of a square at a random place; 0 is none.
        fill: the square's levels in [0, 1], one, or one for each of three channels.

    Raises:
        ValueError: a number outside its range.
    """

    kind: ClassVar[str] = "basic"
    fields: ClassVar[Mapping[str, checks.Check]] = {
        "flip": checks.truth,
        "vertical_flip": checks.truth,
        "padding": checks.number(0, MOST_PIXELS, whole=True),
        "cutout": checks.number(0, MOST_PIXELS, whole=True),
        "fill": checks.list_of(checks.UNIT, least=1, most=3),
    }

    def __init__(
        self,
        flip: bool = False,
        vertical_flip: bool = False,
        padding: int = 0,
        cutout: int = 0,
        fill: Sequence[float] = (0.0,),
    ) -> None:
        if min(padding, cutout) < 0 or len(fill) not in (1, 3):
            raise ValueError(
                "need padding >= 0, cutout >= 0 and one or three levels to fill with; "
                f"got {padding}, {cutout}, {list(fill)}"
            )
        if not all(0 <= level <= 1 for level in fill):
            raise ValueError(f"fill must lie in [0, 1], got {list(fill)}")
        self.flip, self.vertical_flip = flip, vertical_flip
        self.padding, self.cutout = padding, cutout
        self.fill = tuple(float(level) for level in fill)

    def _augment(
        self, images: Tensor, generator: torch.Generator | None, progress: float
    ) -> Tensor:
        """See `Policy.__call__`."""
        generator = generator or torch.default_generator
        if self.flip:
            images = ops.random_flip(images, generator)
        if self.vertical_flip:
            images = ops.random_flip(images, generator, vertical=True)
        if self.padding:
            images = ops.random_crop(images, self.padding, generator)
        if self.cutout:
            images = ops.cutout(images, self.cutout, generator, self._levels(images))
        return images.clone() if self.changes_nothing else images

    def _levels(self, images: Tensor) -> tuple[float, ...]:
        """The fill for the images' number and type of channels."""
        channels = images.shape[1]
        fill = self.fill if len(self.fill) == channels else (sum(self.fill) / len(self.fill),)
        top = 1 if images.is_floating_point() else 255
        return tuple(top * level for level in (fill if len(fill) == channels else fill * channels))

    @property
    def changes_nothing(self) -> bool:
        """Whether images stay as they are."""
        return not (self.flip or self.vertical_flip or self.padding or self.cutout)

    def operation_rates(self) -> dict[str, float]:
        """1/2 for mirroring, 1 for cropping and Cutout, of what there is."""
        rates = {
            "FlipLeftRight": (0.5, self.flip),
            "FlipTopBottom": (0.5, self.vertical_flip),
            "Crop": (1.0, self.padding),
            "Cutout": (1.0, self.cutout),
        }
        return {name: rate for name, (rate, there) in rates.items() if there}

    def describe(self, most: int = 10) -> str:
        """One line."""
        words = {
            "mirrored left to right (every second image)": self.flip,
            "mirrored top to bottom (every second image)": self.vertical_flip,
            f"padded by {self.padding} pixels and cropped": self.padding,
            f"a square of {self.cutout} pixels cut out": self.cutout,
        }
        return ", ".join(word for word, there in words.items() if there) or "images as they are"
