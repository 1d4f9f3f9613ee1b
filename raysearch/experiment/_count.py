"""What plain training costs, from a few seconds: counted arithmetic, a handful of timed steps."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from raysearch.errors import RaysearchError
from raysearch.policy import trivial_augment
from raysearch.training import plain_step_flops

if TYPE_CHECKING:
    from torch import Tensor

    from raysearch.training import Setup

TIMING_SECONDS = 2.0  # that timing plain steps may take
FLOPS = 2e10  # a second, of one CPU thread; what is too large to be timed is judged by it
LARGEST = 10**8  # parameters of a network that is built for timing
REPEATS = 3  # steps timed with whole batches


@dataclass(frozen=True)
class Plain:
    """What plain training costs.

    Attributes:
        seconds: for an image, forward and backward, augmented, on one thread of this machine.
        parameters: of the network.
    """

    seconds: float
    parameters: int


def plain_cost(setup: Setup, batch_size: int) -> Plain:
    """Time plain steps on made-up images, of a growing batch size.

    Raises:
        RaysearchError: the network does not take such images.
    """
    flops = plain_step_flops(setup, 2)
    meta = torch.device("meta")
    with meta:
        network = replace(setup, device=meta).build_model()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if parameters > LARGEST:
        return Plain(flops / 2 / FLOPS, parameters)
    smaller, scale = _affordable(setup, flops)
    try:
        with _one_thread():
            seconds = _time(smaller, batch_size) * scale
    except (RuntimeError, MemoryError):  # such as images that become too small
        seconds = flops / 2 / FLOPS
    return Plain(seconds, parameters)


def _affordable(setup: Setup, flops: int) -> tuple[Setup, float]:
    """The setup with images so small that a step takes a moment, and what that makes of the cost.

    Arithmetic tells what the step would take with the images as they are.
    """
    whole, size = flops, setup.dataset.size
    while flops / FLOPS > TIMING_SECONDS / 4 and min(size) >= 64:
        half = (size[0] // 2, size[1] // 2)
        smaller = replace(setup, dataset=replace(setup.dataset, size=half))
        try:
            flops = plain_step_flops(smaller, 2)
        except (RaysearchError, RuntimeError):
            break
        setup, size = smaller, half
    return setup, whole / flops


def _time(setup: Setup, batch_size: int) -> float:
    """Seconds of a CPU for an image, in the largest batch for which there is time.

    A CPU's seconds, because others that keep the machine busy now may be gone soon.
    """
    model, policy = setup.build_model().train(), trivial_augment()
    channels, size = setup.dataset.channels, setup.dataset.size
    end = time.monotonic() + TIMING_SECONDS
    batch, each, repeats = min(2, batch_size), math.inf, REPEATS
    while repeats:
        images = torch.randint(0, 256, (batch, channels, *size), dtype=torch.uint8)
        start, begun = time.thread_time(), time.monotonic()
        _step(setup, model, setup.augment(images, policy, True, setup.generators(0)))
        each = min(each, (time.thread_time() - start) / batch)
        now = time.monotonic()
        if batch == batch_size:
            repeats -= 1
        batch = min(2 * batch, batch_size)
        if now + 2 * (now - begun) > end:
            break
    return each


def _step(setup: Setup, model: torch.nn.Module, images: Tensor) -> None:
    loss = model(setup.normalise(images)).float().square().mean()
    torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
