"""A network that fits images and machine, where none is asked for."""

from __future__ import annotations

PER_CORE = 5e10  # floating-point operations a second that training does on a CPU core, measured
EPOCHS = 1000  # over all images, of the trainings that a default run is made of, together
PATIENCE = 20 * 60  # seconds that a default run may take without a GPU
RESNET18_FLOPS = 3.3e9  # of a training step on one image of 32x32 pixels

LEAST = 8  # pixels of a side that resnet18 takes
WHOLE = 96  # pixels of a side up to which resnet18, which keeps the whole resolution at first, fits
SEEN = 64  # pixels of a side up to which small_cnn sees the whole image


def choose_model(images: int, size: tuple[int, int], device: str, cores: int) -> tuple[str, str]:
    """A network, and why it was chosen, in a sentence that says how to choose otherwise.

    Args:
        images: that the data set trains on, with those that a search validates on.
        size: their height and width in pixels, as the network gets them.
        device: what trials compute on, "cpu" or "cuda".
        cores: CPU cores that the trials share.

    >>> choose_model(2000, (32, 32), "cpu", 2)[0]
    'small_cnn'
    """
    shown = f"{size[0]}x{size[1]} pixels"
    cpus = f"{cores} CPU core{'s' if cores > 1 else ''}"
    if min(size) < LEAST:
        name, why = "small_cnn", f"images have only {shown}"
    elif device == "cpu" and _resnet18_seconds(images, size, cores) > PATIENCE:
        name, why = "small_cnn", f"a larger network takes long with {images:,} images on {cpus}"
        if max(size) > SEEN:
            why += f"; it sees only parts of {shown} at a time, data.size=32 shows it all"
    elif max(size) > WHOLE:
        name, why = "resnet34", f"images of {shown} can be halved early"
    elif device == "cpu":
        name, why = "resnet18", f"{images:,} images of {shown} are few for {cpus}"
    else:
        name, why = "resnet18", f"it suits images of {shown}, and there is a GPU"
    return name, f"model={name} was chosen: {why}; model=wrn40x2, for example, takes another"


def _resnet18_seconds(images: int, size: tuple[int, int], cores: int) -> float:
    """How long a default run with resnet18 takes on so many CPU cores, about."""
    flops = RESNET18_FLOPS * size[0] * size[1] / 32**2
    return flops * images * EPOCHS / (PER_CORE * max(cores, 1))
