"""Cost as arithmetic: epoch-equivalents, which do not depend on the machine."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from raysearch import models
from raysearch.data import Split
from raysearch.training._setup import Setup


class FlopCounter(TorchDispatchMode):
    """Count the arithmetic (convolutions and matrix products) that is done inside the block.

    PyTorch's own `FlopCounterMode` cannot follow gradients with respect to a module's input.

    Attributes:
        total: floating-point operations so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += int(formula(*args, **(kwargs or {}), out_val=out))
        return out


def plain_step_flops(setup: Setup, batch_size: int) -> int:
    """Arithmetic of one plain training step on a batch: forward and backward.

    Done on PyTorch's meta device: nothing is computed.
    """
    with torch.device("meta"):
        data = setup.dataset
        model = models.build(
            setup.model, classes=len(data.classes), channels=data.channels, size=data.size
        )
        images = torch.empty(batch_size, data.channels, *data.size)
        labels = torch.empty(batch_size, dtype=torch.int64)
        counter = FlopCounter()
        with counter:
            loss = F.cross_entropy(model(images), labels)
            torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])
    return counter.total


def validation_cost(train: Split, val: Split) -> float:
    """Epoch-equivalents of a pass over the validation images: a third of a step for each."""
    return len(val) / len(train) / 3
