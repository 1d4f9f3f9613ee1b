"""From settings to an experiment that can be carried out: new, or begun before."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from raysearch import machine, results
from raysearch.engine import Wish, local_capacity
from raysearch.errors import RaysearchError
from raysearch.experiment._address import check_address
from raysearch.experiment._budget import in_trainings, with_known
from raysearch.experiment._experiment import Experiment, check_same, is_changed
from raysearch.experiment._folder import CONFIG, Folder, check_free, is_only_locked, resume
from raysearch.experiment._forecast import Forecast, forecast
from raysearch.experiment._plan import Plan, make_plan
from raysearch.experiment._storage import check_storage
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
    only_look: bool = False,
) -> Session:
    """Load the data, plan and count the cost; nothing is started.

    Without an address, `RAY_ADDRESS` counts: this may be a cluster's job. A run goes on with the
    device on which it began.

    Args:
        experiment: its settings.
        wish, folder, others: see `Session`.
        dataset, network: see `make_plan`.
        only_look: do not see whether the name is free and `storage` can be written.

    Raises:
        RaysearchError: it cannot be done, or not be compared with the others.
    """
    machine.adapt()
    wish = _settled(wish, folder)
    if not only_look:
        if folder is None:
            check_free(experiment)
        check_storage(experiment, resumed=folder is not None)
    capacity = None if wish.address else local_capacity(wish)
    name = experiment.settings.name or "this"
    for other in others:
        results.check_alike(name, experiment.values, other.name, other.configuration)
    kept: dict[str, Path] = {}
    if folder is not None:
        kept = {name: folder.path for name in experiment.methods if name not in folder.anew}
    plan = make_plan(experiment, capacity, kept=kept, dataset=dataset, network=network)
    plan = in_trainings(plan, capacity)
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
    done = () if folder is None else folder.complete
    return Session(plan, forecast(plan, capacity, done), wish, folder, others)


def _settled(wish: Wish, folder: Folder | None) -> Wish:
    if wish.cpus == 0:
        raise RaysearchError("--num-cpus 0: a trial needs a part of a CPU core at least; give 1")
    address = wish.address or os.environ.get("RAY_ADDRESS") or None
    if address is not None:
        check_address(address)
    if folder is None or folder.experiment.compared:
        return replace(wish, address=address)
    return replace(wish, address=address, device=folder.state.get("device", wish.device))


def earlier(experiment: Experiment) -> Folder | None:
    """The folder of an experiment of that name, with what is asked for now as its experiment.

    A comparison keeps the methods that are complete. It takes in new ones, and it is to forget,
    see `Folder.anew`, what others have computed that are not asked for, or with other settings.

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
        experiment = with_known(experiment, folder.experiment)
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
    """What has been carried out, and what is asked for; a failed method may begin anew.

    A method that leaves takes its files along: no settings would be left to compare with when it
    comes back.
    """
    before = folder.experiment
    kept = {name: each for name, each in before.methods.items() if name in folder.complete}
    same = {
        name
        for name, each in before.methods.items()
        if name in asked.methods
        and not (name in folder.failed and is_changed(each, asked.methods[name]))
    }
    began = {*before.methods, *folder.state["methods"]}
    folder.anew = sorted(began - kept.keys() - same)
    asked = asked.changed(model=before.values["model"], data=before.values["data"])
    methods = {**kept, **asked.methods, **kept}
    evaluation = {**asked.values["evaluation"], "policies": list(methods)}
    folder.experiment = replace(asked, methods=methods).changed(evaluation=evaluation)
