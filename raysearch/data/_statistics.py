"""Mean and standard deviation of images, for their normalisation."""

from __future__ import annotations

import numpy as np
import torch

from raysearch.data._image import Pixels
from raysearch.data._split import Index, Split, TensorSplit
from raysearch.data._stream import StreamSplit

_MEASURED = 64 << 20  # bytes of decoded images from which mean and std are taken


def some_pixels(split: Split) -> tuple[Pixels, Index]:
    """Up to 64 MiB of images, evenly spread over the split, and their positions in its base."""
    if isinstance(split, TensorSplit):
        size = split.subset(torch.arange(1)).images.numel()
        step = max(1, -(-len(split) * size // _MEASURED))
        some = split.subset(torch.arange(0, len(split), step))
        return some.images.numpy(), some.indices.numpy()
    assert isinstance(split, StreamSplit)
    channels, (height, width) = split.decoder.channels, split.decoder.size
    places = split.source.sample(max(1, _MEASURED // (channels * height * width)))
    part = split.subset(torch.from_numpy(places))
    batches = list(part.batches(64, device=torch.device("cpu"), generator=None))
    pixels, indices = (torch.cat([batch[each] for batch in batches]).numpy() for each in (0, 2))
    return pixels, indices


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
