"""Any number of labels for each image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from raysearch import models
from raysearch.tasks._classification import widened
from raysearch.tasks._figures import average_precision, known_mean
from raysearch.tasks._task import Measure, Metric


@dataclass(frozen=True)
class MultiLabel:
    """Targets are 0 or 1 for each class, [B, K]; outputs are logits [B, K], one for each class.

    The figures of a split are `loss`, the mean over images and classes of the binary
    cross-entropy, and `map`, the mean over classes of the average precision, in [0, 1]. Classes
    without positive images in the split are left out of `map`; it is NaN where there are none.

    Args:
        judged_by: `map`.
    """

    METRICS: ClassVar = ("map",)
    KIND: ClassVar = "multi"
    name: ClassVar = "multi_label"
    judged_by: Literal["map"] = "map"

    @property
    def metric(self) -> Metric:
        return Metric("map", "test mean average precision", "", lower_is_better=False)

    model = staticmethod(models.build)

    def losses(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Binary cross-entropy of each image, the mean over classes, [B]."""
        outputs = widened(outputs)
        goal = targets.to(outputs.dtype)
        if label_smoothing:
            goal = goal * (1 - label_smoothing) + label_smoothing / 2
        return F.binary_cross_entropy_with_logits(outputs, goal, reduction="none").mean(1)

    def wrong(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """1 − the mean average precision within the batch."""
        found = average_precision(widened(outputs.detach()), targets > 0)
        return (1 - found.nanmean()).nan_to_num(1.0).float()

    def of_wrong(self, wrong: float) -> dict[str, float]:
        return {"map": 1 - wrong}

    def measure(self) -> Measure:
        return _Measure()

    def guess(self, train_targets: Tensor, test_targets: Tensor) -> float:
        """Of ranking no image above another: each class's share of positive images."""
        share = (test_targets > 0).double().mean(0)
        return float(share[share > 0].mean())

    def stratum(self, targets: Tensor) -> Tensor:
        """All labels of each image."""
        return targets

    def blank(self, count: int, classes: int) -> Tensor:
        return torch.empty(count, classes)


class _Measure:
    """Loss and mean average precision of one network on one split."""

    def __init__(self) -> None:
        self._images = 0
        self._loss = torch.zeros(())
        self._scores: list[Tensor] = []
        self._positive: list[Tensor] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self._images += len(targets)
        losses = F.binary_cross_entropy_with_logits(
            outputs, targets.to(outputs.dtype), reduction="none"
        )
        self._loss = self._loss.to(outputs.device) + losses.mean(1).sum()
        self._scores.append(outputs)
        self._positive.append(targets > 0)

    def result(self) -> dict[str, float]:
        scores, positive = torch.cat(self._scores).cpu(), torch.cat(self._positive).cpu()
        return {
            "map": known_mean(average_precision(scores, positive)),
            "loss": float(self._loss) / self._images,
        }
