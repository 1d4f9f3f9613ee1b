"""One class for each image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from raysearch import models
from raysearch.tasks._figures import auroc, balanced_error, known_mean
from raysearch.tasks._task import Measure, Metric

_METRICS = {
    "error": Metric("error", "test error in %", "%", lower_is_better=True),
    "balanced_error": Metric(
        "balanced_error", "balanced test error in %", "%", lower_is_better=True
    ),
    "auroc": Metric("auroc", "test AUROC", "", lower_is_better=False),
}


@dataclass(frozen=True)
class Classification:
    """Targets are class indices, int64 [B]; outputs are logits [B, classes].

    The figures of a split are `loss` (cross-entropy) and `error` (share of wrong images, percent),
    and the metric where it is another one. Classes without images in the split are left out of
    what is a mean over classes.

    Args:
        judged_by: `error`; `balanced_error`, the mean over classes of each class's error, in
            percent; or `auroc`, the area under the receiver operating characteristic in [0, 1],
            the mean over classes of one against the rest.
    """

    METRICS: ClassVar = ("error", "balanced_error", "auroc")
    KIND: ClassVar = "single"
    name: ClassVar = "classification"
    judged_by: Literal["error", "balanced_error", "auroc"] = "error"

    @property
    def metric(self) -> Metric:
        return _METRICS[self.judged_by]

    model = staticmethod(models.build)

    def losses(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy of each image, [B]."""
        return F.cross_entropy(
            widened(outputs), targets, reduction="none", label_smoothing=label_smoothing
        )

    def wrong(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The share of wrong images."""
        return (outputs.detach().argmax(1) != targets).float().mean()

    def of_wrong(self, wrong: float) -> dict[str, float]:
        return {"error": 100 * wrong}

    def measure(self) -> Measure:
        return _Measure(self.judged_by)

    def guess(self, train_targets: Tensor, test_targets: Tensor) -> float:
        """Of always naming the most frequent class of the training images."""
        if self.judged_by == "auroc":
            return 0.5 if (test_targets != test_targets[0]).any() else float("nan")
        if self.judged_by == "balanced_error":
            return 100 * (1 - 1 / int((torch.bincount(test_targets) > 0).sum()))
        most = torch.bincount(train_targets).argmax()
        return 100.0 * float((test_targets != most).double().mean())

    def stratum(self, targets: Tensor) -> Tensor:
        """The class."""
        return targets

    def blank(self, count: int, classes: int) -> Tensor:
        return torch.empty(count, dtype=torch.int64)


class _Measure:
    """Loss, error and the metric of one network on one split."""

    def __init__(self, judged_by: str) -> None:
        self._judged_by = judged_by
        self._images = 0
        self._loss = self._wrong = torch.zeros(())
        self._scores: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._wrong_of = self._counts = torch.zeros((), dtype=torch.int64)  # of each class, [K]

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        if not self._images:
            self._loss, self._wrong = self._loss.to(outputs.device), self._wrong.to(outputs.device)
            self._wrong_of = self._counts = self._counts.to(outputs.device)
        self._images += len(targets)
        wrong = outputs.argmax(1) != targets
        self._wrong = self._wrong + wrong.sum()
        self._loss = self._loss + F.cross_entropy(outputs, targets, reduction="sum")
        if self._judged_by == "auroc":
            self._scores.append(outputs.softmax(1))
            self._targets.append(targets)
        elif self._judged_by == "balanced_error":
            of_class = F.one_hot(targets, outputs.shape[1])
            self._counts = self._counts + of_class.sum(0)
            self._wrong_of = self._wrong_of + (of_class * wrong[:, None]).sum(0)

    def result(self) -> dict[str, float]:
        figures = {
            "error": 100 * float(self._wrong) / self._images,
            "loss": float(self._loss) / self._images,
        }
        if self._judged_by == "auroc":
            figures["auroc"] = self._auroc()
        elif self._judged_by == "balanced_error":
            figures["balanced_error"] = balanced_error(self._wrong_of, self._counts)
        return figures

    def _auroc(self) -> float:
        """NaN where all images of the split are of one class."""
        scores, targets = torch.cat(self._scores).cpu(), torch.cat(self._targets).cpu()
        if scores.shape[1] == 2:  # one class's area is the other's
            return known_mean(auroc(scores[:, 1:], targets[:, None] == 1))
        positive = targets[:, None] == torch.arange(scores.shape[1])
        return known_mean(auroc(scores, positive))


def widened(outputs: Tensor) -> Tensor:
    """Outputs in single precision at least."""
    return outputs.float() if outputs.dtype in (torch.bfloat16, torch.float16) else outputs
