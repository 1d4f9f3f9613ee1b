"""A network that fits images and machine, where none is asked for."""

from __future__ import annotations

PER_CORE_SECOND = 2.0e9  # floating-point operations that training does on one CPU core, measured
EPOCHS = 100  # of all trainings of a default run together, about
PATIENCE = 20 * 60  # seconds that a default run may take

# of a training step (forward and backward) on one RGB image of 32x32 pixels
RESNET18_FLOPS = 3.3e9

RESNET18_LARGEST = 96  # pixels of a side: CIFAR's stem keeps the whole resolution
SMALL_CNN_LARGEST = 64  # pixels of a side, beyond which it sees only parts of the image


def choose_model(images: int, size: tuple[int, int], device: str, cores: int) -> tuple[str, str]:
    """A network, and why it was chosen, in a sentence that says how to choose otherwise.

    Args:
        images: training images, validation's with them.
        size: height and width in pixels, as the network gets them.
        device: what a trial computes on, "cpu" or "cuda".
        cores: CPU cores of the machine.

    >>> choose_model(2000, (32, 32), "cpu", 2)[0]
    'small_cnn'
    """
    shown = f"{size[0]}x{size[1]} pixels"
    otherwise = "model=NAME takes another (small_cnn, resnet18, wrn40x2, torchvision's names)"
    if device != "cpu":
        if max(size) <= RESNET18_LARGEST:
            return "resnet18", f"resnet18, as there is a GPU and images have {shown}: {otherwise}"
        if min(size) >= 64:
            reason = f"torchvision's resnet50 halves images of {shown} early"
            return "resnet50", f"resnet50, as there is a GPU and {reason}: {otherwise}"
    pixels = size[0] * size[1] / 32**2
    seconds = RESNET18_FLOPS * pixels * images * EPOCHS / (PER_CORE_SECOND * max(cores, 1))
    if device == "cpu" and seconds <= PATIENCE and max(size) <= RESNET18_LARGEST:
        few = f"{images} images of {shown} are few enough for it on {_cores(cores)}"
        return "resnet18", f"resnet18, as {few}: {otherwise}"
    where = f"without a GPU, on {_cores(cores)}," if device == "cpu" else "on a GPU"
    seen = (
        f"; it sees only parts of images above {SMALL_CNN_LARGEST} pixels, data.size=32 lets it "
        "see them whole"
        if max(size) > SMALL_CNN_LARGEST
        else ""
    )
    return (
        "small_cnn",
        f"small_cnn, as a larger network would take long {where} for {images} images of {shown}"
        f"{seen}: {otherwise}",
    )


def _cores(count: int) -> str:
    return f"{count} CPU core{'s' if count > 1 else ''}"
