"""Hands what was measured to the results: one value that page, table, files and MLflow read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from raysearch import results
from raysearch.data import Split, rank_in_class
from raysearch.experiment._entries import Entries
from raysearch.experiment._experiment import common, own
from raysearch.experiment._plan import LEARNED
from raysearch.results import Measured, MethodMeasured

if TYPE_CHECKING:
    from raysearch.engine import Ended
    from raysearch.errors import RaysearchError
    from raysearch.experiment._folder import Folder
    from raysearch.experiment._plan import Part, Plan
    from raysearch.tasks import Task
    from raysearch.trials import TrialResult

SAMPLES = 64  # images handed on, to show before and after


def measured(
    plan: Plan,
    folder: Folder,
    entries: Entries,
    ended: Ended,
    earlier: Measured | None,
    places: Mapping[str, Mapping[str, str]],
) -> Measured:
    """All that there is of the methods that have been carried out, now or before.

    Args:
        plan: what was to be done.
        folder: the experiment's.
        entries: what methods have come to.
        ended: what the engine has measured.
        earlier: what was measured when the experiment had fewer methods.
        places: where MLflow has the methods' figures, by their names.
    """
    done = [name for name in plan.parts if name in entries.policies and name not in ended.failed]
    now = {name: _method(plan.parts[name], entries, folder, places.get(name)) for name in done}
    before = {}
    if earlier is not None:
        others = plan.parts.keys() - now.keys()
        before = {name: m for name, m in earlier.methods.items() if name in others}
    trials = _trials(ended, entries, done)
    tables = [results.frame(trials), results.history(trials)]
    if earlier is not None:
        for place, old in enumerate((earlier.trials, earlier.history)):
            kept = old[old["method"].isin(before)]
            tables[place] = pd.concat([kept, tables[place]], ignore_index=True)
    found = {**before, **now}
    data, first = plan.dataset, next(iter(plan.parts.values())).configuration
    return Measured(
        name=folder.path.name,
        folder=str(folder.path),
        metric=plan.task.metric,
        methods={name: found[name] for name in plan.parts if name in found},
        trials=tables[0],
        history=tables[1],
        configuration=common(first) if plan.experiment.compared else first.values,
        classes=data.classes,
        images=data.counts,
        notes=data.notes,
        guess=plan.task.guess(data.train.targets, data.test.targets),
        samples=samples(data.train, plan.task),
        size=data.size,
        wall_seconds=folder.state["seconds"],
        tracking=next(iter(places.values()), None),
        failed={name: reason(error) for name, error in ended.failed.items()},
    )


def reason(error: RaysearchError) -> str:
    """Why a method could not go on, without what to do about it."""
    return str(getattr(error, "reason", error))


def _method(
    part: Part, entries: Entries, folder: Folder, place: Mapping[str, str] | None
) -> MethodMeasured:
    uniform = part.method.uniform if part.seeds else None
    return MethodMeasured(
        row=handed_over(part),
        policy=entries.policies[part.name],
        seed_policies=entries.seed_policies[part.name],
        predefined=asdict(part.accompanying),
        uniform=uniform.marginals() if uniform else None,
        configuration=own(part.configuration),
        wall_seconds=folder.state["searching"].get(part.name, 0.0),
        tracking=place,
    )


def handed_over(part: Part) -> str:
    """The name of the row of the policy that the method hands over."""
    names = [row.name for row in part.rows if not row.paired or len(part.seeds) == 1]
    return part.name if LEARNED not in names and part.name in names else LEARNED


def _trials(ended: Ended, entries: Entries, done: Sequence[str]) -> list[TrialResult]:
    """Every trial, searches first; in the order of the plan, whatever ended first."""
    found = [result for result in ended_trials(ended, entries) if result.trial.method in done]
    stages = {"shared": 0, "search": 1, "evaluation": 2}
    return sorted(found, key=lambda r: (done.index(r.trial.method), stages[r.trial.stage]))


def ended_trials(ended: Ended, entries: Entries) -> list[TrialResult]:
    """Every trial that has ended, or could not begin, in any order."""
    ran = [result for one in ended.outcomes.values() for result in (*one.beside, one.result)]
    return [*ran, *entries.not_run]


def samples(split: Split, task: Task) -> Tensor:
    """Some images of the train split, the first of each class first, uint8 [N, C, H, W]."""
    order = rank_in_class(task.stratum(split.targets)).argsort(stable=True)
    chosen = split.subset(order[:SAMPLES])
    batches = chosen.batches(min(SAMPLES, len(chosen)), device=torch.device("cpu"), generator=None)
    return next(batches)[0]
