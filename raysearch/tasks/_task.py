"""What a task is: the seam between the data's targets and all that trains or searches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

Size = tuple[int, int]


@dataclass(frozen=True)
class Metric:
    """What a network is judged by.

    Attributes:
        name: as in the figures' names, `test_<name>` and `val_<name>`.
        label: what a table or an axis says, with the unit: "test error in %".
        unit: "%" (values from 0 to 100) or "" (from 0 to 1).
        lower_is_better: whether a smaller value is a better network.
    """

    name: str
    label: str
    unit: str
    lower_is_better: bool

    def cost(self, value: float) -> float:
        """The value as something to make small."""
        return value if self.lower_is_better else -value

    def score(self, value: float) -> float:
        """The value as a share of the best one: from 0 to 1, of which more is better."""
        best = 100 if self.unit == "%" else 1
        return (best - value) / best if self.lower_is_better else value / best


class Measure(Protocol):
    """Judges a network batch by batch, on the device, and looks at the result once."""

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take in a batch's outputs in full precision, and its targets."""

    def result(self) -> dict[str, float]:
        """`loss`, the mean over images, and the task's figures, its metric among them."""


class Task(Protocol):
    """What is predicted and how that is judged. Picklable.

    A batch's targets are a tensor with one row for each image; what a network returns for the
    batch are its outputs.
    """

    @property
    def name(self) -> str:
        """As `raysearch.tasks.find` knows it."""

    @property
    def metric(self) -> Metric:
        """What networks are judged by."""

    def model(
        self,
        name: Any,
        *,
        classes: int,
        channels: int,
        size: Size,
        weights: Mapping[str, Tensor] | None = None,
    ) -> nn.Module:
        """A network for the task.

        Args:
            name: see `raysearch.models.build`.
            classes: how many there are.
            channels: 1 or 3.
            size: height and width of the images in pixels.
            weights: a `state_dict` to start from; None draws weights from the global generator.
        """

    def losses(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """One loss for each image, [B], of which every reward is made and whose mean is trained on.

        Args:
            outputs: the network's; of half precision they are widened first.
            targets: of the same images.
            label_smoothing: in [0, 1): how much of each target is shared among all classes.
        """

    def wrong(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """How wrong a validation batch is, a scalar in [0, 1], without waiting for the device."""

    def of_wrong(self, wrong: float) -> dict[str, float]:
        """The mean of a search's `wrong` as figures, by their names without `val_`."""

    def measure(self) -> Measure:
        """A fresh judge of one network on one split."""

    def guess(self, train_targets: Tensor, test_targets: Tensor) -> float:
        """The metric, on the test targets, of the best output that is the same for all images.

        NaN where no output has a value of the metric on them.
        """

    def stratum(self, targets: Tensor) -> Tensor:
        """What a divided split spreads evenly over its parts, from the targets of all images.

        Returns:
            A class for each image, int64 [N], or which of K classes each image has, [N, K].
        """

    def blank(self, count: int, classes: int) -> Tensor:
        """Targets of so many images, without meaning, on PyTorch's current device."""
