"""Experiments on the same data, judged in the same way, made one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from raysearch.errors import RaysearchError
from raysearch.results._frame import Measured, MethodMeasured, searches
from raysearch.settings import leaves

# Settings that joined experiments have in common; what trials hold changes only their time.
COMMON = ("data", "model", "evaluation")
FREE = (
    "evaluation.policies",
    "evaluation.seeds",
    "evaluation.cpus_per_trial",
    "evaluation.gpus_per_trial",
    "data.root",
    "data.memory_limit_mb",
)


def join(name: str, folder: str, experiments: Sequence[Measured]) -> Measured:
    """One experiment with the methods of all, to be shown on one page.

    A baseline that several have evaluated is taken from the first, and so is a method without a
    search. Searched methods of the same name are told apart by their experiments' names.

    Args:
        name: of the whole.
        folder: where its files go.
        experiments: the first is the whole's own where it has one; its samples are used.

    Raises:
        RaysearchError: there is none, or they cannot be compared: other data, another network,
            other settings of the evaluation, or another metric.
    """
    if not experiments:
        raise RaysearchError("there is nothing to compare: no run has been evaluated")
    first = experiments[0]
    for other in experiments[1:]:
        check_alike(first.name, first.configuration, other.name, other.configuration)
        _check_measured(first, other)
    joined = _Joined()
    for place, experiment in enumerate(experiments):
        joined.add(experiment, "" if place == 0 else f"{place}/", own=experiment.folder == folder)
    guesses = (each.guess for each in experiments if each.guess is not None)
    alone = len(experiments) == 1
    return replace(
        first,
        name=name,
        folder=folder,
        methods=joined.methods,
        trials=pd.concat(joined.trials, ignore_index=True),
        history=pd.concat(joined.history, ignore_index=True),
        guess=next(guesses, None),
        wall_seconds=first.wall_seconds if alone else {},
        failed={method: why for each in experiments for method, why in each.failed.items()},
        joined=[each.name for each in experiments if each.folder != folder],
        size=first.image_size,
    )


def without_others(whole: Measured) -> Measured:
    """What an experiment has measured itself, of all that `join` has made one with it."""
    methods = {name: each for name, each in whole.methods.items() if each.folder is None}
    trials, history = (
        table[table["method"].isin(methods)].reset_index(drop=True)
        for table in (whole.trials, whole.history)
    )
    return replace(whole, methods=methods, trials=trials, history=history, joined=())


class _Joined:
    """What has been joined so far."""

    def __init__(self) -> None:
        self.methods: dict[str, MethodMeasured] = {}
        self.trials: list[pd.DataFrame] = []
        self.history: list[pd.DataFrame] = []
        self._rows: set[str] = set()

    def add(self, experiment: Measured, prefix: str, own: bool) -> None:
        """Add an experiment, its trials' ids behind a prefix."""
        names: dict[str, str | None] = {}
        for method, found in experiment.methods.items():
            name = names[method] = self._name(method, experiment)
            if name is not None:
                folder = found.folder or (None if own else experiment.folder)
                self.methods[name] = replace(found, row=name, folder=folder)
        trials, history = experiment.trials.copy(), experiment.history
        trials["policy"] = [
            _row(experiment, names, *each)
            for each in trials[["method", "policy", "search_seed"]].itertuples(index=False)
        ]
        trials["method"] = [names.get(method, method) for method in trials["method"]]
        trials = trials[trials["method"].notna() & ~trials["policy"].isin(self._rows)]
        self._rows |= set(trials["policy"].dropna())
        history = history[history["trial"].isin(trials["trial"])]
        told = trials.set_index("trial")[["method", "policy"]]
        history = history.assign(**{key: history["trial"].map(told[key]) for key in told})
        for table, tables in ((trials, self.trials), (history, self.history)):
            tables.append(table.assign(trial=prefix + table["trial"]).astype(table.dtypes))

    def _name(self, method: str, experiment: Measured) -> str | None:
        """A method's name in the whole; None where nothing was searched and it is there."""
        if method not in self.methods:
            return method
        if searches(experiment.trials, method).empty:
            return None
        name, count = f"{method} ({experiment.name})", 2
        while name in self.methods:
            name, count = f"{method} ({experiment.name} #{count})", count + 1
        return name


def _row(
    experiment: Measured, names: Mapping[str, str | None], own: str, row: Any, search_seed: Any
) -> Any:
    """A trial's row in the whole: the method's name says whose it is."""
    found, method = experiment.methods.get(own), names.get(own)
    if pd.isna(row) or found is None or method is None:
        return row
    if row == found.row:
        return method
    if not pd.isna(search_seed):
        return f"{method} (method)"
    if row == "uniform":  # the method's own
        return f"uniform ({method})"
    return f"{row} (baseline)" if row in experiment.methods else row


def check_alike(
    name: str, values: Mapping[str, Any], other: str, others: Mapping[str, Any]
) -> None:
    """Experiments with these settings can be compared.

    Args:
        name, values: an experiment's, and the settings that its methods share.
        other, others: another's.

    Raises:
        RaysearchError: they have other data, another network or another evaluation.
    """
    for group in COMMON:
        first = dict(leaves(values.get(group, {}), group))
        second = dict(leaves(others.get(group, {}), group))
        for key in sorted(first.keys() | second.keys()):
            if key not in FREE and first.get(key) != second.get(key):
                raise RaysearchError(
                    f"{name} and {other} cannot be compared: {key} is "
                    f"{first.get(key)} in one and {second.get(key)} in the other"
                )


def _check_measured(one: Measured, other: Measured) -> None:
    """Experiments on these images, judged by these metrics, can be compared.

    Raises:
        RaysearchError: they have other images, classes or another metric.
    """
    for what, first, second in (
        ("images", one.images, other.images),
        ("classes", list(one.classes), list(other.classes)),
        ("metrics", one.metric, other.metric),
    ):
        if first != second:
            raise RaysearchError(
                f"{one.name} and {other.name} cannot be compared: they have other {what}"
            )
