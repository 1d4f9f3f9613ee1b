"""What decoded images are: their mean and standard deviation, and whether anything is seen."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from raysearch.data._duplicates import ReadSplit
from raysearch.data._image import Pixels
from raysearch.data._notices import Notices
from raysearch.data._split import Index, Split, TensorSplit
from raysearch.data._stream import StreamSplit

_MEASURED = 64 << 20  # bytes of decoded images from which mean and std are taken
_FLAT = 4  # levels within which an image counts as constant


def some_pixels(split: Split) -> tuple[Pixels, Index]:
    """Up to 64 MiB of images, evenly spread over the split, and their positions in it."""
    if isinstance(split, TensorSplit):
        size = split.subset(torch.arange(1)).images.numel()
        places = np.arange(0, len(split), max(1, -(-len(split) * size // _MEASURED)))
        return split.subset(torch.from_numpy(places)).images.numpy(), places
    assert isinstance(split, StreamSplit)
    channels, (height, width) = split.decoder.channels, split.decoder.size
    places = split.source.sample(max(1, _MEASURED // (channels * height * width)))
    part = split.subset(torch.from_numpy(places))
    batches = list(part.batches(64, device=torch.device("cpu"), generator=None))
    order = {int(index): place for index, place in zip(part.indices, places, strict=True)}
    positions = [order[int(index)] for batch in batches for index in batch.indices]
    return torch.cat([batch.images for batch in batches]).numpy(), np.array(positions)


def mean_and_std(pixels: Pixels) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, on the scale of 0 to 1, of images [N, C, H, W].

    A standard deviation is at least one grey level, so that dividing by it is safe.
    """
    mean: list[float] = []
    std: list[float] = []
    for channel in range(pixels.shape[1]):
        levels = (
            np.bincount(pixels[:, channel].reshape(-1), minlength=256) / pixels[:, channel].size
        )
        values = np.arange(256) / 255
        mean.append(float(levels @ values))
        std.append(max(float(np.sqrt(levels @ (values - mean[-1]) ** 2)), 1 / 255))
    return tuple(mean), tuple(std)


def say_constant(
    read: Mapping[str, ReadSplit], some: Pixels, positions: Index, notices: Notices
) -> None:
    """Name images that are nearly constant once they are decoded.

    Args:
        read: the images; of a stream nothing but `some` is looked at.
        some: images of train, uint8 [N, C, H, W].
        positions: where in train they are.
        notices: where to say it.
    """
    total, flat = 0, []
    for name, part in read.items():
        if isinstance(part.split, TensorSplit):
            pixels, where = part.split.images.numpy(), np.arange(len(part.split))
        elif name == "train":
            pixels, where = some, positions
        else:
            continue
        rows = pixels.reshape(len(pixels), -1)
        constant = rows.max(axis=1) - rows.min(axis=1) <= _FLAT
        flat += [part.name(int(position)) for position in where[constant]]
        total += len(rows)
    notices.add(f"of {total:,} images {{are}} of one colour, or nearly, once decoded", flat)
