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
from raysearch.report._costs import evaluation_costs, relative_costs, total_cost
from raysearch.report._statistics import (
    BASELINES,
    JOINT,
    LEARNED,
    differences,
    entropy_and_kl,
    errors_by_row,
    spread,
)
from raysearch.tracking import TrialResult

PACKAGES = ("torch", "torchvision", "ray", "mlflow", "kornia", "optuna")


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
    images: Mapping[str, int] | None,
    guess_error: float | None,
    predefined: Mapping[str, Any] | None,
    uniform: Mapping[str, float] | None,
    row: str,
) -> dict[str, Any]:
    """The summary; see `write_report` for the arguments.

    Errors are in percent, under the policy's name or, of the network that a search trained itself,
    under `joint`. Differences are in percentage points, negative is better: `differences` is the
    run's policy (`row`) minus each baseline, `joint_differences` the jointly trained network minus
    each baseline and the learned policy. `std` is the sample standard deviation and None for a
    single run, `device_seconds` are wall seconds times the share of the device held, over trials,
    and `epoch_equivalents` count one plain training epoch on the search split as 1.
    `guess_error` is that of always naming the most frequent class, in percent. `relative_cost` is
    the whole cost of each row, searches included, over that of one training with the policy
    `plain_training`.
    """
    errors = errors_by_row(search, evaluations)
    plain, relative = relative_costs(search, evaluations, errors)
    cost = total_cost(search)
    summary = {
        "name": name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "directory": str(run_dir),
        "search": {**cost, "wall_seconds": wall_seconds.get("search", cost["wall_seconds"])},
        "evaluations": evaluation_costs(evaluations),
        "errors": {name: _error(runs) for name, runs in errors.items()},
        "row": row,
        "differences": differences(errors, row, [name for name in BASELINES if name != row]),
        "joint_differences": differences(errors, JOINT, (*BASELINES, LEARNED)),
        "relative_cost": relative,
        "plain_training": plain,
        "policy": _policy(policy, uniform),
        "predefined": _predefined(config) if predefined is None else predefined,
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
        "images": images,
        "guess_error": guess_error,
        "wall_seconds": dict(wall_seconds),
        "tracking": dict(tracking) if tracking is not None else None,
        "versions": _versions(),
        "configuration": config,
    }
    result = _plain(summary)
    assert isinstance(result, dict)
    return result


def _policy(policy: Policy, uniform: Mapping[str, float] | None) -> dict[str, Any]:
    """The policy in figures, the mean over a training of one that changes."""
    shares = policy.marginals()
    if not uniform or set(shares) - set(uniform):  # of other operations
        uniform = {name: 1 / len(shares) for name in shares}
    entropy, kl_uniform = entropy_and_kl(shares, uniform) if shares else (None, None)
    return {
        "operations": shares,
        "uniform": dict(uniform) if shares else {},
        "operations_per_image": policy.operations_per_image(),
        "operation_entropy": entropy,  # of the shares; history has that of the policy
        "operation_kl_uniform": kl_uniform,
        "parameters": {
            name: {"mean": mean, "std": deviation}
            for name, (mean, deviation) in policy.parameters().items()
        },
        "description": policy.describe(4),
        "phases": len(policy.moments()),  # of a training, each with a policy of its own
    }


def _predefined(config: Mapping[str, Any]) -> Any:
    """The data's predefined augmentation."""
    return config.get("data", {}).get("predefined") or {}


def _error(runs: Mapping[int, float]) -> dict[str, Any]:
    mean, deviation = spread(list(runs.values()))
    return {"mean": mean, "std": deviation, "runs": list(runs.values()), "seeds": list(runs)}


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
