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
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch
import yaml
from rich.table import Table

from benchmarks._common import (
    CONFIGS,
    arguments,
    cifar10,
    compared,
    console,
    finish,
    method_settings,
    run,
    search_through,
    trial_settings,
)
from raysearch import methods
from raysearch.data import Dataset, load_dataset
from raysearch.errors import RaysearchError, unknown
from raysearch.methods import SearchMethod
from raysearch.policy import Policy
from raysearch.results import mean_and_std
from raysearch.training import Predefined, Setup, Training, keep_freed_memory

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
CIFAR10: dict[str, Any] = {
    "search": {"epochs": 20},
    "evaluation": {"epochs": 30},
    "predefined": {"flip": True, "padding": 4, "cutout": 0},
}


@dataclass(frozen=True)
class Setting:
    """The data, and how to search, train and augment on them."""

    data: Dataset
    search: Mapping[str, Any]
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
    if values["data"] == "cifar10":
        data = cifar10(values["limit"])
        if data is None:
            raise RaysearchError("data=cifar10 needs RAYSEARCH_DATA to point to where it is")
        own = CIFAR10
    elif values["data"] == "digits":
        own = _yaml("data/digits.yaml")
        data = load_dataset({k: v for k, v in own["data"].items() if k != "predefined"})
        own["predefined"] = own["data"]["predefined"]
    else:
        raise RaysearchError(f"data={values['data']}: expected digits or cifar10")
    search = {**_yaml("config.yaml")["search"], **own["search"]}
    evaluation = {**_yaml("evaluation/default.yaml"), **own["evaluation"]}
    for group, key in ((search, "search_epochs"), (evaluation, "epochs")):
        group["epochs"] = values[key] or group["epochs"]
    return Setting(data, search, evaluation, Predefined(**own["predefined"]))


def _yaml(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((CONFIGS / name).read_text())
    return content


def own_setting(setting: Setting, method: str, values: Mapping[str, Any]) -> Setting:
    """The setup with what a method's configuration says of the search, unless it was asked for."""
    own = _yaml(f"method/{method}.yaml").get("search", {})
    numbers = {key: value for key, value in own.items() if not isinstance(value, str)}
    if values["search_epochs"]:
        numbers.pop("epochs", None)
    return replace(setting, search={**setting.search, **numbers})


def is_joint(method: str) -> bool:
    """Whether the search's own network is a result."""
    cls = methods.find(method)
    return issubclass(cls, SearchMethod) and cls.test is not SearchMethod.test


def val_fraction_of(method: str) -> float:
    """The share of the training images on which a method's configuration validates."""
    own = _yaml(f"method/{method}.yaml").get("search", {})
    return float(own.get("val_fraction", _yaml("config.yaml")["search"]["val_fraction"]))


def search(job: tuple[Setting, str, dict[str, Any], int]) -> Found:
    """One search, with the settings of a configuration."""
    setting, name, method, seed = job
    torch.set_num_threads(1)
    start = time.perf_counter()
    joint = is_joint(method["name"])
    setup = setting.setup(seed, setting.predefined, val_fraction_of(name))
    sgd = setting.evaluation if joint else setting.search
    found = search_through(setup, sgd, method, trial_settings(name, method, sgd))
    seconds = time.perf_counter() - start
    # in epochs over all training images, whatever part of them the search trains on
    share = len(setup.search_splits()[0]) / len(setting.data.train)
    cost = found.metrics["epoch_equivalents"] * share
    return Found(found.policy, found.test.get("test_error"), cost, seconds)


def train(job: tuple[Setting, Policy | None, Predefined | None, int]) -> tuple[float, float]:
    """Test error, in percent, of one training from scratch, and its seconds."""
    setting, policy, predefined, seed = job
    torch.set_num_threads(1)
    start = time.perf_counter()
    setup = setting.setup(seed, predefined or Predefined())
    training = Training(setup, setting.evaluation, policy, predefined is not None)
    while training.epoch < training.epochs:
        training.step()
    return training.test()["test_error"], time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    values = arguments(DEFAULTS)
    if values["seeds"] < 2:
        raise RaysearchError("seeds=N: at least 2, so that there is a spread")
    setting, seeds = setting_of(values), range(values["seeds"])
    names = [name for name in values["method"].split(",") if name]
    chosen = {name: method_settings({**values, "method": name}) for name in names}
    given = setting.predefined
    known = methods.augmentations(given, setting.data.size)
    for name, settings in chosen.items():
        if methods.find(settings["name"]).known(settings) is not None:
            raise RaysearchError(f"method={name}: there is nothing to search; see policies=")
    rows = {}
    for name in (name for name in values["policies"].split(",") if name):
        if name not in known:
            raise unknown("policy", name, known)
        if name in chosen:
            raise RaysearchError(f"{name} is both a method and a policy to compare it with")
        rows[name] = known[name]
    with ProcessPoolExecutor(values["workers"], initializer=keep_freed_memory) as pool:
        jobs = [
            (name, (own_setting(setting, name, values), name, method, seed))
            for name, method in chosen.items()
            for seed in (seeds if is_joint(method["name"]) else range(values["search_seeds"]))
        ]
        results = list(pool.map(search, [job for _, job in jobs]))
        found: dict[str, list[Found]] = {name: [] for name in names}
        for (name, _), result in zip(jobs, results, strict=True):
            found[name].append(result)
        for name, searches in found.items():
            learned = type(searches[0].policy).merge([one.policy for one in searches])
            accompanying = methods.find(chosen[name]["name"]).predefined(given, setting.data.size)
            rows[name] = (learned, accompanying)
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
