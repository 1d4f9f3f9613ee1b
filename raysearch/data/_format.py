"""What the images are decoded to: channels, size; and their statistics."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np
import torch

from raysearch.data._decode import DecodeError, Decoder, read_header
from raysearch.data._source import ArraySource, Part
from raysearch.data._split import Split, TensorSplit
from raysearch.data._stream import StreamSplit, unreadable
from raysearch.errors import RaysearchError

log = logging.getLogger("raysearch.data")

LARGEST_KEPT = 256  # pixels of the longer side, up to which images of one size stay as they are
LARGEST_CHOSEN = 224  # pixels of a side, where a size has to be chosen
_PROBED = 10_000  # images per part whose headers are read
_MEASURED = 64 << 20  # bytes of decoded images from which mean and std are taken


def choose_decoder(parts: Iterable[Part], size: tuple[int, int] | None, *, skip: bool) -> Decoder:
    """Channels and size that suit the images, from the headers of at most 10,000 per part.

    One channel where all are grey, else three. Without a given size, images that are all of one
    size of at most 256 pixels keep it. Others become squares with the median of their shorter
    sides, at most 224; a warning says so.

    Args:
        parts: the images.
        size: height and width that the user asks for.
        skip: pass over images that cannot be read.

    Raises:
        RaysearchError: an image's header cannot be read (unless `skip`), or none can.
    """
    grey = True
    found: dict[tuple[int, int], str] = {}  # size -> an image of that size
    shorter: list[int] = []
    for part in parts:
        source = part.source
        indices = np.arange(1) if isinstance(source, ArraySource) else source.sample(_PROBED)
        for index, payload in zip(indices.tolist(), source.fetch(indices), strict=True):
            try:
                header = read_header(payload)
            except DecodeError as error:
                if skip:
                    continue
                raise unreadable(source, index, str(error)) from error
            grey = grey and header.grey
            found.setdefault((header.height, header.width), source.name(index))
            shorter.append(min(header.height, header.width))
    if not found:
        raise RaysearchError("none of the images can be read")
    return Decoder(1 if grey else 3, size or _choose_size(found, shorter))


def _choose_size(found: dict[tuple[int, int], str], shorter: list[int]) -> tuple[int, int]:
    first = next(iter(found))
    if len(found) == 1 and max(first) <= LARGEST_KEPT:
        return first
    side = min(int(np.median(shorter)), LARGEST_CHOSEN)
    if len(found) == 1:
        reason = f"the images are large ({first[0]}x{first[1]})"
    else:
        (one, name), (other, other_name) = list(found.items())[:2]
        reason = (
            f"the images are of different sizes ({name} is {one[0]}x{one[1]}, "
            f"{other_name} is {other[0]}x{other[1]})"
        )
    log.warning(
        "%s: they are resized and centre-cropped to %dx%d; data.size= chooses another size",
        reason,
        side,
        side,
    )
    return (side, side)


def mean_and_std(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, on the scale of 0 to 1, from up to 64 MiB of images.

    The images are evenly spread over the split. A standard deviation is at least one grey level,
    so that dividing by it is safe.
    """
    if isinstance(split, TensorSplit):
        step = -(-split.images.numel() // _MEASURED)
        pixels = split.images[:: max(1, step)].numpy()
    else:
        assert isinstance(split, StreamSplit)
        channels, size = split.decoder.channels, split.decoder.size
        some = split.source.sample(max(1, _MEASURED // (channels * size[0] * size[1])))
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
