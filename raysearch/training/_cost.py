"""Cost as arithmetic: epoch-equivalents, which do not depend on the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ParamSpec, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from raysearch.training._setup import Setup

P = ParamSpec("P")
T = TypeVar("T")


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
        data, task = setup.dataset, setup.task
        classes = len(data.classes)
        model = task.model(setup.model, classes=classes, channels=data.channels, size=data.size)
        images = torch.empty(batch_size, data.channels, *data.size)
        targets = task.blank(batch_size, classes)
        counter = FlopCounter()
        with counter:
            loss = task.losses(model(images), targets).mean()
            wanted = [p for p in model.parameters() if p.requires_grad]
            torch.autograd.grad(loss, wanted, allow_unused=True)
    return counter.total


class CostAccount:
    """Counts the arithmetic of a search's steps, in plain training epochs.

    Args:
        setup: data, network, device and seed.
        batch_size: images of a plain step.
        images: of a plain epoch.
    """

    def __init__(self, setup: Setup, batch_size: int, images: int) -> None:
        self._setup, self._batch_size, self._images = setup, batch_size, images
        self._flops_of: dict[str, int] = {}  # by kind of step, counted the first time
        self._flops = 0

    @cached_property
    def _plain_epoch(self) -> float:
        plain = plain_step_flops(self._setup, self._batch_size)
        return plain * (self._images / self._batch_size)

    def counted(self, kind: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do a step's work; its arithmetic is counted the first time that its kind is met."""
        if kind in self._flops_of:
            result = work(*args, **kwargs)
        else:
            with FlopCounter() as counter:
                result = work(*args, **kwargs)
            self._flops_of[kind] = counter.total
        self._flops += self._flops_of[kind]
        return result

    def epoch_equivalents(self) -> float:
        """Arithmetic so far over that of a plain training epoch."""
        return self._flops / self._plain_epoch

    def state_dict(self) -> dict[str, Any]:
        """What has been counted."""
        return {"flops": self._flops, "flops_of": dict(self._flops_of)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`; from nothing where it is empty."""
        self._flops, self._flops_of = state.get("flops", 0), dict(state.get("flops_of", {}))


def validation_cost(train: int, val: int) -> float:
    """Epoch-equivalents of a pass over validation images: a third of a step for each.

    Args:
        train: images that a search trains on.
        val: images of the pass.
    """
    return val / train / 3
