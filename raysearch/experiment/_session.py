"""From settings to an experiment that can be carried out: new, or begun before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from raysearch import machine, results
from raysearch.engine import Wish, local_capacity
from raysearch.errors import RaysearchError
from raysearch.experiment._experiment import Experiment, check_same, own
from raysearch.experiment._folder import CONFIG, Folder, is_only_locked, resume
from raysearch.experiment._forecast import Forecast, forecast
from raysearch.experiment._plan import Plan, make_plan
from raysearch.experiment._tracking import chosen
from raysearch.experiment._work import Model

if TYPE_CHECKING:
    from raysearch.data import Dataset
    from raysearch.results import Measured


@dataclass(frozen=True)
class Session:
    """An experiment that can be carried out; see `raysearch.experiment._run.begin`.

    Attributes:
        plan: what is done.
        forecast: what that costs.
        wish: what of the machine or cluster is used.
        folder: where it was begun before; None is a new one.
        others: experiments that there are, which go on the same page.
    """

    plan: Plan
    forecast: Forecast
    wish: Wish
    folder: Folder | None
    others: Sequence[Measured]


def prepare(
    experiment: Experiment,
    wish: Wish,
    *,
    folder: Folder | None = None,
    dataset: Dataset | None = None,
    network: Model | None = None,
    others: Sequence[Measured] = (),
) -> Session:
    """Load the data, plan and count the cost; nothing is started.

    Args:
        experiment: its settings.
        wish, folder, others: see `Session`.
        dataset, network: see `make_plan`.

    Raises:
        RaysearchError: it cannot be done, or not be compared with the others.
    """
    machine.adapt()
    capacity = None if wish.address else local_capacity(wish)
    name = experiment.settings.name or "this"
    for other in others:
        results.check_alike(name, experiment.values, other.name, other.configuration)
    kept = None if folder is None else folder.path
    plan = make_plan(experiment, capacity, kept=kept, dataset=dataset, network=network)
    limit = machine.cpu_limit() if capacity is not None and wish.cpus is None else None
    tracking = experiment.settings.tracking
    place = chosen(tracking.uri, tracking.experiment) if tracking.name != "none" else None
    plan = replace(plan, notes=(*plan.notes, *(note for note in (limit, place) if note)))
    for other in others:
        if other.images is not None and dict(other.images) != plan.dataset.counts:
            raise RaysearchError(
                f"{name} and {other.name} cannot be compared: they have other images "
                f"({plan.dataset.counts} and {dict(other.images)})"
            )
    return Session(plan, forecast(plan, capacity), wish, folder, others)


def earlier(experiment: Experiment) -> Folder | None:
    """The folder of an experiment of that name; a comparison takes in methods that are new.

    Raises:
        RaysearchError: it began with other settings, is going on, or is something else.
    """
    path = experiment.path
    if path is None or not path.exists() or is_only_locked(path):
        return None
    kind = "comparison" if experiment.compared else "run"
    if not (path / CONFIG).is_file():
        raise RaysearchError(
            f"{path} exists and is no {kind} of this version: choose another name="
        )
    folder = resume(str(path), experiment.settings.runs_dir)
    try:
        if folder.experiment.compared != experiment.compared:
            other = "run" if experiment.compared else "comparison"
            raise RaysearchError(f"{path} is a {other}, not a {kind}: choose another name=")
        anew = folder.failed if experiment.compared else ()
        check_same(path, folder.experiment, experiment, anew)
        if experiment.compared:
            _take_in(folder, experiment)
    except BaseException:
        folder.release()
        raise
    return folder


def _take_in(folder: Folder, asked: Experiment) -> None:
    """What has been carried out, and what is asked for; a failed method may begin anew."""
    before = folder.experiment
    for name in folder.failed:
        if name in asked.methods and own(asked.methods[name]) != own(before.methods[name]):
            folder.forget_method(name)
    kept = {name: each for name, each in before.methods.items() if name in folder.complete}
    asked = asked.changed(model=before.values["model"], data=before.values["data"])
    methods = {**kept, **asked.methods, **kept}
    evaluation = {**asked.values["evaluation"], "policies": list(methods)}
    folder.experiment = replace(asked, methods=methods).changed(evaluation=evaluation)
