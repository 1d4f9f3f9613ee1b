"""Is the learned policy worth anything on ordinary data, and is it better than a uniform one?

    python -m benchmarks.gain [method=dada] [data=digits|cifar10] [seeds=5] [search_seeds=2]

Searches on half of the training images, retrains from scratch on all of them with the learned
policy, with the uniform one over the same operations, and with the usual baselines, every one on
the same seeds, and prints test errors with paired differences. digits is the default run's task;
cifar10 is CIFAR-10 limited to 4,000 training images, the small CNN, flip and crop, 40 epochs.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
import yaml
from rich.table import Table

from benchmarks._common import CONFIGS, arguments, cifar10, console, finish, method_settings, run
from raysearch import methods
from raysearch.data import Dataset, load_dataset
from raysearch.errors import RaysearchError
from raysearch.policy import Policy, SubPolicies, trivial_augment
from raysearch.report import paired_difference, spread
from raysearch.training import Predefined, Task, Training

DEFAULTS = {
    "method": "dada",
    "data": "digits",
    "seeds": 5,
    "search_seeds": 2,
    "epochs": 0,  # 0: the task's own
    "search_epochs": 0,
    "limit": 4000,
    "policies": "none,predefined,trivial_augment,uniform,learned",
    "workers": os.cpu_count() or 1,
}
CIFAR10 = {
    "search": {"epochs": 20},
    "evaluation": {"epochs": 40},
    "predefined": {"flip": True, "padding": 4, "cutout": 0},
}


def task_settings(values: dict[str, Any]) -> tuple[Dataset, dict[str, Any]]:
    """The data, and how to search, train and augment on them."""
    if values["data"] == "cifar10":
        data = cifar10(values["limit"])
        if data is None:
            raise RaysearchError("data=cifar10 needs RAYSEARCH_DATA to point to where it is")
        own: dict[str, Any] = CIFAR10
    else:
        own = _yaml("data/digits.yaml")
        data = load_dataset({k: v for k, v in own["data"].items() if k != "predefined"})
        own["predefined"] = own["data"]["predefined"]
    settings = {
        "predefined": own["predefined"],
        "search": {**_yaml("config.yaml")["search"], **own["search"]},
        "evaluation": {**_yaml("evaluation/default.yaml"), **own["evaluation"]},
    }
    for group, key in (("search", "search_epochs"), ("evaluation", "epochs")):
        settings[group]["epochs"] = values[key] or settings[group]["epochs"]
    return data, settings


def _yaml(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((CONFIGS / name).read_text())
    return content


def task_of(data: Dataset, settings: dict[str, Any], seed: int) -> Task:
    """The small CNN on these data."""
    predefined = Predefined(**settings["predefined"])
    return Task(data, "small_cnn", torch.device("cpu"), seed, predefined)


def search(job: tuple[Dataset, dict[str, Any], dict[str, Any], int]) -> tuple[Policy, Any, float]:
    """One search: its policy, last metrics and seconds."""
    data, settings, method, seed = job
    torch.set_num_threads(1)
    start = time.perf_counter()
    found = methods.build(method["name"], task_of(data, settings, seed), settings["search"], method)
    while found.epoch < found.epochs:
        metrics = found.step()
    return found.policy(), metrics, time.perf_counter() - start


def train(job: tuple[Dataset, dict[str, Any], Policy | None, bool, int]) -> float:
    """Test error, in percent, of one training from scratch."""
    data, settings, policy, predefined, seed = job
    torch.set_num_threads(1)
    training = Training(task_of(data, settings, seed), settings["evaluation"], policy, predefined)
    while training.epoch < training.epochs:
        training.step()
    return training.test()["test_error"]


def main() -> None:
    """Measure and print."""
    values = arguments(DEFAULTS)
    if values["seeds"] < 2:
        raise RaysearchError("seeds=N: at least 2, so that there is a spread")
    data, settings = task_settings(values)
    method = method_settings(values)
    with ProcessPoolExecutor(values["workers"]) as pool:
        jobs = [(data, settings, method, seed) for seed in range(values["search_seeds"])]
        found = list(pool.map(search, jobs))
        learned = type(found[0][0]).merge([policy for policy, _, _ in found])
        known: dict[str, tuple[Policy | None, bool]] = {
            "none": (None, False),
            "predefined": (None, True),
            "trivial_augment": (trivial_augment(), True),
            "uniform": (SubPolicies.pairs(method["operations"]), True),
            "learned": (learned, True),
        }
        names = values["policies"].split(",")
        errors = list(
            pool.map(
                train,
                [
                    (data, settings, *known[name], seed)
                    for seed in range(values["seeds"])
                    for name in names
                ],
            )
        )
    runs = {name: errors[i :: len(names)] for i, name in enumerate(names)}
    report(values, runs, learned, found)


def report(
    values: dict[str, Any], runs: dict[str, list[float]], learned: Policy, found: Any
) -> None:
    """The tables for people and the line for machines."""
    table = Table(
        title=f"{values['method']} on {values['data']}: test error, {values['seeds']} seeds"
    )
    for heading in ("policy", "error %", "learned minus it, 95 % interval"):
        table.add_column(heading)
    differences: dict[str, Any] = {}
    for name, errors in runs.items():
        mean, std = spread(errors)
        text = ""
        if name != "learned" and "learned" in runs:
            ours, theirs = dict(enumerate(runs["learned"])), dict(enumerate(errors))
            difference = paired_difference(ours, theirs) or {}
            differences[name] = [difference[key] for key in ("mean", "low", "high")]
            text = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*differences[name])
        table.add_row(name, f"{mean:.2f} ± {std:.2f}", text)
    console.print(table)
    metrics = found[0][1]
    console.print(learned.describe(8))
    console.print({name: round(share, 3) for name, share in learned.marginals().items()})
    finish(
        {
            "benchmark": "gain",
            "method": values["method"],
            "data": values["data"],
            "errors": {name: [round(e, 3) for e in errors] for name, errors in runs.items()},
            "difference": differences,
            "search_seconds": [round(seconds, 1) for _, _, seconds in found],
            "epoch_equivalents": round(metrics["epoch_equivalents"], 1),
            "kl_uniform": [round(m["kl_uniform"], 4) for _, m, _ in found],
        }
    )


if __name__ == "__main__":
    run(main)
