"""Floating-point images lie in [0, 1], but for rounding: three mistakes, a message for each."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MARGIN = 0.499
"""How far outside [0, 1] an image may reach, which is clamped: what resizing adds.

Bicubic interpolation (a = −0.75, PyTorch's) has weights that add up to 1.1875 and −0.1875 in each
direction. So it takes an image in [0, 1] to −0.4453 and 1.4453 at most, and an edge to −0.11 and
1.11; with antialiasing (a = −0.5), as in Pillow, less. Lanczos' takes a dot of 2 by 2 pixels to
1.4957. Normalised images reach further: their standard deviation is about 1; and so do centred
ones, which begin at −0.5.
"""

NORMALISED = 20.0
"""What normalised images do not reach: white under a standard deviation of 1/20."""

OVERSHOOT = 0.25
"""How far below black, in parts of the largest value, resizing takes no image of 0 to 255."""


def check_levels(low: float, high: float) -> None:
    """See that images are in [0, 1], by their least and largest value.

    Raises:
        ValueError: they are not; the message says which mistake that is.
    """
    if low >= -MARGIN and high <= 1 + MARGIN:
        return
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("images have values that are NaN or infinite: see what comes before")
    whole = low.is_integer() and high.is_integer()  # as dark images of 0 to 255 are
    if low < -OVERSHOOT * high or (high < NORMALISED and not whole):
        advice = "as normalised images do: put the policy before v2.Normalize"
    else:
        advice = "as images of 0 to 255 do: divide them by 255 (v2.ToDtype with scale=True)"
    raise ValueError(
        f"floating-point images must lie in [0, 1]; these reach from {low:.3g} to {high:.3g}, "
        + advice
    )


class LevelsOnGPU:
    """Checks batches that are on a GPU, for whose values nothing waits but for the first batch's.

    A later batch is checked when another comes, if the GPU has reached it by then. A copy begins
    anew.
    """

    def __init__(self) -> None:
        self._last: tuple[torch.cuda.Event, Tensor] | None = None

    def __reduce__(self) -> tuple[type[LevelsOnGPU], tuple[()]]:
        return LevelsOnGPU, ()  # an event cannot be copied

    def check(self, images: Tensor) -> None:
        """Look at floating-point images, at least one.

        Raises:
            ValueError: these or earlier ones are not in [0, 1]; see `check_levels`.
        """
        first = self._last is None
        if self._last is not None:
            event, levels = self._last
            if not event.query():  # type: ignore[no-untyped-call]
                return
            self._last = None
            check_levels(*levels.tolist())
        levels = torch.stack(images.detach().aminmax()).to("cpu", non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(images.device))
        if first:
            event.synchronize()
            check_levels(*levels.tolist())
        self._last = event, levels
