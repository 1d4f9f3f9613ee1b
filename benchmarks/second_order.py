"""What the exact mixed derivative costs with our second derivatives, and with PyTorch's own.

    python -m benchmarks.second_order [model=wrn40x2] [batch=128] [rounds=3] [device=cpu]

Both ways take the loss and gradient of a batch, keep the graph, and differentiate the gradient's
product with a vector for the images: what a step of `method=bilevel` does beside validating. They
run in turn within one process, together with a plain forward and backward pass; the derivatives
agree to rounding.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.table import Table
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from benchmarks._common import arguments, console, finish, run
from raysearch import models
from raysearch.hypergrad import Network, train_step
from raysearch.training import keep_freed_memory

DEFAULTS = {"model": "wrn40x2", "batch": 128, "rounds": 3, "size": 32, "device": "cpu"}


def main() -> None:
    """Measure and print."""
    values = arguments(DEFAULTS)
    keep_freed_memory()
    torch.manual_seed(0)
    device, size = torch.device(values["device"]), (values["size"],) * 2
    model = models.build(values["model"], classes=10, channels=3, size=size).to(device).train()
    network = Network(model)
    own = network.parameters()
    images = torch.randn(values["batch"], 3, *size, device=device)
    labels = torch.randint(10, (len(images),), device=device)
    along = [torch.randn_like(parameter) for parameter in own.values()]

    def plain() -> Tensor:
        loss = F.cross_entropy(model(images), labels)
        return torch.autograd.grad(loss, list(own.values()))[0]

    def theirs() -> Tensor:
        w = {name: parameter.detach().clone().requires_grad_() for name, parameter in own.items()}
        leaf = images.clone().requires_grad_()
        loss = F.cross_entropy(functional_call(model, w, (leaf,)), labels)
        first = torch.autograd.grad(loss, list(w.values()), create_graph=True)
        return torch.autograd.grad(first, leaf, along)[0]

    def ours() -> Tensor:
        step = train_step(network, own, images, labels, 0.1)
        gradient = list(step.gradient.values())
        return step.second.gradients(gradient, [step.images], along, of_weights=False)[0]

    ways: dict[str, Callable[[], Tensor]] = {"plain": plain, "PyTorch": theirs, "ours": ours}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, Tensor] = {}
    for round_ in range(values["rounds"] + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            found[name] = way()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if round_:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    off = float((found["ours"] - found["PyTorch"]).norm() / found["PyTorch"].norm())
    table = Table(title=f"{values['model']}, batch {values['batch']}, {device}")
    for heading in ("", "median s", "in plain passes"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, median in medians.items():
        table.add_row(name, f"{median:.3f}", f"{median / medians['plain']:.2f}")
    console.print(table)
    console.print(f"relative difference of the two derivatives: {off:.1e} (float32)")
    result: dict[str, Any] = {
        "benchmark": "second_order",
        "pytorch": round(medians["PyTorch"] / medians["plain"], 3),
        "ours": round(medians["ours"] / medians["plain"], 3),
        "difference": off,
        "model": values["model"],
        "batch": values["batch"],
        "device": values["device"],
        "threads": torch.get_num_threads(),
    }
    finish(result)


if __name__ == "__main__":
    run(main)
