"""Does a search find a transformation that is planted in the validation images?

    python -m benchmarks.planted [method=dada] [data=digits|cifar10] [seeds=3] [epochs=20] [size=16]

Half of the images train, as they are; the other half validate, each carried through one known
operation at a magnitude of 0.75 with a random sign. A search over the method's operations (DADA:
105 pairs of 15) should then rank that operation first among the marginals of the policy with which
it ends. Identity, where a method has it, is never planted.

Not every operation can be found on every data set: on grey images Color does nothing, and shearing
8x8 pixels by half the range moves none. What can be found is settled beforehand, without the
method: a network is trained with each operation alone (probability and magnitude 0.5, where the
search's operations start too), and with none, and its loss measured on every planted validation
set. An operation is identifiable where planting it matters (it at least doubles the loss of the
network trained with none) and where the network trained with it has the lowest loss of all, with
95 % confidence over the seeds (one-sided t test of its lead over the runner-up).
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from scipy import stats
from torch import Tensor

from benchmarks._common import arguments, console, finish, run, workers
from benchmarks._local import Configured
from benchmarks._search import cifar10, configured, done, search_through
from raysearch import ops
from raysearch.data import Dataset, TensorSplit, load_dataset
from raysearch.errors import RaysearchError, unknown
from raysearch.methods import Method
from raysearch.policy import SubPolicies
from raysearch.training import Predefined, Setup, Training, evaluate

DEFAULTS = {
    "method": "dada",
    "data": "digits",
    "operations": "",  # comma-separated; empty: all of the method's
    "seeds": 3,
    "epochs": 20,
    "batch": 256,
    "lr": 0.1,
    "size": 16,  # digits are resized to this many pixels (8: as they are)
    "limit": 2000,
    "magnitude": 0.75,
    "workers": os.cpu_count() or 1,
}


@dataclass(frozen=True)
class Case:
    """One search: an operation planted in the validation images, and a seed."""

    operation: str
    seed: int


@dataclass(frozen=True)
class Found:
    """What a search made of a case."""

    case: Case
    rank: int
    share: float
    first: str
    seconds: float
    epoch_equivalents: float
    found_after: float | None  # epoch-equivalents; see `found_after`


def found_after(history: Sequence[Mapping[str, float]], operation: str) -> float | None:
    """What a search had cost when the operation came first and did to the end; None: never.

    Args:
        history: the search's metrics, epoch by epoch.
        operation: the planted one.
    """
    cost: float | None = None
    for row in history:
        shares = {key: share for key, share in row.items() if key.startswith("share/")}
        own = shares.pop(f"share/{operation}", 0.0)
        if not shares or own <= max(shares.values()):
            cost = None
        elif cost is None:
            cost = row["epoch_equivalents"]
    return cost


def plant(images: Tensor, operation: str, magnitude: float, seed: int) -> Tensor:
    """Carry every image through one operation, with random signs and centres."""
    generator = torch.Generator().manual_seed(seed)
    n = len(images)
    ids = torch.full((n,), ops.operation_id(operation))
    sign = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    value = ops.to_values(ids, torch.full((n,), magnitude), sign)
    return ops.apply(images, ids, value, torch.rand(n, 2, generator=generator))


def load(values: Mapping[str, Any]) -> Dataset:
    """The data whose training images are divided and planted."""
    size = values["size"]
    if values["data"] == "digits":
        return load_dataset({"name": "digits", "test_fraction": 0.01, "size": size})
    return cifar10(values["limit"])


def divide(data: Dataset, seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images and labels of the training half and of the half that validates."""
    batches = data.train.batches(4096, device=torch.device("cpu"), generator=None)
    images, labels = (torch.cat(parts) for parts in list(zip(*batches, strict=True))[:2])
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    half = len(order) // 2
    return (images[order[:half]], labels[order[:half]]), (
        images[order[half:]],
        labels[order[half:]],
    )


def setup_of(data: Dataset, train: Any, val: Any, seed: int) -> Setup:
    """A setup with the planted validation split; no predefined augmentation in the way."""
    fields = {**data.__dict__, "train": TensorSplit(*train), "val": TensorSplit(*val)}
    return Setup(Dataset(**fields), "small_cnn", torch.device("cpu"), seed, Predefined())


def sgd(values: Mapping[str, Any]) -> list[str]:
    """How the classifier is trained, as overrides; else as the default configuration has it."""
    keys = {"epochs": "epochs", "batch_size": "batch", "lr": "lr"}
    own = [f"search.{key}={values[argument]}" for key, argument in keys.items()]
    return [*own, "search.momentum=0.9", "search.nesterov=true", "search.weight_decay=0.0005"]


def search(job: tuple[Dataset, Configured, float, Case]) -> Found:
    """One search of one case, with a method's settings."""
    data, groups, magnitude, case = job
    train, (images, labels) = divide(data, case.seed)
    planted = plant(images, case.operation, magnitude, case.seed)
    setup = setup_of(data, train, (planted, labels), case.seed)
    start = time.perf_counter()
    found = search_through(setup, groups)
    shares = found.policy.at(1.0).marginals()  # a schedule's last phase
    return Found(
        case,
        rank=list(shares).index(case.operation) + 1,
        share=shares[case.operation],
        first=next(iter(shares)),
        seconds=time.perf_counter() - start,
        epoch_equivalents=found.epoch_equivalents,
        found_after=found_after(found.history, case.operation),
    )


def probe(job: tuple[Dataset, Configured, float, str, int, Sequence[str]]) -> list[float]:
    """Loss on every planted validation set of a network trained with one operation alone."""
    data, groups, magnitude, operation, seed, planted = job
    train, (images, labels) = divide(data, seed)
    setup = setup_of(data, train, train, seed)
    half = torch.full((1, 1), 0.5)
    policy = SubPolicies([(operation,)], torch.ones(1), half, half)
    # full_train() joins train and val: the same images twice, so half the epochs
    settings = {**groups.context.search, "epochs": max(1, groups.context.epochs // 2)}
    training = done(Training(setup, settings, policy, predefined=False))
    splits = [TensorSplit(plant(images, name, magnitude, seed), labels) for name in planted]
    return [evaluate(training.model, setup, split)["loss"] for split in splits]


@dataclass(frozen=True)
class Probe:
    """How well a planted operation can be found at all.

    Attributes:
        damage: loss of a plainly trained network on planted images over that on clean ones.
        lead: by how many standard errors training with the operation beats the next best.
        bound: what `lead` must exceed for 95 % confidence.
    """

    damage: float
    lead: float
    bound: float

    @property
    def identifiable(self) -> bool:
        """Whether a search can be expected to find it."""
        return self.damage >= 2 and self.lead > self.bound


def probe_all(
    data: Dataset,
    groups: Configured,
    values: Mapping[str, Any],
    names: Sequence[str],
    pool: Executor,
) -> dict[str, Probe]:
    """Train with each operation alone, and with none, and see what that does where."""
    seeds, every, magnitude = values["seeds"], ("Identity", *names), values["magnitude"]
    jobs = [(data, groups, magnitude, name, seed, every) for seed in range(seeds) for name in every]
    losses = torch.tensor(list(pool.map(probe, jobs)))
    losses = losses.reshape(seeds, len(every), len(every))  # seed, trained with, planted
    damage = losses[:, 0].mean(0) / losses[:, 0, 0].mean()
    own = losses.diagonal(dim1=1, dim2=2)
    others = losses + torch.diag(torch.full((len(every),), float("inf")))
    rival = losses[:, others.mean(0).argmin(0), torch.arange(len(every))]
    difference = rival - own
    lead = difference.mean(0) / (difference.std(0).clamp_min(1e-6) / seeds**0.5)
    bound = float(stats.t.ppf(0.95, df=max(1, seeds - 1)))
    return {
        name: Probe(float(damage[i]), float(lead[i]), bound) for i, name in enumerate(every) if i
    }


def report(found: list[Found], probes: dict[str, Probe]) -> None:
    """The table for people."""
    table = Table(title="rank of the planted operation among the policy's marginals")
    headings = ("planted", "damage", "lead", "ranks", "shares %", "first after", "seconds")
    for heading in (*headings, "first instead"):
        table.add_column(heading)
    for name, probe_ in probes.items():
        rows = [f for f in found if f.case.operation == name]
        table.add_row(
            name if probe_.identifiable else f"({name})",
            f"{probe_.damage:.1f}",
            f"{probe_.lead:+.1f}",
            " ".join(str(f.rank) for f in rows),
            " ".join(f"{100 * f.share:.1f}" for f in rows),
            " ".join("–" if f.found_after is None else f"{f.found_after:.0f}" for f in rows),
            " ".join(f"{f.seconds:.0f}" for f in rows),
            ", ".join(sorted({f.first for f in rows} - {name})),
        )
    console.print(table)


def operations(values: Mapping[str, Any], method: Method) -> tuple[str, ...]:
    """What is planted: of the method's operations those asked for, but not Identity."""
    own = getattr(method, "operations", ())
    if not own or method.name == "randaugment":
        raise RaysearchError(f"method={method.name} does not search over operations")
    known = tuple(name for name in own if name != "Identity")
    chosen = tuple(name for name in values["operations"].split(",") if name)
    for name in chosen:
        if name not in known:
            raise unknown("operation", name, known)
    return chosen or known


def main() -> None:
    """Measure and print."""
    values = arguments(DEFAULTS)
    if values["seeds"] < 2:
        raise RaysearchError("seeds=N: at least 2, so that there is a spread")
    groups = configured(values, *sgd(values))
    names = operations(values, groups.method)
    data = load(values)
    cases = [Case(name, seed) for name in names for seed in range(values["seeds"])]
    with workers(values["workers"]) as pool:
        jobs = [(data, groups, values["magnitude"], case) for case in cases]
        searched = list(pool.map(search, jobs))
        probes = probe_all(data, groups, values, names, pool)
    report(searched, probes)
    counted = [f for f in searched if probes[f.case.operation].identifiable]
    share = sum(f.rank == 1 for f in counted) / len(counted) if counted else 0.0
    seconds = statistics.median(f.seconds for f in searched)
    bound = next(iter(probes.values())).bound
    after = [f.found_after for f in counted if f.found_after is not None]
    console.print(
        "damage: how many times larger planting makes the loss of a plainly trained network; "
        "lead: of training with the operation over the next best, in standard errors. In "
        f"brackets: not identifiable (damage below 2 or lead below {bound:.2f}).\n"
        f"{len(counted)} of {len(searched)} cases are identifiable; the planted operation is "
        f"first in {share:.0%} of them.\n"
        "first after: what the search had cost, in epoch-equivalents, when the planted operation "
        "came first to stay"
    )
    finish(
        {
            "benchmark": "planted",
            "method": values["method"],
            "found": round(share, 4),
            "cases": len(counted),
            "operations": len({f.case.operation for f in counted}),
            "all_cases": len(searched),
            "found_of_all": round(sum(f.rank == 1 for f in searched) / len(searched), 4),
            "seconds": round(seconds, 2),
            "epochs": values["epochs"],
            "epoch_equivalents": round(max(f.epoch_equivalents for f in searched), 2),
            "found_after": round(statistics.median(after), 2) if after else None,
            "data": values["data"],
            "size": list(data.size),
            "not_identifiable": [n for n, p in probes.items() if not p.identifiable],
        }
    )


if __name__ == "__main__":
    run(main)
