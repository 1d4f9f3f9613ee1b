"""Does `method=auto` choose well? Its policy beside what everybody takes, on named cases.

    python -m benchmarks.auto case=cifar10_1000 [seeds=5] [file=auto.jsonl] [oracle=0]

For every seed a race, and then trainings from scratch on all training images, with the policy that
this race chose and with the usual ones, on the same seed; each is tested once. With oracle=N every
candidate is trained too, on the first N seeds: how far the choice is from the best there is. What
is in `file` already is not computed again.

The cases were named before the first was run; the digits are shown, and do not count, because
their test errors had been seen when candidates were chosen.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from benchmarks._common import arguments, compared, console, finish, run, workers
from benchmarks._local import Configured
from benchmarks._search import composed, data_root, done, search_through
from raysearch.data import Dataset, load_dataset
from raysearch.errors import RaysearchError, unknown
from raysearch.files import write_whole
from raysearch.methods._portfolio import Images, complete_policy
from raysearch.policy import from_json
from raysearch.results import mean_and_std
from raysearch.training import Predefined, Setup, Training

CIFAR = ("data=parquet", "data.root={root}/cifar10", "data.test_limit=2000", "model=small_cnn")
MRI = ("data=folder", "data.root={root}/brain_mri", "data.size=48", "model=small_cnn")
BATCH = "evaluation.batch_size=64"
CASES: dict[str, tuple[str, ...]] = {
    "digits": ("data=digits",),
    "cifar10_1000": (*CIFAR, "data.limit=1000", BATCH),
    "cifar10_4000": (*CIFAR, "data.limit=4000"),
    "cifar10_1000_resnet20": (*CIFAR, "data.limit=1000", BATCH, "model=resnet20"),
    "cifar10_1000_long": (*CIFAR, "data.limit=1000", BATCH, "evaluation.epochs=90"),
    "brain_mri_300": (*MRI, "data.limit=300", "evaluation.batch_size=32"),
    "brain_mri": (*MRI,),
}
"""Overrides of a run's settings, by the case's name; all others are as they come."""

SIMPLE = ("none", "predefined", "predefined+trivial_augment", "predefined+randaugment@2/9")
CHOSEN = "auto"
DEFAULTS = {
    "case": "digits",
    "seeds": 5,
    "oracle": 0,
    "budget": "8x",
    "file": "",
    "workers": os.cpu_count() or 1,
}


@dataclass(frozen=True)
class Job:
    """A race, or the training of a policy that is known.

    Attributes:
        case: of `CASES`.
        seed: of both the race and the training after it.
        row: `auto`, or a candidate's name.
        budget: of a race.
    """

    case: str
    seed: int
    row: str
    budget: str


@lru_cache(maxsize=1)
def loaded(case: str, budget: str) -> tuple[dict[str, Any], Dataset]:
    """A case's settings and data; once in each process.

    Raises:
        RaysearchError: the data are not there.
    """
    overrides = [one.format(root=data_root()) for one in CASES[case]]
    values = composed({"method": "auto"}, *overrides, f"method.budget={budget}")
    return values, load_dataset(values["data"], device="cpu")


def carried_out(job: Job) -> dict[str, Any]:
    """The test error, and of a race what it chose and cost."""
    values, data = loaded(job.case, job.budget)
    start = time.perf_counter()
    given = Predefined.of(values["data"]["predefined"])
    setup = Setup(data, values["model"]["name"], torch.device("cpu"), job.seed, given)
    found: dict[str, Any] = {"case": job.case, "seed": job.seed, "row": job.row}
    if job.row == CHOSEN:
        configured = Configured.of(values["method"], values["search"])
        method = configured.method.settled(setup)
        searched = search_through(setup, replace(configured, method=method))
        policy = searched.policy
        epoch = len(data.full_train()) / setup.search_images()
        cost = searched.epoch_equivalents / epoch / values["evaluation"]["epochs"]
        found |= {"budget": job.budget, "trainings": cost, "policy": policy.to_json()}
        found["history"] = searched.history
        seconds = time.perf_counter() - start
        found["search_seconds"] = seconds
    else:
        policy = complete_policy(job.row, Images.of(setup))
    plain = Setup(data, setup.model, setup.device, job.seed)
    training = done(Training(plain, values["evaluation"], policy, False))
    return {**found, **training.test(), "seconds": time.perf_counter() - start}


def main() -> None:
    """Measure and print."""
    values = arguments(DEFAULTS)
    case, budget = values["case"], values["budget"]
    if case not in CASES:
        raise unknown("case", case, CASES)
    if values["seeds"] < 2:
        raise RaysearchError("seeds=N: at least 2, so that there is a spread")
    settings, _ = loaded(case, budget)
    candidates = settings["method"]["candidates"]
    jobs = [
        Job(case, seed, row, budget)
        for seed in range(values["seeds"])
        for row in (*SIMPLE, CHOSEN, *(candidates if seed < values["oracle"] else ()))
    ]
    path = Path(values["file"] or f"auto-{case}.jsonl")
    results = kept(path)
    left = [job for job in dict.fromkeys(jobs) if key(vars(job)) not in results]
    with workers(values["workers"]) as pool:
        for result in pool.map(carried_out, left):
            results[key(result)] = result
            write_whole(path, "".join(json.dumps(one) + "\n" for one in results.values()).encode())
    report(values, {job.row: [] for job in jobs}, results)


def key(result: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a result is of."""
    race = result["row"] == CHOSEN
    return result["case"], result["seed"], result["row"], result["budget"] if race else None


def kept(path: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The results in a file."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {key(result): result for result in map(json.loads, lines)}


def report(
    values: Mapping[str, Any],
    rows: Mapping[str, list[float]],
    results: Mapping[tuple[Any, ...], Mapping[str, Any]],
) -> None:
    """The table for people and the line for machines."""
    case = values["case"]
    mine = [one for one in results.values() if one["case"] == case]
    errors = {row: [one for one in mine if one["row"] == row] for row in rows}
    errors[CHOSEN] = [one for one in errors[CHOSEN] if one["budget"] == values["budget"]]
    metric = next(name for name in mine[0] if name.startswith("test_") and name != "test_loss")
    test = {row: [one[metric] for one in found] for row, found in errors.items()}
    table = Table(title=f"{case}: {metric.replace('_', ' ')}, {values['seeds']} seeds")
    for heading in ("policy", "%", "auto minus it, 95 % interval"):
        table.add_column(heading)
    differences = {}
    for row, runs in sorted(test.items(), key=lambda item: sum(item[1]) / len(item[1])):
        mean, std = mean_and_std(runs)
        text = ""
        if row != CHOSEN and len(runs) == values["seeds"]:
            differences[row], text = compared(test[CHOSEN], runs)
        table.add_row(row, f"{mean:.2f} ± {std or 0:.2f}", text)
    console.print(table)
    races = errors[CHOSEN]
    for one in races:
        words = from_json(one["policy"]).describe(4).replace("\n", "; ")
        console.print(f"seed {one['seed']}: {one['trainings']:.2f} trainings; {words}")
    finish(
        {
            "benchmark": "auto",
            "case": case,
            "budget": values["budget"],
            "errors": test,
            "auto_minus": differences,
            "trainings": [round(one["trainings"], 2) for one in races],
            "search_seconds": [round(one["search_seconds"], 1) for one in races],
        }
    )


if __name__ == "__main__":
    run(main)
