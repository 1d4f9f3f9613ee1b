"""What a step of a search costs, in plain training steps of the same network.

    python -m benchmarks.step_cost [method=dada] [model=wrn40x2] [batch=128] [rounds=3] [device=cpu]

A plain step is flip, crop, normalisation, forward, backward and SGD update on a batch; a search
step is the same with the method's augmentation and policy update. Both run in turn within one
process, so that what else the machine does meets both alike; the ratio is that of the medians of
epochs of four steps, because some methods do more in some steps than in others. Images are random
(their content does not matter), the data set is resident on the device.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

import torch
from rich.table import Table

from benchmarks._common import arguments, console, finish, run
from benchmarks._search import configured
from raysearch.data import Dataset, TensorSplit
from raysearch.errors import RaysearchError
from raysearch.methods import SinglePass
from raysearch.methods._rewards import RewardMethod
from raysearch.training import Predefined, Setup, Training, keep_freed_memory

DEFAULTS = {
    "method": "dada",
    "model": "wrn40x2",
    "batch": 128,
    "rounds": 3,
    "steps": 4,
    "size": 32,
    "device": "cpu",
}


BOUNDS = {"bilevel": 4.0}  # plain steps that a search step may cost; 3.0 for the others


def random_setup(model: str, batch: int, steps: int, size: int, device: torch.device) -> Setup:
    """A setup of random colour images whose train and validation splits have `steps` batches."""
    generator = torch.Generator().manual_seed(0)

    def split() -> TensorSplit:
        shape = (batch * steps, 3, size, size)
        images = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
        return TensorSplit(images, torch.randint(10, (len(images),), generator=generator))

    data = Dataset(
        name="random",
        classes=tuple("0123456789"),
        train=split(),
        val=split(),
        test=split(),
        channels=3,
        size=(size, size),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )
    return Setup(data, model, device, 0, Predefined(flip=True, padding=4))


def main() -> None:
    """Measure and print."""
    values = arguments(DEFAULTS)
    keep_freed_memory()
    device = torch.device(values["device"])
    rounds, steps, batch = values["rounds"], values["steps"], values["batch"]
    method = configured(values).method
    sgd = {"epochs": 2 * rounds + 2, "batch_size": batch, "lr": 0.1}
    if not isinstance(method, SinglePass):
        raise RaysearchError(f"method={values['method']} does not search step by step")
    setup = random_setup(values["model"], batch, steps, values["size"], device)
    if isinstance(method, RewardMethod):
        method = replace(method, warmup=0.0)
    search = method.training(setup, sgd)
    own = search.loop.steps  # stn trains on all images
    plain = Training(setup, sgd, policy=None, predefined=True)
    seconds: dict[str, list[float]] = {"plain step": [], "search step": []}
    peaks: dict[str, float] = {}
    metrics: dict[str, dict[str, float]] = {}
    for round_ in range(rounds + 1):
        # a plain epoch goes over train and validation: twice the search's batches
        turns = (("plain step", plain, 2 * steps), ("search step", search, own))
        for name, epoch, count in turns:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
                torch.cuda.synchronize()
            start = time.perf_counter()
            metrics[name] = epoch.step()
            if device.type == "cuda":
                torch.cuda.synchronize()
                peaks[name] = torch.cuda.max_memory_allocated() / 2**20
            if round_:  # the first warms up
                seconds[name].append((time.perf_counter() - start) / count)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ratio = medians["search step"] / medians["plain step"]
    arithmetic = metrics["search step"]["epoch_equivalents"] / search.epoch * steps / own

    table = Table(title=f"{values['method']}: {values['model']}, batch {batch}, {device}")
    for heading in ("", "median s", "min s", "max s", "images/s"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, times in seconds.items():
        row = (medians[name], min(times), max(times))
        table.add_row(name, *(f"{t:.4f}" for t in row), f"{batch / medians[name]:.0f}")
    console.print(table)
    bound = BOUNDS.get(method.name, 3.0)
    console.print(f"ratio {ratio:.2f} (bound {bound}; arithmetic alone {arithmetic:.2f})")
    finish(
        {
            "benchmark": "step_cost",
            "method": values["method"],
            "ratio": round(ratio, 3),
            "arithmetic_ratio": round(arithmetic, 3),
            "plain_seconds": medians["plain step"],
            "search_seconds": medians["search step"],
            "peak_mib": peaks,
            "model": values["model"],
            "batch": batch,
            "device": values["device"],
            "threads": torch.get_num_threads(),
        }
    )


if __name__ == "__main__":
    run(main)
