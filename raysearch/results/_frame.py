"""The frame: everything that was measured, a row a trial; page, table, files and MLflow read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from torch import Tensor

from raysearch.policy import Policy
from raysearch.tasks import Metric
from raysearch.trials import COSTS, TrialInfo, TrialResult

TRIAL = ("trial", "method", "stage", "name", "policy", "seed", "search_seed", "epochs")
"""What trials are known by, in both frames."""
TYPES = {
    **dict.fromkeys((*TRIAL, "error"), "string"),
    **dict.fromkeys(("seed", "search_seed"), "Int64"),
    **dict.fromkeys(("epochs", "epoch"), "int64"),
}


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

    def uniform_shares(self) -> dict[str, float]:
        """Each operation's share in the uniform policy, all alike where that is not known."""
        shares = self.policy.marginals()
        if not self.uniform or set(shares) - set(self.uniform):  # of other operations
            return {name: 1 / len(shares) for name in shares}
        return dict(self.uniform) if shares else {}


@dataclass(frozen=True)
class Measured:
    """Everything that was measured in an experiment.

    Attributes:
        name: the experiment's.
        folder: where its files are.
        metric: what networks are judged by.
        methods: what there is of each method, by its name.
        trials: that have ended, searches and evaluations; see `frame`.
        history: of their epochs; see `history`.
        configuration: the settings that all methods share, plain values.
        classes: names of the classes.
        images: how many there are: `train`, `val` (0 where the data have none of their own),
            `test`, and `skipped` as unreadable; None: not known.
        notes: what was noticed when they were read, a sentence each.
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
    trials: pd.DataFrame
    history: pd.DataFrame
    configuration: Mapping[str, Any] = field(default_factory=dict)
    classes: Sequence[str] = ()
    images: Mapping[str, int] | None = None
    notes: Sequence[str] = ()
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


def frame(results: Sequence[TrialResult]) -> pd.DataFrame:
    """A row a trial.

    Columns: `trial` (its id), `method`, `stage` (shared, search or evaluation), `name`, `policy`
    (the row that it is an evaluation for), `seed`, `search_seed`, `epochs`, `error` (why it
    failed), `test_<metric>` and what else was tested, `wall_seconds`, `device_seconds`,
    `epoch_equivalents`. The costs of a search hold those of the shared training that it began with.
    """
    rows = [
        {
            **_known(result.trial),
            "error": result.error,
            **{key: figure for key, figure in result.metrics.items() if key.startswith("test_")},
            **{cost: getattr(result, cost) for cost in COSTS},
        }
        for result in results
    ]
    return _typed(rows, ["error"], COSTS)


def history(results: Sequence[TrialResult]) -> pd.DataFrame:
    """A row a trial and epoch: the trial as in `frame`, `epoch` from 1, a column a figure."""
    rows = [
        {**_known(result.trial), **record, "epoch": int(record["epoch"])}
        for result in results
        for record in result.history
    ]
    return _typed(rows, ["epoch"], ())


def searches(table: pd.DataFrame, method: str) -> pd.DataFrame:
    """The rows of a method's searches, in a frame or a history."""
    return table[(table["method"] == method) & (table["stage"] == "search")]


def _known(trial: TrialInfo) -> dict[str, Any]:
    return {"trial": trial.id, **{key: getattr(trial, key) for key in TRIAL[1:]}}


def _typed(
    rows: Sequence[Mapping[str, Any]], own: Sequence[str], last: Sequence[str]
) -> pd.DataFrame:
    """A frame whose columns have their types also where one, or all, are empty.

    Args:
        rows: by column.
        own: columns that follow those of the trial.
        last: columns at the end, after what else there is.
    """
    first = [*TRIAL, *own]
    others = dict.fromkeys(key for row in rows for key in row if key not in (*first, *last))
    columns = [*first, *others, *last]
    types = {**dict.fromkeys(columns, "float64"), **{c: TYPES[c] for c in first}}
    return pd.DataFrame(rows, columns=columns).astype(types)
