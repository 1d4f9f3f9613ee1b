"""summary.json: an experiment's figures, as all that shows them reads them."""

from __future__ import annotations

import contextlib
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import pandas as pd
from pydantic_core import from_json, to_json

from raysearch import __version__
from raysearch.policy import Policy
from raysearch.results._frame import Measured, MethodMeasured
from raysearch.results._frame import searches as searches_of
from raysearch.results._race import Race, races
from raysearch.results._rows import table_of
from raysearch.results._statistics import entropy_and_kl
from raysearch.trials import COSTS

KEPT = (
    "classes",
    "images",
    "notes",
    "guess",
    "wall_seconds",
    "tracking",
    "joined",
    "configuration",
)
"""Fields of `Measured` that a summary holds as they are."""
KEPT_OF_METHOD = ("row", "predefined", "tracking", "folder", "configuration")
"""The same of `MethodMeasured`."""
PACKAGES = ("torch", "torchvision", "ray", "mlflow", "kornia", "optuna")


def summarise(measured: Measured) -> dict[str, Any]:
    """The summary of an experiment, in plain values; not-a-number and infinity are null.

    Keys:
        name, created, directory, configuration, classes, images, versions, wall_seconds, tracking,
            joined: of the experiment.
        metric: `name`, `unit`, `label`, `lower_is_better`; `guess` is that of always predicting
            the same.
        rows, errors, differences, plain_training, front, steps: see `table_of`; differences in the
            metric's unit, own row minus the other.
        methods: of each its `row`, `policy` in figures, `predefined`, `configuration`, `searches`
            (their seeds), `search`, their cost in `COSTS` as measured, and `kl_uniform`, how far
            from all alike their choices ended, see `_kl_uniform`.
        search: the same cost over all methods.
        evaluations: for each row that was trained the cost of its trainings, summed and by seed.
        seeds: `search` and `evaluation`.
        failed: trials that failed, and why; `failed_methods`, methods that could not go on.
    """
    table = measured.trials
    searches = table[table["stage"] == "search"]
    evaluations = table[table["stage"] == "evaluation"].sort_values("seed", kind="stable")
    total = _cost(searches)
    wall = measured.wall_seconds.get("search", total["wall_seconds"])
    failed = table[table["error"].notna()]
    summary = {
        "name": measured.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "directory": measured.folder,
        "metric": asdict(measured.metric),
        **table_of(measured),
        "methods": {
            name: _method(
                method,
                searches[searches["method"] == name],
                _kl_uniform(measured.history, name),
                races(searches_of(measured.history, name), measured.metric),
            )
            for name, method in measured.methods.items()
        },
        "search": {**total, "wall_seconds": wall},
        "evaluations": {
            name: {**_cost(trials), "runs": trials[["seed", *COSTS]].to_dict("records")}
            for name, trials in evaluations.groupby("policy", sort=False)
        },
        "failed": [
            {"trial": name, "error": error}
            for name, error in failed[["name", "error"]].itertuples(index=False)
        ],
        "failed_methods": measured.failed,
        "seeds": {
            "search": sorted({int(seed) for seed in searches["seed"]}),
            "evaluation": sorted({int(seed) for seed in evaluations["seed"]}),
        },
        "size": measured.image_size,
        "versions": _versions(),
        **{key: getattr(measured, key) for key in KEPT},
    }
    text = to_json(summary, inf_nan_mode="null", fallback=str)
    found: dict[str, Any] = from_json(text)
    return found


def _cost(trials: Any) -> dict[str, float]:
    """Summed over trials."""
    return {cost: math.fsum(trials[cost]) for cost in COSTS}


def _kl_uniform(history: pd.DataFrame, method: str) -> float | None:
    """The largest KL divergence, in nats, with which a search of the method has ended.

    That of its choices from where all are alike; None where it tells of none.
    """
    if "kl_uniform" not in history:
        return None
    last = searches_of(history, method).groupby("trial")["kl_uniform"].last()
    return None if last.isna().all() else float(last.max())


def _method(
    method: MethodMeasured, searches: Any, kl_uniform: float | None, raced: Sequence[Race]
) -> dict[str, Any]:
    cost = _cost(searches)
    return {
        "kl_uniform": kl_uniform,
        "races": [asdict(race) for race in raced],
        "searches": sorted({int(seed) for seed in searches["seed"]}),
        "search": {**cost, "wall_seconds": method.wall_seconds or cost["wall_seconds"]},
        "policy": policy_figures(method.policy, method.uniform_shares()),
        **{key: getattr(method, key) for key in KEPT_OF_METHOD},
    }


def policy_figures(policy: Policy, uniform: Mapping[str, float]) -> dict[str, Any]:
    """A policy in figures, the mean over a training of one that changes."""
    shares = policy.marginals()
    entropy, kl_uniform = entropy_and_kl(shares, uniform) if shares else (None, None)
    return {
        "kind": policy.kind,
        "operations": shares,
        "uniform": uniform,
        "operations_per_image": policy.operations_per_image(),
        "operation_entropy": entropy,  # of the shares; history has that of the policy
        "operation_kl_uniform": kl_uniform,
        "parameters": {
            name: {"mean": mean, "std": std} for name, (mean, std) in policy.parameters().items()
        },
        "description": policy.describe(4),
        "phases": len(policy.moments()),  # of a training, each with a policy of its own
    }


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {
        "raysearch": __version__,
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        versions[package] = None
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions
