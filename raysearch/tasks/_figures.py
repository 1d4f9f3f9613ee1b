"""Figures of merit of scores for classes, as functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def balanced_error(wrong: Tensor, counts: Tensor) -> float:
    """Mean over classes of the share of wrong images, in percent.

    Args:
        wrong: wrong images of each class, [K].
        counts: images of each class, [K]; classes without any are left out.
    """
    present = counts > 0
    return 100 * float((wrong[present].double() / counts[present]).mean())


def average_precision(scores: Tensor, positive: Tensor) -> Tensor:
    """Average precision of each class, Σ (R_n − R_{n−1}) P_n over distinct scores, [K].

    Args:
        scores: of each image for each class, [N, K]; higher is surer.
        positive: whether it is of the class, bool [N, K].

    Returns:
        In [0, 1]; NaN for classes without positive images.
    """
    scores, order = scores.sort(dim=0, descending=True)
    hits = positive.gather(0, order)
    last = _last_of_ties(scores)
    found = hits.to(torch.float64 if scores.device.type == "cpu" else torch.float32).cumsum(0)
    precision = found.gather(0, last) / (last + 1)
    return (precision * hits).sum(0) / found[-1]


def auroc(scores: Tensor, positive: Tensor) -> Tensor:
    """Area under each class's receiver operating characteristic, ties counting half, [K].

    Args:
        scores: of each image for each class, [N, K]; higher is surer.
        positive: whether it is of the class, bool [N, K].

    Returns:
        In [0, 1]; NaN for classes without positive or without negative images.
    """
    scores, order = scores.sort(dim=0)
    hits = positive.gather(0, order).double()
    last = _last_of_ties(scores)
    first = len(scores) - 1 - _last_of_ties(scores.flip(0)).flip(0)
    ranks = (first + last).double() / 2 + 1  # the mean of those of equal scores
    positives = hits.sum(0)
    negatives = len(scores) - positives
    return ((ranks * hits).sum(0) - positives * (positives + 1) / 2) / (positives * negatives)


def _last_of_ties(scores: Tensor) -> Tensor:
    """For each place of sorted scores [N, K] the last one with the same score, int64 [N, K]."""
    n = len(scores)
    places = torch.arange(n, device=scores.device)[:, None].expand_as(scores)
    ends = torch.ones_like(scores, dtype=torch.bool)
    ends[:-1] = scores[1:] != scores[:-1]
    later = torch.where(ends, places, n).flip(0)
    return later.cummin(0).values.flip(0)


def known_mean(values: Tensor) -> float:
    """The mean of the classes of which there is a value; NaN where there is none."""
    return float(values.nanmean())
