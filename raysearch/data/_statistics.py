"""Mean and standard deviation of images, for their normalisation."""

from __future__ import annotations

import numpy as np
import torch

from raysearch.data._split import Split, TensorSplit
from raysearch.data._stream import StreamSplit

_MEASURED = 64 << 20  # bytes of decoded images from which mean and std are taken


def mean_and_std(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, on the scale of 0 to 1, from up to 64 MiB of images.

    The images are evenly spread over the split. A standard deviation is at least one grey level,
    so that dividing by it is safe.
    """
    if isinstance(split, TensorSplit):
        size = split.subset(torch.arange(1)).images.numel()
        step = max(1, -(-len(split) * size // _MEASURED))
        pixels = split.subset(torch.arange(0, len(split), step)).images.numpy()
    else:
        assert isinstance(split, StreamSplit)
        channels, (height, width) = split.decoder.channels, split.decoder.size
        some = split.source.sample(max(1, _MEASURED // (channels * height * width)))
        batches = split.subset(torch.from_numpy(some)).batches(
            64, device=torch.device("cpu"), generator=None
        )
        pixels = torch.cat([images for images, _, _ in batches]).numpy()
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
