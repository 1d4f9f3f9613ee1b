"""Does online bilevel optimisation learn the transformation that the validation images underwent?

    python -m benchmarks.known_answers [method=bilevel] [data=digits|cifar10] [seeds=3] [epochs=180]

Half of the images train, as they are; the other half validate, each carried through one known
transformation with a parameter drawn from U(-a, a): rotation (a = 30 degrees, learned by an affine
augmenter), translation (a fifth of the side along both axes) or brightness (0.7 of full scale; 0.4
hardly disturbs a network).
The standard deviation of what the augmenter draws should grow towards that of U(-a, a), a/√3, and
stay small in the same search on untouched validation images.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from benchmarks._common import arguments, console, finish, run, workers
from benchmarks._local import Configured
from benchmarks._search import configured, search_through
from benchmarks.planted import divide, load, setup_of, sgd
from raysearch.data import Dataset
from raysearch.errors import RaysearchError, unknown
from raysearch.methods.bilevel import Bilevel
from raysearch.ops import differentiable


@dataclass(frozen=True)
class Kind:
    """A transformation to plant.

    Attributes:
        amount: a, in `unit`.
        unit: what it is measured in.
        transformations: what the augmenter may learn.
        parameters: whose spread is looked at, the mean of them.
    """

    amount: float
    unit: str
    transformations: str
    parameters: tuple[str, ...]


KINDS = {
    "rotation": Kind(30.0, "degrees", "affine", ("rotation",)),
    "translation": Kind(0.4, "half sides", "translation", ("tx", "ty")),
    "brightness": Kind(0.7, "of full scale", "colour", ("brightness",)),
}
DEFAULTS = {
    "method": "bilevel",
    "data": "digits",
    "kinds": ",".join(KINDS),
    "seeds": 3,
    "epochs": 180,
    "batch": 128,
    "lr": 0.1,
    "size": 16,  # digits are resized to this many pixels
    "limit": 2000,
    "workers": os.cpu_count() or 1,
}


@dataclass(frozen=True)
class Case:
    """One search: a kind, whether it is planted, and a seed."""

    kind: str
    planted: bool
    seed: int


@dataclass(frozen=True)
class Learned:
    """Spread after the first epoch and over the last tenth of them, and what it cost."""

    case: Case
    first: float
    last: float
    seconds: float
    epoch_equivalents: float


def plant(images: Tensor, kind: str, seed: int) -> Tensor:
    """Carry every image (uint8) through the transformation with a parameter of its own."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(2, len(images), generator=generator).mul_(2).sub_(1)
    first, second = KINDS[kind].amount * noise
    if kind == "rotation":
        angle = first * math.pi / 180
        cos, sin = angle.cos(), angle.sin()
        parameters = {"a11": cos - 1, "a12": -sin, "a21": sin, "a22": cos - 1}
    elif kind == "translation":
        parameters = {"tx": first, "ty": second}
    else:
        parameters = {"brightness": first}
    moved = differentiable.transform(images.float() / 255, parameters)
    return moved.mul(255).round().to(torch.uint8)


def search(job: tuple[Dataset, Configured, Case]) -> Learned:
    """One search of one case, with a method's settings."""
    data, groups, case = job
    train, (images, labels) = divide(data, case.seed)
    if case.planted:
        images = plant(images, case.kind, case.seed)
    kind, setup = KINDS[case.kind], setup_of(data, train, (images, labels), case.seed)
    own = replace(groups.method, transformations=kind.transformations)
    start = time.perf_counter()
    found = search_through(setup, replace(groups, method=own))
    seconds = time.perf_counter() - start
    spreads = [
        statistics.fmean(row[f"std/{name}"] for name in kind.parameters) for row in found.history
    ]
    last = statistics.fmean(spreads[-math.ceil(len(spreads) / 10) :])
    return Learned(case, spreads[0], last, seconds, found.epoch_equivalents)


def main() -> None:
    """Measure and print."""
    values = arguments(DEFAULTS)
    kinds = [name for name in values["kinds"].split(",") if name]
    for name in kinds:
        if name not in KINDS:
            raise unknown("kind", name, KINDS)
    groups = configured(values, *sgd(values))
    if not isinstance(groups.method, Bilevel):
        raise RaysearchError(f"method={values['method']} learns no transformations by validation")
    data = load(values)
    cases = [
        Case(k, p, seed) for k in kinds for seed in range(values["seeds"]) for p in (True, False)
    ]
    with workers(values["workers"]) as pool:
        learned = list(pool.map(search, [(data, groups, case) for case in cases]))
    table = Table(title="spread (standard deviation) of what the augmenter draws, per seed")
    for heading in ("", "planted", "first → last epochs", "upright: first → last"):
        table.add_column(heading)
    result: dict[str, Any] = {}
    for name in kinds:
        planted, plain = (
            [found for found in learned if found.case.kind == name and found.case.planted == p]
            for p in (True, False)
        )
        truth = KINDS[name].amount / math.sqrt(3)
        table.add_row(
            f"{name} ({KINDS[name].unit})",
            f"{truth:.3g}",
            *(
                ", ".join(f"{f.first:.2g} → {f.last:.3g}" for f in each)
                for each in (planted, plain)
            ),
        )
        result[name] = {
            "truth": round(truth, 4),
            "planted": [[round(f.first, 4), round(f.last, 4)] for f in planted],
            "upright": [[round(f.first, 4), round(f.last, 4)] for f in plain],
            "grows": sum(
                p.last > max(p.first, 1.5 * u.last) for p, u in zip(planted, plain, strict=True)
            ),
        }
    console.print(table)
    grows = sum(part["grows"] for part in result.values())
    console.print(
        f"in {grows} of {len(cases) // 2} cases the planted spread grew, to over 1.5 times that "
        "of the same search on untouched images"
    )
    finish(
        {
            "benchmark": "known_answers",
            "method": values["method"],
            "data": values["data"],
            "cases": len(cases) // 2,
            "grows": grows,
            "kinds": result,
            "epochs": values["epochs"],
            "epoch_equivalents": round(max(f.epoch_equivalents for f in learned), 1),
            "seconds": round(statistics.median(f.seconds for f in learned), 1),
        }
    )


if __name__ == "__main__":
    run(main)
