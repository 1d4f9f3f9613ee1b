"""Writes an experiment's files, each whole or not at all, and reads them back."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from raysearch.errors import RaysearchError
from raysearch.files import write_whole
from raysearch.policy import Policy, read_policy
from raysearch.results._augmented import augmented_png
from raysearch.results._cost_figure import cost_png
from raysearch.results._curves import curves_png, policy_png
from raysearch.results._export import csv_table, latex_table
from raysearch.results._frame import (
    Measured,
    MethodMeasured,
    searches,
)
from raysearch.results._page import page
from raysearch.results._statements import asked
from raysearch.results._summary import KEPT, KEPT_OF_METHOD, summarise
from raysearch.tasks import Metric

PAGE = "report.html"
SUMMARY = "summary.json"
TRIALS = "trials.parquet"
HISTORY = "history.parquet"
NEEDED = (SUMMARY, TRIALS, HISTORY, "policy.json", "policies")
"""What `read` reads; only one of the last two has the policies of an experiment's methods."""
PICTURES = ("augmented.png", "pictures")
"""What it reads where it is there."""


def write(folder: Path, measured: Measured) -> dict[str, Any]:
    """Write what an experiment leaves behind.

    These files: the policies, `trials.parquet` and `history.parquet` (see `frame`, `history`),
    `table.csv`, `table.tex`, the pictures, `report.html` and, last, `summary.json`, so its presence
    says that the others are there. All contents are made before the first is written.

    Args:
        folder: exists.
        measured: what was measured.

    Returns:
        The summary, as `summary.json` holds it.

    Raises:
        RaysearchError: a file cannot be written; those before it are whole.
    """
    summary = summarise(measured)
    drawn = pictures(measured)
    cost = cost_png(summary)
    files = {
        TRIALS: measured.trials.to_parquet(compression="zstd", index=False),
        HISTORY: measured.history.to_parquet(compression="zstd", index=False),
        "table.csv": csv_table(summary).encode(),
        "table.tex": latex_table(summary).encode(),
        **{
            picture_file(name, method, measured.several): content
            for method, own in drawn.items()
            for name, content in own.items()
            if content is not None and name != "curves"
        },
        **({"cost_error.png": cost} if cost else {}),
        PAGE: page(summary, measured, drawn, cost),
        SUMMARY: (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode(),
    }
    for name, method in measured.methods.items():
        write_policies(folder, name, method.policy, method.seed_policies, measured.asked)
    for name, content in files.items():
        with _writing(folder / name) as path:
            write_whole(path, content)
    return summary


def write_policies(
    folder: Path, method: str, policy: Policy, seed_policies: Mapping[int, Policy], methods: int
) -> None:
    """Write what a method hands over, see `policy_file`, and what each of its searches found.

    The latter go to `policies/<method>/seed-<seed>.json`.

    Raises:
        RaysearchError: a file cannot be written.
    """
    places = {f"policies/{method}/seed-{seed}.json": own for seed, own in seed_policies.items()}
    for name, each in {policy_file(method, methods): policy, **places}.items():
        with _writing(folder / name) as path:
            each.save(path)


def policy_file(method: str, methods: int) -> str:
    """Where in an experiment's folder the policy of one of so many methods is."""
    return "policy.json" if methods == 1 else f"policies/{method}.json"


def pictures(measured: Measured) -> dict[str, dict[str, bytes | None]]:
    """PNG files of each method that does something to images.

    `policy` shows the policy over its search, `curves` how the search went, `augmented` images
    before and after; None where there is nothing to show.
    """
    found: dict[str, dict[str, bytes | None]] = {}
    for name, method in measured.methods.items():
        search, uniform = searches(measured.history, name), method.uniform_shares()
        tested = searches(measured.trials, name).filter(like="test_")
        if measured.several and not (uniform or method.policy.parameters()):
            continue
        drawn = method.picture
        if measured.samples is not None and len(measured.samples) > 0:
            drawn = augmented_png(method.policy, measured.samples)
        found[name] = {
            "policy": policy_png(search, method.policy, uniform),
            "curves": curves_png(search, bool(tested.notna().any(axis=None))),
            "augmented": drawn,
        }
    return found


def read(folder: Path) -> Measured:
    """A finished experiment, as `write` has left it in a folder; without sample images.

    Raises:
        RaysearchError: there is none, or it cannot be read.
    """
    try:
        summary = json.loads((folder / SUMMARY).read_text())
        trials = pd.read_parquet(folder / TRIALS)
        epochs = pd.read_parquet(folder / HISTORY)
    except (OSError, ValueError, RecursionError) as error:
        raise RaysearchError(f"{folder} holds no finished run that can be read: {error}") from None
    summary = {"notes": (), **summary} if isinstance(summary, dict) else {}  # older: without
    try:
        return Measured(
            name=summary["name"],
            folder=str(folder),
            metric=Metric(**summary["metric"]),
            methods={
                name: _method(folder, name, found, asked(summary))
                for name, found in summary["methods"].items()
            },
            trials=trials,
            history=epochs,
            size=tuple(summary["size"]) if summary["size"] else None,
            failed=summary["failed_methods"],
            **{key: summary[key] for key in KEPT},
        )
    except KeyError as error:
        where = folder / SUMMARY
        raise RaysearchError(f"{where} is not a run's summary: it has no {error}") from None


def _method(folder: Path, name: str, found: Mapping[str, Any], methods: int) -> MethodMeasured:
    own = folder / "policies" / name
    files = {int(path.stem.removeprefix("seed-")): path for path in own.glob("seed-*.json")}
    picture = folder / picture_file("augmented", name, methods > 1)
    return MethodMeasured(
        policy=read_policy(folder / policy_file(name, methods)),
        seed_policies={seed: read_policy(files[seed]) for seed in sorted(files)},
        uniform=found["policy"]["uniform"],
        wall_seconds=found["search"]["wall_seconds"],
        **{key: found[key] for key in KEPT_OF_METHOD},
        picture=picture.read_bytes() if picture.is_file() else None,
    )


def picture_file(picture: str, method: str, several: bool) -> str:
    """Where in an experiment's folder a picture of a method is; whether it is one of several."""
    return f"pictures/{method}-{picture}.png" if several else f"{picture}.png"


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[Path]:
    """Makes its folder; a failure to write the file is one line."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield path
    except OSError as error:
        raise RaysearchError(f"cannot write {path}: {error.strerror or error}") from None
