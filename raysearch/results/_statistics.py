"""Means, standard deviations and paired confidence intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


def mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n − 1); None for the latter with fewer than two."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def paired_difference(
    values: Mapping[int, float], reference: Mapping[int, float], confidence: float = CONFIDENCE
) -> dict[str, Any] | None:
    """Mean of `values − reference` over the seeds that both have, with Student's t interval.

    Args:
        values: seed → value.
        reference: seed → value.
        confidence: probability that the interval covers the true mean difference, for normally
            distributed differences.

    Returns:
        `mean`, `low`, `high` (None with fewer than two seeds), `confidence` and `seeds`, the
        number of pairs; None when no seed is in both.
    """
    seeds = sorted(values.keys() & reference.keys())
    if not seeds:
        return None
    mean, std = mean_and_std([values[seed] - reference[seed] for seed in seeds])
    low = high = None
    if std is not None:
        half = float(stats.t.ppf((1 + confidence) / 2, df=len(seeds) - 1)) * std
        low, high = mean - half / math.sqrt(len(seeds)), mean + half / math.sqrt(len(seeds))
    return {
        "mean": mean,
        "low": low,
        "high": high,
        "confidence": confidence,
        "seeds": len(seeds),
    }


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
