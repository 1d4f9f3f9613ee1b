"""What a run keeps of its stages: the policies that a search found, and the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raysearch.cli._folder import RunFolder
from raysearch.cli._plan import Plan
from raysearch.cli._stages import Searched, keep_networks
from raysearch.data import Split, rank_in_class
from raysearch.policy import Policy, read_policy
from raysearch.report import write_report
from raysearch.tracking import Tracker, TrialInfo, TrialResult
from raysearch.tune import Outcome

SAMPLES = 64  # images handed to the report, to show before and after


@dataclass(frozen=True)
class Found:
    """What a run's searches found.

    Attributes:
        searched: the trials that searched.
        policies: each one's own policy, by its seed.
        learned: the run's policy.
    """

    searched: Searched
    policies: dict[int, Policy]
    learned: Policy


def settle(folder: RunFolder, plan: Plan, searched: Searched) -> Found:
    """Keep what searches found, as files in the run's folder."""
    policies = _keep_policies(folder.path, searched.trials)
    keep_networks(folder.path / "networks", searched.trials)
    found = list(policies.values())
    learned = plan.known() or type(found[0]).merge(found)
    learned.save(folder.path / "policy.json")
    return Found(searched, policies, learned)


def report(
    folder: RunFolder,
    plan: Plan,
    found: Found,
    evaluated: Sequence[Outcome[TrialInfo]],
    tracker: Tracker | None,
) -> dict[str, Any]:
    """Write the run's report; returns its summary."""
    uniform = plan.uniform()
    shared, searches, evaluations = (
        [_result(outcome) for outcome in outcomes]
        for outcomes in (found.searched.shared, found.searched.trials, evaluated)
    )
    if tracker is not None:
        tracker.complete([*shared, *searches, *evaluations])
    return write_report(
        folder.path,
        name=folder.path.name,
        config=folder.configuration.values,
        policy=found.learned,
        seed_policies=found.policies,
        shared=shared,
        search=searches,
        evaluations=evaluations,
        samples=_samples(plan.dataset.train),
        classes=plan.dataset.classes,
        wall_seconds=_seconds(folder),
        tracking=tracker.location() if tracker else None,
        images=plan.dataset.counts,
        guess_error=plan.dataset.guess_error,
        predefined=asdict(plan.accompanying()),
        uniform=uniform.marginals() if uniform else None,
        row=plan.row(),
    )


def _keep_policies(folder: Path, found: Sequence[Outcome[TrialInfo]]) -> dict[int, Policy]:
    """Each search seed's own policy, by its seed; also as files."""
    policies: dict[int, Policy] = {}
    (folder / "policies").mkdir(exist_ok=True)
    for outcome in found:
        assert outcome.policy is not None
        policy = read_policy(outcome.policy)
        policy.save(folder / "policies" / f"seed-{outcome.trial.seed}.json")
        policies[outcome.trial.seed] = policy
    return policies


def _seconds(folder: RunFolder) -> dict[str, float]:
    """Wall time by stage; what a search begins with is a part of it."""
    seconds = dict(folder.state["seconds"])
    shared = seconds.pop("shared", 0.0)
    return {**seconds, "search": seconds.get("search", 0.0) + shared}


def _samples(split: Split) -> Tensor:
    """Some images of the train split, the first of each class first, uint8 [N, C, H, W]."""
    chosen = split.subset(rank_in_class(split.targets).argsort(stable=True)[:SAMPLES])
    images, _, _ = next(chosen.batches(SAMPLES, device=torch.device("cpu"), generator=None))
    return images


def _result(outcome: Outcome[TrialInfo]) -> TrialResult:
    progress = outcome.progress
    return TrialResult(
        trial=outcome.trial,
        history=progress.history,
        metrics=progress.metrics,
        wall_seconds=progress.wall_seconds,
        device_seconds=progress.device_seconds,
        epoch_equivalents=progress.metrics.get("epoch_equivalents", 0.0),
    )
