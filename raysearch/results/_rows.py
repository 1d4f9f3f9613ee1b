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
from itertools import pairwise, permutations
from typing import Any

import pandas as pd

from raysearch.methods import BASELINES
from raysearch.results._frame import Measured
from raysearch.results._statistics import mean_and_std, paired_difference
from raysearch.results._words import JOINT, label, network_name
from raysearch.tasks import Metric
from raysearch.trials import COSTS

ARITHMETIC, TIME = "epoch_equivalents", "device_seconds"
PLAIN = ("none", "predefined")
"""A training with the first of these that there is costs 1."""
ABOUT = {"baseline": None, "policy": "policy", "method": "method", "network": "method"}
"""What the interval of each kind of row is about."""
KINDS = tuple(ABOUT)

Cost = dict[str, float]
Rows = dict[str, dict[str, Any]]


def table_of(measured: Measured) -> dict[str, Any]:
    """What `summary.json` says about the rows: baselines in their usual order, then each method's.

    `rows` holds of each:

    - `label`, `method` (the baseline's own name where it is none's), `kind`, and what its interval
      is `about`: "method", "policy", or None for a baseline or one network;
    - `search`, the cost of finding what one network needs, in the units of `COSTS`, and `searches`,
      how many that are; `training`, the mean cost of one training with it, 0 for a network that its
      search trained; arithmetic in plain epochs over all training images, because methods that
      validate on other shares of the images have other epoch-equivalents;
    - `trainings_bought`, its search over one plain training, i.e. how many of these it would have
      paid for, `total_trainings`, the search's and one training's, `total_time`, the same in device
      time;
    - `on_front`: whether it is on the Pareto front of `total_trainings` and the mean.

    `errors` holds of each the metric: `mean` and `std` over seeds, None where a seed has failed;
    `runs` by seed, and `seeds`; `failed`, `seed` and `error` of each that has. `differences` holds
    those of each row from each other one, paired by seed, `steps` those between neighbours on the
    front.
    """
    key = f"test_{measured.metric.name}"
    table = _in_plain_epochs(measured)
    if key not in table:
        table[key] = math.nan
    searches = table[table["stage"] == "search"]
    rows: Rows = {}
    errors: Rows = {}
    for name, trials in table[table["stage"] == "evaluation"].groupby("policy", sort=False):
        rows[str(name)] = _evaluated(str(name), trials, searches, measured)
        errors[str(name)] = _errors(trials, key)
    for method, trials in searches.groupby("method", sort=False):
        if trials[key].notna().any():
            name = network_name(str(method)) if measured.several else JOINT
            errors[name] = _errors(trials, key)
            rows[name] = _row(name, str(method), "network", _mean_cost(trials), 1, _nothing())
            if len(errors[name]["seeds"]) < 2:
                rows[name]["about"] = None
    methods = list(measured.methods)
    rows = {name: rows[name] for name in sorted(rows, key=lambda name: _place(name, rows, methods))}
    plain = _plain(rows)
    for row in rows.values():
        row |= _relative(row, rows[plain]["training"] if plain else _nothing())
    front = _front(rows, errors, measured.metric)
    for name, row in rows.items():
        row["on_front"] = name in front
    differences = _differences(rows, errors)
    return {
        "rows": rows,
        "errors": {name: errors[name] for name in rows},
        "differences": differences,
        "plain_training": plain,
        "front": front,
        "steps": {name: differences[name].get(before) for before, name in pairwise(front)},
    }


def _in_plain_epochs(measured: Measured) -> pd.DataFrame:
    """The trials, their arithmetic in plain epochs over all training images."""
    table = measured.trials.copy()
    evaluation = measured.configuration.get("evaluation") or {}
    enlarged = float(evaluation.get("enlarge_batch", 1))  # how often a batch holds each image
    good = table["error"].isna() & (table["stage"] == "evaluation") & (table[ARITHMETIC] > 0)
    ratio = table["epochs"][good] * enlarged / table[ARITHMETIC][good]
    scale = ratio.groupby(table["method"]).first()
    table[ARITHMETIC] *= table["method"].map(scale).fillna(1.0).astype("float64")
    return table


def _evaluated(
    name: str, trials: pd.DataFrame, searches: pd.DataFrame, measured: Measured
) -> dict[str, Any]:
    """The row of an evaluated policy, or of a method whose every search was evaluated."""
    method = str(trials["method"].iloc[0])
    training = _mean_cost(trials[trials["error"].isna()])
    own = searches[searches["method"] == method]
    of_searches = trials["search_seed"].notna().all()
    known = measured.methods.get(method)
    if own.empty or not (of_searches or (known is not None and name == known.row)):
        return _row(name, name, "baseline", _nothing(), 0, training)
    cost = _mean_cost(own)
    if of_searches and trials["search_seed"].is_unique and len(trials) > 1:
        return _row(name, method, "method", cost, 1, training)
    total = {unit: len(own) * amount for unit, amount in cost.items()}
    if known is not None and known.wall_seconds:
        total["wall_seconds"] = known.wall_seconds
    return _row(name, method, "policy", total, len(own), training)


def _row(
    name: str, method: str, kind: str, search: Cost, searches: int, training: Cost
) -> dict[str, Any]:
    return {
        "label": label(name, kind),
        "method": method,
        "kind": kind,
        "about": ABOUT[kind],
        "searches": searches,
        "search": search,
        "training": training,
    }


def _differences(rows: Rows, errors: Rows) -> Rows:
    """Those of each row from each other one; none of a row of which a seed has failed."""
    seeds = {
        name: {} if each["failed"] else dict(zip(each["seeds"], each["runs"], strict=True))
        for name, each in errors.items()
    }
    found: Rows = {name: {} for name in rows}
    for one, other in permutations(rows, 2):
        if (difference := paired_difference(seeds[one], seeds[other])) is not None:
            found[one][other] = difference
    return found


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


def _mean_cost(trials: pd.DataFrame) -> Cost:
    """The mean over trials; nothing of none."""
    return {cost: float(trials[cost].mean()) if len(trials) else 0.0 for cost in COSTS}


def _place(name: str, rows: Rows, methods: Sequence[str]) -> tuple[int, int, int]:
    row = rows[name]
    if row["kind"] == "baseline":
        known = list(BASELINES)
        return 0, known.index(name) if name in known else len(known), 0
    own = row["method"]
    place = methods.index(own) if own in methods else len(methods)
    return 1, place, KINDS.index(row["kind"])


def _plain(rows: Rows) -> str | None:
    """The row whose training is the unit of cost: none, predefined, or the cheapest."""
    trained = {name: row for name, row in rows.items() if row["training"]["wall_seconds"] > 0}
    known = [name for name in PLAIN if name in trained]
    cheapest = min(trained, key=lambda name: trained[name]["training"][TIME], default=None)
    return known[0] if known else cheapest


def _relative(row: Mapping[str, Any], plain: Cost) -> dict[str, float | None]:
    """What a row costs, in plain trainings; None where these cost nothing."""

    def over(cost: str, amount: float) -> float | None:
        return amount / plain[cost] if plain[cost] > 0 else None

    search, training = row["search"], row["training"]
    return {
        "trainings_bought": over(ARITHMETIC, search[ARITHMETIC]),
        "total_trainings": over(ARITHMETIC, search[ARITHMETIC] + training[ARITHMETIC]),
        "total_time": over(TIME, search[TIME] + training[TIME]),
    }


def _front(rows: Rows, errors: Rows, metric: Metric) -> list[str]:
    """Rows than which none is both cheaper (or as cheap) and better, the cheapest first."""
    sign = 1.0 if metric.lower_is_better else -1.0
    known = [
        (row["total_trainings"], sign * errors[name]["mean"], name)
        for name, row in rows.items()
        if errors[name]["mean"] is not None and row["total_trainings"] is not None
    ]
    front: list[str] = []
    best = math.inf
    for _, value, name in sorted(known):
        if value < best:
            best = value
            front.append(name)
    return front
