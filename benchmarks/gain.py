"""What are the learned policies worth on ordinary data, beside what needs no search?

    python -m benchmarks.gain [method=dada,ddas,bilevel,aws] [data=digits|cifar10] [seeds=5]
    python -m benchmarks.gain method=pba,fast_autoaugment policies=none,uniform,cutout

Every method searches on its part of the training images (Fast AutoAugment on all); networks are
retrained from scratch on all of them with each learned policy, with the uniform one over DADA's 15
operations, and with the usual baselines, all on the same seeds, and tested once. A method whose
search trains the network that is its result (bilevel, stn) searches on every seed, and that network
has a row of its own.
digits is the default run's setup; cifar10 is CIFAR-10 limited to 4,000 training images, the small
CNN, flip and crop.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.table import Table

from benchmarks._common import (
    arguments,
    compared,
    console,
    finish,
    run,
    workers,
)
from benchmarks._local import Configured
from benchmarks._search import cifar10, composed, configured, done, search_through
from raysearch import methods
from raysearch.data import Dataset, load_dataset
from raysearch.errors import RaysearchError, unknown
from raysearch.methods import BASELINES, Fixed
from raysearch.methods._joint import JointMethod
from raysearch.policy import Policy
from raysearch.results import mean_and_std
from raysearch.training import Predefined, Setup, Training

DEFAULTS = {
    "method": "dada,ddas,bilevel,aws",
    "data": "digits",
    "seeds": 5,
    "search_seeds": 2,
    "epochs": 0,  # of every training; 0: the setup's own
    "search_epochs": 0,
    "limit": 4000,
    "policies": "none,predefined,trivial_augment,uniform",
    "workers": os.cpu_count() or 1,
}


@dataclass(frozen=True)
class Setting:
    """The data, and how to train and augment on them.

    Attributes:
        overrides: of the composed settings; see `benchmarks._search.composed`.
    """

    data: Dataset
    overrides: tuple[str, ...]
    evaluation: Mapping[str, Any]
    predefined: Predefined

    def setup(self, seed: int, predefined: Predefined, val_fraction: float = 0.5) -> Setup:
        """The small CNN on these data."""
        return Setup(self.data, "small_cnn", torch.device("cpu"), seed, predefined, val_fraction)


@dataclass(frozen=True)
class Found:
    """A search's policy, its network's test error where that is a result, and its cost."""

    policy: Policy
    error: float | None
    epoch_equivalents: float
    seconds: float


def setting_of(values: Mapping[str, Any]) -> Setting:
    """The setup that was asked for."""
    if values["data"] not in ("digits", "cifar10"):
        raise RaysearchError(f"data={values['data']}: expected digits or cifar10")
    small = values["data"] == "digits"
    epochs = values["epochs"] or (0 if small else 30)
    overrides = [f"data={values['data']}", *([f"evaluation.epochs={epochs}"] if epochs else ())]
    found = composed({"method": "none"}, *overrides)
    own = {key: value for key, value in found["data"].items() if key != "predefined"}
    data = load_dataset(own) if small else cifar10(values["limit"])
    predefined = Predefined.of(found["data"]["predefined"])
    return Setting(data, tuple(overrides), found["evaluation"], predefined)


def is_joint(method: str) -> bool:
    """Whether the search's own network is a result."""
    return issubclass(methods.find(method), JointMethod)


def groups_in(setting: Setting, values: Mapping[str, Any]) -> Configured:
    """A method's settings in a setup; a network that is a result is trained as long as others."""
    groups = configured(values, *setting.overrides)
    if values["search_epochs"] and not is_joint(groups.method.name):
        search = {**groups.context.search, "epochs": values["search_epochs"]}
        return replace(groups, context=replace(groups.context, search=search))
    return groups


def search(job: tuple[Setting, Configured, int]) -> Found:
    """One search, with the settings of a configuration."""
    setting, groups, seed = job
    start = time.perf_counter()
    setup = setting.setup(seed, setting.predefined, groups.context.search["val_fraction"])
    found = search_through(setup, groups)
    seconds = time.perf_counter() - start
    # in epochs over all training images, whatever part of them the search trains on
    share = len(setup.search_splits()[0]) / len(setting.data.train)
    cost = found.epoch_equivalents * share
    return Found(found.policy, found.values.get("test_error"), cost, seconds)


def train(job: tuple[Setting, Policy, Predefined, int]) -> tuple[float, float]:
    """Test error, in percent, of one training from scratch, and its seconds."""
    setting, policy, predefined, seed = job
    start = time.perf_counter()
    setup = setting.setup(seed, predefined or Predefined())
    training = done(Training(setup, setting.evaluation, policy, predefined is not None))
    return training.test()["test_error"], time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    values = arguments(DEFAULTS)
    if values["seeds"] < 2:
        raise RaysearchError("seeds=N: at least 2, so that there is a spread")
    setting, seeds = setting_of(values), range(values["seeds"])
    names = [name for name in values["method"].split(",") if name]
    chosen = {name: groups_in(setting, {**values, "method": name}) for name in names}
    given = setting.predefined
    for name, groups in chosen.items():
        if groups.method.known is not None:
            raise RaysearchError(f"method={name}: there is nothing to search; see policies=")
    rows = {}
    for name in (name for name in values["policies"].split(",") if name):
        if name not in BASELINES:
            raise unknown("policy", name, BASELINES)
        if name in chosen:
            raise RaysearchError(f"{name} is both a method and a policy to compare it with")
        fixed = Fixed(name)
        rows[name] = (fixed.known, fixed.predefined(given, setting.data.size))
    with workers(values["workers"]) as pool:
        jobs = [
            (name, (setting, groups, seed))
            for name, groups in chosen.items()
            for seed in (seeds if is_joint(groups.method.name) else range(values["search_seeds"]))
        ]
        results = list(pool.map(search, [job for _, job in jobs]))
        found: dict[str, list[Found]] = {name: [] for name in names}
        for (name, _), result in zip(jobs, results, strict=True):
            found[name].append(result)
        for name, searches in found.items():
            learned = type(searches[0].policy).merge([one.policy for one in searches])
            method = chosen[name].method
            rows[name] = (learned, method.predefined(given, setting.data.size))
        trainings = [(setting, *row, seed) for seed in seeds for row in rows.values()]
        trained = list(pool.map(train, trainings))
    errors = {n: [e for e, _ in trained[i :: len(rows)]] for i, n in enumerate(rows)}
    seconds = {n: sum(s for _, s in trained[i :: len(rows)]) for i, n in enumerate(rows)}
    for name, searches in found.items():
        own = [one.error for one in searches if one.error is not None]
        if own:
            errors[f"{name} (joint)"] = own
    report(values, setting, errors, found, seconds)


def report(
    values: Mapping[str, Any],
    setting: Setting,
    errors: Mapping[str, list[float]],
    found: Mapping[str, list[Found]],
    seconds: Mapping[str, float],
) -> None:
    """The table for people and the line for machines."""
    epochs = setting.evaluation["epochs"]
    table = Table(title=f"{values['data']}: test error, {values['seeds']} seeds, {epochs} epochs")
    for heading in ("policy", "error %", "minus uniform, 95 % interval", "search, epochs"):
        table.add_column(heading)
    differences: dict[str, list[float]] = {}
    cost = {name: sum(f.epoch_equivalents for f in searches) for name, searches in found.items()}
    for name, runs in errors.items():
        mean, std = mean_and_std(runs)
        text = ""
        if name != "uniform" and "uniform" in errors:
            differences[name], text = compared(runs, errors["uniform"])
        method = name.removesuffix(" (joint)")
        total = cost.get(method, 0.0) / (len(runs) if name != method else 1)
        table.add_row(name, f"{mean:.2f} ± {std:.2f}", text, f"{total:.0f}")
    console.print(table)
    console.print(
        "search: arithmetic in plain training epochs over all training images; for a policy the "
        "sum over the searches whose mixture it is, for a joint row that of one network"
    )
    finish(
        {
            "benchmark": "gain",
            "method": values["method"],
            "data": values["data"],
            "epochs": epochs,
            "errors": {name: [round(e, 3) for e in runs] for name, runs in errors.items()},
            "difference": differences,
            "search_epochs": {name: round(total, 1) for name, total in cost.items()},
            "search_seconds": {n: [round(f.seconds, 1) for f in fs] for n, fs in found.items()},
            "training_seconds": {name: round(total, 1) for name, total in seconds.items()},
        }
    )


if __name__ == "__main__":
    run(main)
