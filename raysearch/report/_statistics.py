"""Means, standard deviations and paired confidence intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from scipy import stats

from raysearch.tracking import TrialResult

CONFIDENCE = 0.95
BASELINES = (
    "none",
    "predefined",
    "cutout",
    "trivial_augment",
    "randaugment",
    "autoaugment_cifar10",
    "autoaugment_imagenet",
    "autoaugment_svhn",
    "uniform",
)
"""Policies that need no search, in the order in which they are shown."""
LEARNED = "learned"
"""The row of the policy that a search found."""
JOINT = "joint"
"""The row of errors of the network that the search itself trained."""


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n − 1); None for the latter with fewer than two."""
    return fmean(values), (stdev(values) if len(values) > 1 else None)


def paired_difference(
    values: Mapping[int, float], baseline: Mapping[int, float], confidence: float = CONFIDENCE
) -> dict[str, Any] | None:
    """Mean of `values − baseline` over the seeds that both have, with Student's t interval.

    Args:
        values: seed → value.
        baseline: seed → value.
        confidence: probability that the interval covers the true mean difference, for normally
            distributed differences.

    Returns:
        `mean`, `low`, `high` (None with fewer than two seeds), `confidence` and `seeds`, the
        number of pairs; None when no seed is in both.
    """
    seeds = sorted(values.keys() & baseline.keys())
    if not seeds:
        return None
    mean, deviation = spread([values[seed] - baseline[seed] for seed in seeds])
    low = high = None
    if deviation is not None:
        quantile = float(stats.t.ppf((1 + confidence) / 2, df=len(seeds) - 1))
        half = quantile * deviation / math.sqrt(len(seeds))
        low, high = mean - half, mean + half
    return {
        "mean": mean,
        "low": low,
        "high": high,
        "confidence": confidence,
        "seeds": len(seeds),
    }


def errors_by_row(
    search: Sequence[TrialResult], evaluations: Sequence[TrialResult]
) -> dict[str, dict[int, float]]:
    """Test errors in percent, row → seed → error; failed trials are left out.

    A row is an evaluated policy, or `JOINT` where searches end with a test of their own network.
    """
    errors: dict[str, dict[int, float]] = {}
    for result in (*evaluations, *search):
        row = JOINT if result.trial.stage == "search" else str(result.trial.policy)
        error = result.metrics.get("test_error")
        if result.error is None and error is not None and math.isfinite(error):
            errors.setdefault(row, {})[result.trial.seed] = float(error)
    return {name: dict(sorted(runs.items())) for name, runs in errors.items()}


def differences(
    errors: Mapping[str, Mapping[int, float]], row: str, others: Sequence[str]
) -> dict[str, Any]:
    """`row` minus each of the others that there are, paired by seed; see `paired_difference`."""
    own = errors.get(row, {})
    found = {name: paired_difference(own, errors.get(name, {})) for name in others}
    return {name: difference for name, difference in found.items() if difference is not None}


def entropy_and_kl(
    shares: Mapping[str, float], uniform: Mapping[str, float]
) -> tuple[float, float | None]:
    """Entropy of operation shares and their KL divergence from the uniform policy's, in nats.

    Args:
        shares: of the policy.
        uniform: of the uniform policy; the divergence is None where it lacks an operation.
    """
    positive = {name: share for name, share in shares.items() if share > 0}
    entropy = -math.fsum(share * math.log(share) for share in positive.values())
    if not all(uniform.get(name) for name in positive):
        return entropy, None
    terms = (share * math.log(share / uniform[name]) for name, share in positive.items())
    return entropy, max(0.0, math.fsum(terms))


def levels(uniform: Mapping[str, float]) -> list[float]:
    """The different shares, in percent to a tenth, that operations have in the uniform policy."""
    return sorted({round(100 * share, 1) for share in uniform.values()})
