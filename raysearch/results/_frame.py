"""The frame: everything that was measured, a row a trial; page, table, files and MLflow read it."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from torch import Tensor

from raysearch.policy import Policy
from raysearch.tasks import Metric
from raysearch.trials import COSTS, TrialInfo, TrialResult

TRIAL = ("trial", "method", "stage", "name", "policy", "seed", "search_seed", "epochs")
"""What trials are known by, in both frames."""
TEXTS = ("trial", "method", "stage", "name", "policy")
SEEDS = ("seed", "search_seed")


@dataclass(frozen=True)
class MethodMeasured:
    """What an experiment has of one method.

    Attributes:
        row: name of its policy's row: `TrialInfo.policy` of the evaluations of the policy that is
            handed over.
        policy: what is handed over: merged from all its searches, or known beforehand.
        seed_policies: what each search found, by its seed; empty where nothing was searched.
        predefined: fields of `Predefined`, what goes with the policy.
        uniform: each operation's share in the uniform policy; None is all alike.
        configuration: the method's own settings; `method` among them, with its `name`.
        wall_seconds: from the start of its first search to the end of its last, beside others'.
        tracking: `Tracker.location()` of the run that holds its figures.
        folder: of the experiment that it comes from, where that is another.
        picture: images before and after, a PNG file, where it was drawn before.
    """

    row: str
    policy: Policy
    seed_policies: Mapping[int, Policy] = field(default_factory=dict)
    predefined: Mapping[str, Any] = field(default_factory=dict)
    uniform: Mapping[str, float] | None = None
    configuration: Mapping[str, Any] = field(default_factory=dict)
    wall_seconds: float = 0.0
    tracking: Mapping[str, str] | None = None
    folder: str | None = None
    picture: bytes | None = None


@dataclass(frozen=True)
class Measured:
    """Everything that was measured in an experiment.

    Attributes:
        name: the experiment's.
        folder: where its files are.
        metric: what networks are judged by.
        methods: what there is of each method, by its name.
        trials: that have ended, searches and evaluations.
        configuration: the settings that all methods share, plain values.
        classes: names of the classes.
        images: how many there are: `train`, `val` (0 where the data have none of their own),
            `test`, and `skipped` as unreadable; None: not known.
        guess: the metric of always predicting the same; None: not known.
        samples: training images for pictures, uint8 [N, C, H, W], C 1 or 3; 8 are shown.
        size: height and width of the images in pixels; None: those of `samples`.
        wall_seconds: wall time by stage: `search`, `evaluation`, `total` as far as known.
        tracking: `Tracker.location()`, when the experiment is tracked.
        failed: why methods could not go on, by their names.
        joined: names of other experiments that are in it.
    """

    name: str
    folder: str
    metric: Metric
    methods: Mapping[str, MethodMeasured]
    trials: Sequence[TrialResult]
    configuration: Mapping[str, Any] = field(default_factory=dict)
    classes: Sequence[str] = ()
    images: Mapping[str, int] | None = None
    guess: float | None = None
    samples: Tensor | None = None
    size: tuple[int, int] | None = None
    wall_seconds: Mapping[str, float] = field(default_factory=dict)
    tracking: Mapping[str, str] | None = None
    failed: Mapping[str, str] = field(default_factory=dict)
    joined: Sequence[str] = ()

    @property
    def asked(self) -> int:
        """How many methods were asked for, those that could not go on among them."""
        return len({*self.methods, *self.failed})

    @property
    def several(self) -> bool:
        """Whether more than one method was asked for."""
        return self.asked > 1

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width of the images in pixels, where they are known."""
        if self.size is not None or self.samples is None:
            return self.size
        height, width = self.samples.shape[2:]
        return height, width

    def searches(self, method: str) -> list[TrialResult]:
        """A method's search trials, by seed."""
        found = [
            result
            for result in self.trials
            if (result.trial.method, result.trial.stage) == (method, "search")
        ]
        return sorted(found, key=lambda result: result.trial.seed)


def frame(measured: Measured) -> pd.DataFrame:
    """A row a trial.

    Columns: `trial` (its id), `method`, `stage` (shared, search or evaluation), `name`, `policy`
    (the row that it is an evaluation for), `seed`, `search_seed`, `epochs`, `error` (why it
    failed), `test_<metric>` and what else was tested, `wall_seconds`, `device_seconds`,
    `epoch_equivalents`. The costs of a search hold those of the shared training that it began with.
    """
    tested = dict.fromkeys(
        key for result in measured.trials for key in result.metrics if key.startswith("test_")
    )
    rows = [
        {
            **_known(result.trial),
            "error": result.error,
            **{key: result.metrics.get(key) for key in tested},
            **{cost: getattr(result, cost) for cost in COSTS},
        }
        for result in measured.trials
    ]
    columns = [*TRIAL, "error", *tested, *COSTS]
    return _typed(pd.DataFrame(rows, columns=columns), ("error",), (*tested, *COSTS))


def history(measured: Measured) -> pd.DataFrame:
    """A row a trial and epoch: the trial as in `frame`, `epoch` from 1, a column a figure."""
    rows = [
        {**_known(result.trial), **record, "epoch": int(record["epoch"])}
        for result in measured.trials
        for record in result.history
    ]
    figures = dict.fromkeys(
        key for result in measured.trials for record in result.history for key in record
    )
    numbers = [key for key in figures if key != "epoch"]
    found = _typed(pd.DataFrame(rows, columns=[*TRIAL, "epoch", *numbers]), (), numbers)
    return found.astype({"epoch": "int64"})


def parquet(table: pd.DataFrame) -> bytes:
    """A frame as a Parquet file."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, compression="zstd", index=False)
    return buffer.getvalue()


def trials_of(trials: pd.DataFrame, epochs: pd.DataFrame) -> list[TrialResult]:
    """The trials that `frame` and `history` were made of; without their parameters."""
    histories = {name: list(_records(rows)) for name, rows in epochs.groupby("trial", sort=False)}
    return [_result(row, histories.get(row["trial"], [])) for row in trials.to_dict("records")]


def _known(trial: TrialInfo) -> dict[str, Any]:
    return {"trial": trial.id, **{key: getattr(trial, key) for key in TRIAL[1:]}}


def _typed(table: pd.DataFrame, texts: Sequence[str], numbers: Sequence[str]) -> pd.DataFrame:
    """With the types of the columns, also where a column or the table is empty."""
    types = {**dict.fromkeys((*TEXTS, *texts), "string"), **dict.fromkeys(SEEDS, "Int64")}
    return table.astype({**types, "epochs": "int64", **dict.fromkeys(numbers, "float64")})


def _records(rows: pd.DataFrame) -> Iterator[dict[str, float]]:
    for record in rows.drop(columns=list(TRIAL)).to_dict("records"):
        yield {key: float(value) for key, value in record.items() if not math.isnan(value)}


def _result(row: Mapping[str, Any], epochs: list[dict[str, float]]) -> TrialResult:
    known: dict[str, Any] = {key: None if pd.isna(value) else value for key, value in row.items()}
    trial = TrialInfo(known["trial"], **{key: known[key] for key in TRIAL[1:]})
    tested = {
        key: value for key, value in known.items() if key.startswith("test_") and value is not None
    }
    last = epochs[-1] if epochs else {}
    costs = {cost: known[cost] for cost in COSTS}
    return TrialResult(trial, epochs, {**last, **tested}, **costs, error=known["error"])
