"""A race's budget that is given as a time, in trainings: converted once, and stored."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from raysearch.errors import RaysearchError
from raysearch.experiment._count import plain_cost
from raysearch.experiment._entries import places_of
from raysearch.experiment._experiment import checked
from raysearch.methods import budget_seconds
from raysearch.results import duration

if TYPE_CHECKING:
    from raysearch.engine import Capacity
    from raysearch.experiment._experiment import Experiment
    from raysearch.experiment._plan import Part, Plan


def in_trainings(plan: Plan, capacity: Capacity | None) -> Plan:
    """The plan with all budgets in full trainings.

    Raises:
        RaysearchError: not even one training fits into a time, or how long one takes is not known.
    """
    parts = {name: _converted(plan, part, capacity) for name, part in plan.parts.items()}
    methods = {name: part.configuration for name, part in parts.items()}
    return replace(plan, parts=parts, experiment=replace(plan.experiment, methods=methods))


def with_known(asked: Experiment, before: Experiment) -> Experiment:
    """What is asked for, with the trainings that its times were converted to when it began.

    Args:
        asked: an experiment that goes on.
        before: its settings so far.
    """
    methods = dict(asked.methods)
    for name in methods.keys() & before.methods.keys():
        group = methods[name].values["method"]
        known = before.methods[name].values["method"].get("budget")
        if known is not None and budget_seconds(group.get("budget", known)) is not None:
            group = {**group, "budget": known}
            methods[name] = checked({**methods[name].values, "method": group})
    return replace(asked, methods=methods)


def _converted(plan: Plan, part: Part, capacity: Capacity | None) -> Part:
    values = part.configuration.values
    budget = values["method"].get("budget")
    time = None if budget is None else budget_seconds(budget)
    if time is None:
        return part
    if capacity is None or capacity.device != "cpu":
        raise RaysearchError(
            f"budget={budget}: how long a training takes on a GPU or a cluster is not known "
            "beforehand; give the budget in trainings, as in budget=8x"
        )
    settings = part.configuration.settings
    setup = plan.setup(part, "cpu")(dataset=plan.dataset, seed=part.seeds[0])
    images = len(plan.dataset.full_train()) * settings.evaluation.epochs
    training = images * plain_cost(setup, settings.evaluation.batch_size).seconds
    place = places_of(part, capacity)[part.rounds_stage]
    available = time * place.share.threads * place.at_once
    if available < training:
        raise RaysearchError(
            f"budget={budget}: a single training takes about {duration(training)} of a CPU core; "
            "give a multiple of that, or fewer evaluation.epochs"
        )
    known = {"budget": f"{available / training:.1f}x"}
    configuration = checked({**values, "method": {**values["method"], **known}})
    return replace(part, configuration=configuration, method=replace(part.method, **known))
