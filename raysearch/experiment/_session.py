"""From settings to an experiment that is carried out: new, continued, or joined with others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysearch import machine, results
from raysearch.engine import Interrupted, Wish, local_capacity
from raysearch.errors import RaysearchError
from raysearch.experiment._compose import Configuration
from raysearch.experiment._experiment import OWN, Experiment, check_same
from raysearch.experiment._folder import (
    CONFIG,
    Folder,
    check_free,
    create,
    has_experiment,
    resume,
)
from raysearch.experiment._forecast import Forecast, forecast
from raysearch.experiment._plan import Plan, Told, make_plan
from raysearch.experiment._run import Done, carry_out
from raysearch.experiment._storage import check_storage
from raysearch.experiment._tracking import chosen
from raysearch.experiment._work import Model

if TYPE_CHECKING:
    from rich.console import Console

    from raysearch.data import Dataset
    from raysearch.results import Measured


def prepare(
    experiment: Experiment,
    wish: Wish,
    *,
    kept: Path | None = None,
    dataset: Dataset | None = None,
    network: Model | None = None,
    progress: Told | None = None,
    others: Sequence[Measured] = (),
) -> tuple[Plan, Forecast]:
    """What is to be done, and what it costs; nothing is started.

    Args:
        experiment: its settings.
        wish: what of the machine or cluster to use.
        kept: its folder, where it is continued.
        dataset, network, progress: see `make_plan`.
        others: experiments that it is to be compared with.

    Raises:
        RaysearchError: it cannot be done, or not be compared with the others.
    """
    machine.adapt()
    capacity = None if wish.address else local_capacity(wish)
    name = experiment.settings.name or "this"
    for other in others:
        results.check_alike(name, experiment.values, other.name, other.configuration)
    plan = make_plan(
        experiment, capacity, kept=kept, dataset=dataset, network=network, progress=progress
    )
    limit = machine.cpu_limit() if capacity is not None and wish.cpus is None else None
    tracking = experiment.settings.tracking
    place = chosen(tracking.uri, tracking.experiment) if tracking.enabled else None
    plan = replace(plan, notes=(*plan.notes, *(note for note in (limit, place) if note)))
    for other in others:
        if other.images is not None and dict(other.images) != plan.dataset.counts:
            raise RaysearchError(
                f"{name} and {other.name} cannot be compared: they have other images "
                f"({plan.dataset.counts} and {dict(other.images)})"
            )
    return plan, forecast(plan, capacity)


def check_new(experiment: Experiment) -> None:
    """There is room for a new experiment under its name; raises RaysearchError."""
    check_free(experiment)
    check_storage(experiment)


def earlier(experiment: Experiment) -> Folder | None:
    """The folder of a comparison that was begun before; it takes in methods that are new.

    Raises:
        RaysearchError: it began with other settings, is going on, or is something else.
    """
    path = experiment.path
    if path is None or not path.exists():
        return None
    if not (path / CONFIG).is_file():
        if has_experiment(path) or any(file.name != ".lock" for file in path.iterdir()):
            raise RaysearchError(
                f"{path} exists and is no comparison of this version: choose another name="
            )
        return None
    folder = resume(str(path), experiment.settings.runs_dir)
    try:
        before = folder.experiment
        if not before.compared:
            raise RaysearchError(f"{path} is a run, not a comparison: choose another name=")
        check_same(path, before, experiment, anew=folder.failed)
        for name in folder.failed:
            asked_for = experiment.methods.get(name)
            if asked_for is not None and _own(asked_for) != _own(before.methods[name]):
                folder.forget_method(name)
        kept = {name: each for name, each in before.methods.items() if name in folder.complete}
        chosen = {group: before.values[group] for group in ("model", "data")}
        asked = experiment.changed(**chosen)
        methods = {**kept, **asked.methods, **kept}
        evaluation = {**experiment.values["evaluation"], "policies": list(methods)}
        folder.experiment = replace(asked, methods=methods).changed(evaluation=evaluation)
    except BaseException:
        folder.release()
        raise
    return folder


def _own(configuration: Configuration) -> dict[str, Any]:
    return {key: configuration.values.get(key) for key in OWN}


def begin(
    plan: Plan,
    forecast: Forecast,
    wish: Wish,
    *,
    folder: Folder | None = None,
    again: str | None = None,
    quietly: bool = False,
    console: Console | None = None,
    others: Sequence[Measured] = (),
) -> tuple[Folder, Done]:
    """Carry an experiment out.

    Args:
        plan, forecast, wish, quietly, console, others: see `carry_out`.
        folder: where it was begun before; it is let go of. None makes one.
        again: what continues it when it was stopped; None is what does so on the command line.

    Raises:
        KeyboardInterrupt: it was stopped; the message says how to continue.
        RaysearchError: see `carry_out`.
    """
    new = folder is None
    folder = folder or create(plan.experiment)
    if not new:
        folder.configure(plan.experiment)
    try:
        done = carry_out(
            replace(plan, experiment=folder.experiment),
            folder,
            wish,
            forecast,
            quietly=quietly,
            console=console,
            others=others,
        )
    except (Interrupted, KeyboardInterrupt) as error:
        if not folder.begun:
            raise KeyboardInterrupt("interrupted before anything was computed") from error
        how = again or (
            "the same command" if plan.experiment.compared else f"--resume {folder.path}"
        )
        raise KeyboardInterrupt(
            f"stopped; {folder.path} keeps what was done, {how} continues it"
        ) from error
    finally:
        if new and not folder.begun:
            folder.discard()
        folder.release()
    return folder, done
