"""augmented.png: images before and after."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from raysearch.policy import Policy
from raysearch.results._figures import png

COLUMNS = 8  # images in a row
DRAWS = 5  # rows of augmented images
POINTS = (0.0, 1 / 3, 2 / 3, 1.0)  # of a training, where a policy that changes is shown
DRAWS_AT_POINT = 2
CELL = 96  # pixels of an image's longer side, about
GAP, BREAK = 6, 10  # pixels between rows, and more between groups

Group = tuple[list[str], list[Tensor]]  # rows that belong together, with a label each


def augmented_png(policy: Policy, samples: Tensor, seed: int = 0) -> bytes:
    """A row of images as they are, and rows of them as the policy augments them.

    A policy that changes is shown at the beginning, at both thirds and at the end of a training.

    Args:
        policy: draws anew for every image and row.
        samples: uint8 [N, C, H, W]; the first 8 are shown.
        seed: of the draws, so that the same run gives the same picture.
    """
    images = samples[:COLUMNS].cpu()
    generator = torch.Generator().manual_seed(seed)
    groups: list[Group] = [(["original"], [images])]
    if len(policy.moments()) > 1:
        for point in POINTS:
            drawn = [policy(images, generator, point) for _ in range(DRAWS_AT_POINT)]
            groups.append(([f"{100 * point:.0f} % of\ntraining"] + [""] * (len(drawn) - 1), drawn))
    else:
        drawn = [policy(images, generator) for _ in range(DRAWS)]
        groups.append(([f"draw {i}" for i in range(1, DRAWS + 1)], drawn))
    return _picture(groups)


def _picture(groups: Sequence[Group]) -> bytes:
    """Rows of images with labels, the groups apart."""
    parts, ticks, labels, top = [], [], [], 0
    for names, images in groups:
        for name, row in zip(names, images, strict=True):
            strip = _strip(row)
            parts.append(strip)
            ticks.append(top + (len(strip) - GAP) / 2)
            labels.append(name)
            top += len(strip)
        parts.append(np.full((BREAK, *strip.shape[1:]), 255, dtype=np.uint8))
        top += BREAK
    canvas = np.concatenate(parts[:-1])
    height, width = canvas.shape[:2]
    dpi = 100.0
    figure = Figure(figsize=(width / dpi + 0.9, height / dpi + 0.1), dpi=dpi, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(canvas, interpolation="nearest")
    axes.set_yticks(ticks, labels, fontsize=9)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return png(figure, dpi)


def _strip(images: Tensor) -> npt.NDArray[np.uint8]:
    """Images beside each other, RGB [h, w, 3], a gap to the right of each and below."""
    gaps = ((0, 0), (0, GAP), (0, GAP), (0, 0))
    return np.concatenate(list(np.pad(_thumbnails(images), gaps, constant_values=255)), axis=1)


def _thumbnails(images: Tensor) -> npt.NDArray[np.uint8]:
    """RGB [N, h, w, 3] of about `CELL` pixels: small images enlarged, large ones averaged."""
    factor = CELL / max(images.shape[-2:])
    colour = images.expand(-1, 3, -1, -1)
    if factor < 1:
        size = [max(1, round(factor * side)) for side in images.shape[-2:]]
        small = functional.interpolate(colour.float(), size, mode="bilinear", antialias=True)
        colour = small.round().clamp(0, 255).to(torch.uint8)
    pixels = colour.permute(0, 2, 3, 1).numpy()
    whole = max(1, round(factor))
    return np.asarray(pixels.repeat(whole, axis=1).repeat(whole, axis=2))
