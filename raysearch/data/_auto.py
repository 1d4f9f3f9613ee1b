"""`data.size=auto`: as large as the images are worth, as small as the machine needs."""

from __future__ import annotations

from raysearch.data._format import Shapes, natural_size

LARGEST_ON_GPU = 224  # pixels of a side, what most pretrained networks take
SIDES_ON_CPU = (64, 48, 32)  # pixels; what the small network is made for
PIXELS_PER_CORE = 1_024_000  # of a pass over the data: 1,000 images of 32x32


def choose_size(
    shapes: Shapes, images: int, device: str, cores: int
) -> tuple[tuple[int, int], str]:
    """The size to train at, by the images, their number and the machine.

    On a GPU images keep the size that suits them (see `natural_size`) up to 224 pixels. On a CPU a
    training takes time in proportion to the pixels of a pass: the side is the largest of 64, 48 and
    32 pixels at which a pass has at most 1,000 images of 32x32 for each core, and 32 where none is.
    Images that are smaller are not enlarged.

    Args:
        shapes: what the images are.
        images: how many there are, of all parts.
        device: "cpu" or "cuda".
        cores: the CPU's, at least 1.

    Returns:
        Height and width in pixels, and a sentence on what was chosen and why; empty where the
        images stay as they are.
    """
    natural, reason = natural_size(shapes)
    limit = LARGEST_ON_GPU
    if device == "cpu":
        budget = PIXELS_PER_CORE * cores
        fitting = (side for side in SIDES_ON_CPU if images * side * side <= budget)
        limit = next(fitting, SIDES_ON_CPU[-1])
    if max(natural) <= limit:
        return natural, reason
    side = min(min(natural), limit)
    if device == "cpu":
        plural = "s" if cores > 1 else ""
        reason = f"there are {images:,} images, no GPU and {cores} core{plural}"
    elif not reason:
        reason = f"the images are large ({natural[0]}x{natural[1]})"
    return (side, side), reason
