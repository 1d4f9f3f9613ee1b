"""Writes what a run leaves behind, each file whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from raysearch.errors import RaysearchError
from raysearch.files import write_whole
from raysearch.policy import Policy
from raysearch.report._augmented import augmented_png
from raysearch.report._curves import curves_png, policy_png
from raysearch.report._history import history_parquet
from raysearch.report._html import report_html
from raysearch.report._summary import summarise
from raysearch.tracking import TrialResult


def write_report(
    run_dir: Path,
    *,
    name: str,
    config: Mapping[str, Any],
    policy: Policy,
    seed_policies: Mapping[int, Policy],
    search: Sequence[TrialResult],
    evaluations: Sequence[TrialResult],
    samples: Tensor,
    classes: Sequence[str],
    wall_seconds: Mapping[str, float],
    tracking: Mapping[str, str] | None = None,
    images: Mapping[str, int] | None = None,
    guess_error: float | None = None,
    shared: Sequence[TrialResult] = (),
    predefined: Mapping[str, Any] | None = None,
    uniform: Mapping[str, float] | None = None,
    row: str = "learned",
) -> dict[str, Any]:
    """Write `policy.json`, `history.parquet`, both pictures, `report.html` and `summary.json`.

    All contents are made before the first is written, and `summary.json` comes last, so its
    presence says that the others are there. Each search seed's own policy goes to
    `policies/seed-<seed>.json`.

    Args:
        run_dir: an existing folder.
        name: the run's name.
        config: the composed configuration, plain values.
        policy: what the search found, over all its seeds.
        seed_policies: what each search seed found.
        search: the search's trials; one whose metrics hold `test_error` trained a network that is
            a result, and is paired with the evaluations by seed like these among themselves.
        evaluations: the evaluations' trials; paired by seed.
        samples: training images for the picture, uint8 [N, C, H, W], C 1 or 3; 8 are used.
        classes: names of the classes.
        wall_seconds: wall time by stage: `search`, `evaluation`, `total` as far as known.
        tracking: `Tracker.location()`, when the run is tracked.
        images: how many there are: `train`, `val` (0 where the data have none of their own),
            `test`, and `skipped` as unreadable.
        guess_error: of always naming the most frequent class, in percent; None: not known.
        shared: the trainings with which the searches began, whose costs are in theirs.
        predefined: fields of `Predefined`, what goes with the learned policy; None is the
            configuration's `data.predefined`.
        uniform: each operation's share in the uniform policy; None is all alike.
        row: the name of `policy` among the evaluations.

    Returns:
        The summary, as `summary.json` holds it.

    Raises:
        RaysearchError: a file cannot be written; those before it are whole.
    """
    summary = summarise(
        run_dir,
        name=name,
        config=config,
        policy=policy,
        search=search,
        evaluations=evaluations,
        classes=classes,
        wall_seconds=wall_seconds,
        tracking=tracking,
        images=images,
        guess_error=guess_error,
        predefined=predefined,
        uniform=uniform,
        row=row,
    )
    pictures = {
        "policy": policy_png(search, policy, summary["policy"]["uniform"]),
        "augmented": augmented_png(policy, samples),
    }
    report = report_html(
        summary, policy, {**pictures, "curves": curves_png(search)}, samples.shape[2:]
    )
    policies = {"policy.json": policy}
    policies |= {f"policies/seed-{seed}.json": own for seed, own in seed_policies.items()}
    files = {
        "history.parquet": history_parquet([*shared, *search, *evaluations]),
        **{f"{picture}.png": content for picture, content in pictures.items()},
        "report.html": report,
        "summary.json": (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode(),
    }
    _write_all(run_dir, policies, files)
    return summary


def _write_all(run_dir: Path, policies: Mapping[str, Policy], files: Mapping[str, bytes]) -> None:
    """Write the policies, then the files, each whole; raises RaysearchError naming the one."""
    file = ""
    try:
        for file, each in policies.items():
            (run_dir / file).parent.mkdir(exist_ok=True)
            each.save(run_dir / file)
        for file, content in files.items():
            write_whole(run_dir / file, content)
    except OSError as error:
        raise RaysearchError(f"cannot write {run_dir / file}: {error.strerror or error}") from None
