"""summary.json: a run's figures, as everything else that reports about it reads them."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from raysearch import __version__
from raysearch.policy import Policy
from raysearch.report._statistics import (
    BASELINES,
    entropy_and_kl,
    errors_by_policy,
    paired_difference,
    spread,
)
from raysearch.tracking import TrialResult

PACKAGES = ("torch", "torchvision", "ray", "mlflow", "kornia", "optuna")
COSTS = ("wall_seconds", "device_seconds", "epoch_equivalents")


def summarise(
    run_dir: Path,
    *,
    name: str,
    config: Mapping[str, Any],
    policy: Policy,
    search: Sequence[TrialResult],
    evaluations: Sequence[TrialResult],
    classes: Sequence[str],
    wall_seconds: Mapping[str, float],
    tracking: Mapping[str, str] | None,
) -> dict[str, Any]:
    """The summary; see `write_report` for the arguments.

    Errors are in percent, differences in percentage points (learned minus baseline, negative is
    better), `std` is the sample standard deviation and None for a single run, `device_seconds`
    are wall seconds times the share of the device held, summed over trials, and
    `epoch_equivalents` count one plain training epoch on the search split as 1.
    """
    errors = errors_by_policy(evaluations)
    shares = policy.marginals()
    entropy, kl_uniform = entropy_and_kl(shares)
    cost = _cost(search)
    summary = {
        "name": name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "directory": str(run_dir),
        "search": {**cost, "wall_seconds": wall_seconds.get("search", cost["wall_seconds"])},
        "evaluations": _evaluation_costs(evaluations),
        "errors": {policy_name: _error(runs) for policy_name, runs in errors.items()},
        "differences": _differences(errors),
        "policy": {
            "operations": shares,
            "operations_per_image": policy.operations_per_image(),
            "operation_entropy": entropy,  # of the shares; history has that of the policy
            "operation_kl_uniform": kl_uniform,
        },
        "failed": [
            {"trial": result.trial.name, "error": result.error}
            for result in (*search, *evaluations)
            if result.error is not None
        ],
        "seeds": {
            "search": sorted({result.trial.seed for result in search}),
            "evaluation": sorted({result.trial.seed for result in evaluations}),
        },
        "classes": list(classes),
        "wall_seconds": dict(wall_seconds),
        "tracking": dict(tracking) if tracking is not None else None,
        "versions": _versions(),
        "configuration": config,
    }
    plain = _plain(summary)
    assert isinstance(plain, dict)
    return plain


def _cost(results: Sequence[TrialResult]) -> dict[str, Any]:
    """Cost summed over trials."""
    return {cost: math.fsum(getattr(result, cost) for result in results) for cost in COSTS}


def _evaluation_costs(evaluations: Sequence[TrialResult]) -> dict[str, Any]:
    """Per policy the cost of its evaluations: summed over the seeds, and of each seed."""
    groups: dict[str, list[TrialResult]] = {}
    for result in evaluations:
        groups.setdefault(str(result.trial.policy), []).append(result)
    return {
        name: {
            **_cost(results),
            "runs": [
                {"seed": result.trial.seed, **{c: getattr(result, c) for c in COSTS}}
                for result in sorted(results, key=lambda result: result.trial.seed)
            ],
        }
        for name, results in groups.items()
    }


def _error(runs: Mapping[int, float]) -> dict[str, Any]:
    mean, deviation = spread(list(runs.values()))
    return {"mean": mean, "std": deviation, "runs": list(runs.values()), "seeds": list(runs)}


def _differences(errors: Mapping[str, Mapping[int, float]]) -> dict[str, Any]:
    """Learned minus each baseline, paired by seed."""
    learned = errors.get("learned", {})
    found = {name: paired_difference(learned, errors.get(name, {})) for name in BASELINES}
    return {name: difference for name, difference in found.items() if difference is not None}


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {
        "raysearch": __version__,
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def _plain(value: Any) -> Any:
    """`value` in JSON's terms: not a number and infinity become null, others their text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return str(value)
