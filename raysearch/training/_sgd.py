"""How a network is trained: stochastic gradient descent, its learning rate and its losses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from raysearch.errors import NonFiniteLossError
from raysearch.settings import BelowOne, Count, NotNegative, Positive


@dataclass(frozen=True)
class SGDSettings:
    """Stochastic gradient descent with a cosine schedule to zero, stepped every batch.

    Attributes:
        epochs: passes over the training split, at least 1.
        batch_size: images per step.
        lr: learning rate at the start.
        momentum: in [0, 1).
        nesterov: Nesterov's form of momentum.
        weight_decay: L2 coefficient on all parameters.
        label_smoothing: in [0, 1).
        enlarge_batch: how many times each image is in its batch, each time augmented anew (Enlarge
            Batch, Tian et al., NeurIPS 2020); the number of steps stays as it is.
    """

    epochs: Count
    batch_size: Count
    lr: Positive
    momentum: BelowOne = 0.9
    nesterov: bool = True
    weight_decay: NotNegative = 5e-4
    label_smoothing: BelowOne = 0.0
    enlarge_batch: Count = 1

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> SGDSettings:
        """Pick the fields out of a configuration group that holds other things too."""
        return cls(**{f.name: settings[f.name] for f in fields(cls) if f.name in settings})

    def steps(self, images: int) -> int:
        """Steps per epoch over so many images: whole batches, or the one that there is."""
        return max(1, images // self.batch_size)

    def lr_at(self, epoch: int, step: int, steps: int) -> float:
        """The learning rate of a step (both counted from 0): half a cosine from `lr` to 0."""
        done = (epoch + step / steps) / self.epochs
        return self.lr * 0.5 * (1 + math.cos(math.pi * done))

    def optimizer(self, model: nn.Module) -> torch.optim.SGD:
        """The optimiser over all of a model's parameters."""
        return torch.optim.SGD(
            model.parameters(),
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov and self.momentum > 0,
            weight_decay=self.weight_decay,
        )


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where it pays (CUDA), full precision elsewhere."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def finite_mean(losses: Sequence[Tensor], where: str, epoch: int) -> float:
    """The mean of an epoch's losses, looked at once so that no step waits for the device.

    Raises:
        NonFiniteLossError: one of them is NaN or infinite; the first is named.
    """
    values = torch.stack(list(losses))
    if not bool(values.isfinite().all()):
        step = int((~values.isfinite()).nonzero()[0]) + 1
        raise NonFiniteLossError(where, epoch + 1, step)
    return float(values.mean())
