"""The rows of the table: every policy and network that was tested, what it cost, what it is worth.

A row is about one of these:

- a baseline, which nobody searched for;
- the policy that is handed over, merged from all searches of its method: its interval is about this
  one policy, and says nothing about what another search would find;
- the method, where every evaluation seed has a search of its own: its interval is about the method;
- the networks that searches trained themselves, one a search: about the method, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations
from typing import Any

import pandas as pd

from raysearch.results._frame import Measured
from raysearch.results._statistics import mean_and_std, paired_difference
from raysearch.results._words import BASELINES, JOINT, label, network_name
from raysearch.tasks import Metric
from raysearch.trials import COSTS

ARITHMETIC, TIME = "epoch_equivalents", "device_seconds"
PLAIN = ("none", "predefined")
"""A training with the first of these that there is costs 1."""
KINDS = ("baseline", "policy", "method", "network")

Cost = dict[str, float]


@dataclass(frozen=True)
class Row:
    """A tested policy, method or network.

    Attributes:
        name: unique in the experiment.
        method: whose it is; the baseline's own name where it is none's.
        kind: one of `KINDS`.
        error: `mean` and `std` of the metric over seeds, None where a seed has failed; `runs`, the
            metric by seed, and `seeds`; `failed`, `seed` and `error` of each that has.
        search: cost of finding what one network needs, in the units of `COSTS`; arithmetic in plain
            epochs over all training images, because methods that validate on other shares of the
            images have other epoch-equivalents.
        training: mean cost of one training with it, in the same units; 0 for a network that its
            search trained.
        searches: how many searches `search` is the cost of.
    """

    name: str
    method: str
    kind: str
    error: Mapping[str, Any]
    search: Cost
    training: Cost
    searches: int

    @property
    def about(self) -> str | None:
        """What its interval is about: "method", "policy", or None for a baseline or one network."""
        if self.kind == "network" and len(self.error["seeds"]) < 2:
            return None
        return {"method": "method", "network": "method", "policy": "policy"}.get(self.kind)

    def by_seed(self) -> dict[int, float]:
        """The metric of every seed; empty where one has failed."""
        if self.error["failed"]:
            return {}
        return dict(zip(self.error["seeds"], self.error["runs"], strict=True))


def make_rows(measured: Measured) -> list[Row]:
    """The rows, baselines first and in their usual order, then method by method."""
    table = measured.trials.copy()
    key = f"test_{measured.metric.name}"
    if key not in table:
        table[key] = math.nan
    evaluations = table[table["stage"] == "evaluation"]
    searches = table[table["stage"] == "search"]
    scale = _plain_epochs(evaluations, _enlarged(measured))
    found = [
        _evaluated(str(name), trials, searches, measured, scale, key)
        for name, trials in evaluations.groupby("policy", sort=False)
    ]
    for method, trials in searches.groupby("method", sort=False):
        if trials[key].notna().any():
            name = network_name(str(method)) if measured.several else JOINT
            cost = _search_cost(trials, scale.get(method, 1.0), None)
            error = _errors(trials, key)
            found.append(Row(name, str(method), "network", error, cost, _nothing(), 1))
    places = {method: place for place, method in enumerate(measured.methods)}
    return sorted(found, key=lambda row: _place(row, places))


def table_of(measured: Measured) -> dict[str, Any]:
    """What `summary.json` says about the rows.

    `rows` holds what each cost, by its name: `trainings_bought` is its search over one plain
    training, i.e. how many of these it would have paid for; `total_trainings` the search's and one
    training's, `total_time` the same in device time; `on_front` whether it is on the Pareto front
    of `total_trainings` and the mean. `errors` holds the metric, `differences` those of each row
    from each other one, paired by seed, `steps` those between neighbours on the front.
    """
    rows = make_rows(measured)
    plain = _plain(rows)
    totals = {row.name: _relative(row, plain) for row in rows}
    front = _front(rows, totals, measured.metric)
    seeds = {row.name: row.by_seed() for row in rows}
    differences: dict[str, dict[str, Any]] = {row.name: {} for row in rows}
    for one, other in permutations(seeds, 2):
        if (difference := paired_difference(seeds[one], seeds[other])) is not None:
            differences[one][other] = difference
    return {
        "rows": {
            row.name: {
                "label": label(row.name, row.kind),
                "method": row.method,
                "kind": row.kind,
                "about": row.about,
                "searches": row.searches,
                "search": row.search,
                "training": row.training,
                **totals[row.name],
                "on_front": row.name in front,
            }
            for row in rows
        },
        "errors": {row.name: row.error for row in rows},
        "differences": differences,
        "plain_training": plain.name if plain else None,
        "front": front,
        "steps": {name: differences[name].get(before) for before, name in pairwise(front)},
    }


def _evaluated(
    name: str,
    trials: pd.DataFrame,
    searches: pd.DataFrame,
    measured: Measured,
    scale: Mapping[str, float],
    key: str,
) -> Row:
    """The row of an evaluated policy, or of a method whose every search was evaluated."""
    method = str(trials["method"].iloc[0])
    training = _scaled(trials[trials["error"].isna()], scale.get(method, 1.0))
    own = searches[searches["method"] == method]
    paired = trials["search_seed"].dropna()
    of_searches = len(paired) == len(trials)
    known = measured.methods.get(method)
    if own.empty or not (of_searches or (known is not None and name == known.row)):
        return Row(name, name, "baseline", _errors(trials, key), _nothing(), training, 0)
    if of_searches and paired.is_unique and len(paired) > 1:
        cost, count = _search_cost(own, scale.get(method, 1.0), None), 1
        return Row(name, method, "method", _errors(trials, key), cost, training, count)
    wall = known.wall_seconds if known is not None else 0.0
    cost = _search_cost(own, scale.get(method, 1.0), wall)
    return Row(name, method, "policy", _errors(trials, key), cost, training, len(own))


def _errors(trials: pd.DataFrame, key: str) -> dict[str, Any]:
    """The metric over seeds; no mean of the survivors where one has failed."""
    trials = trials.sort_values("seed")
    good = trials["error"].isna() & trials[key].notna()
    runs = [float(value) for value in trials.loc[good, key]]
    failed = trials.loc[~good, ["seed", "error"]]
    mean, std = mean_and_std(runs) if runs and failed.empty else (None, None)
    return {
        "mean": mean,
        "std": std,
        "runs": runs,
        "seeds": [int(seed) for seed in trials.loc[good, "seed"]],
        "failed": [
            {"seed": int(seed), "error": "no result" if pd.isna(error) else str(error)}
            for seed, error in failed.itertuples(index=False)
        ],
    }


def _nothing() -> Cost:
    return dict.fromkeys(COSTS, 0.0)


def _scaled(trials: pd.DataFrame, scale: float) -> Cost:
    """Mean cost of trials, arithmetic in plain epochs."""
    if trials.empty:
        return _nothing()
    mean = {cost: float(trials[cost].mean()) for cost in COSTS}
    return {**mean, ARITHMETIC: mean[ARITHMETIC] * scale}


def _search_cost(searches: pd.DataFrame, scale: float, wall: float | None) -> Cost:
    """Of one search on average where `wall` is None, else of all, with the wall time given."""
    cost = _scaled(searches, scale)
    if wall is None:
        return cost
    total = {name: value * len(searches) for name, value in cost.items()}
    return {**total, "wall_seconds": wall or total["wall_seconds"]}


def _enlarged(measured: Measured) -> float:
    """How many times over a training's batch holds each of its images."""
    evaluation = measured.configuration.get("evaluation") or {}
    return float(evaluation.get("enlarge_batch", 1))


def _plain_epochs(evaluations: pd.DataFrame, enlarged: float) -> dict[str, float]:
    """Plain epochs over all training images in one of each method's epoch-equivalents."""
    known = evaluations[evaluations["error"].isna() & (evaluations[ARITHMETIC] > 0)]
    ratio = known["epochs"] * enlarged / known[ARITHMETIC]
    return {str(key): float(value) for key, value in ratio.groupby(known["method"]).first().items()}


def _place(row: Row, methods: Mapping[str, int]) -> tuple[int, int, int]:
    if row.kind == "baseline":
        known = row.name in BASELINES
        return 0, BASELINES.index(row.name) if known else len(BASELINES), 0
    return 1, methods.get(row.method, len(methods)), KINDS.index(row.kind)


def _plain(rows: Sequence[Row]) -> Row | None:
    """The row whose training is the unit of cost: none, predefined, or the cheapest."""
    trained = {row.name: row for row in rows if row.training["wall_seconds"] > 0}
    for name in PLAIN:
        if name in trained:
            return trained[name]
    return min(trained.values(), key=lambda row: row.training[TIME], default=None)


def _relative(row: Row, plain: Row | None) -> dict[str, float | None]:
    """What a row costs, in plain trainings; None where these cost nothing."""

    def over(cost: str, amount: float) -> float | None:
        unit = plain.training[cost] if plain else 0.0
        return amount / unit if unit > 0 else None

    return {
        "trainings_bought": over(ARITHMETIC, row.search[ARITHMETIC]),
        "total_trainings": over(ARITHMETIC, row.search[ARITHMETIC] + row.training[ARITHMETIC]),
        "total_time": over(TIME, row.search[TIME] + row.training[TIME]),
    }


def _front(
    rows: Sequence[Row], totals: Mapping[str, Mapping[str, float | None]], metric: Metric
) -> list[str]:
    """Rows than which none is both cheaper (or as cheap) and better, the cheapest first."""
    sign = 1.0 if metric.lower_is_better else -1.0
    known = [
        (total, sign * row.error["mean"], row.name)
        for row in rows
        if row.error["mean"] is not None
        and (total := totals[row.name]["total_trainings"]) is not None
    ]
    front: list[str] = []
    best = math.inf
    for _, value, name in sorted(known):
        if value < best:
            best = value
            front.append(name)
    return front
