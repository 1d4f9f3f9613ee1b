"""What an experiment will do: the methods that search, and the policies that are evaluated."""

from __future__ import annotations

import math
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from raysearch import methods, models, tasks
from raysearch.data import Dataset, load_dataset
from raysearch.errors import RaysearchError, unknown
from raysearch.experiment._compose import Configuration
from raysearch.experiment._experiment import Experiment
from raysearch.experiment._given import given_checkpoints
from raysearch.experiment._settings import AUTO, Settings
from raysearch.experiment._work import Model
from raysearch.methods import Context, Fixed, Method
from raysearch.policy import Policy, read_policy
from raysearch.tasks import Task
from raysearch.training import Predefined, Setup

if TYPE_CHECKING:
    from raysearch.engine import Capacity
    from raysearch.protocol import Values

LEARNED = "learned"  # a run's own policy, in evaluation.policies
POLICIES = (*methods.BASELINES, LEARNED)
Augmentation = tuple[Policy, Predefined]
"""A policy, and the predefined augmentation that goes with it."""


@dataclass(frozen=True)
class Row:
    """A policy that is evaluated, on every evaluation seed.

    Attributes:
        name: what it is called.
        augmentation: None where the method has to find it.
        paired: whether evaluation seed i has the policy of search seed i.
    """

    name: str
    augmentation: Augmentation | None
    paired: bool = False


@dataclass(frozen=True)
class Part:
    """What a method does in the experiment.

    Attributes:
        name: its name in the experiment.
        configuration: its own.
        method: it.
        seeds: a search for each; none where its policy is known.
        rows: the policies that are evaluated on its behalf.
        given: by search seed, the shared checkpoint of another run.
        accompanying: the predefined augmentation that goes with what it finds.
    """

    name: str
    configuration: Configuration
    method: Method
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    accompanying: Predefined
    given: Mapping[int, Values] = field(default_factory=dict)

    @property
    def rounds_stage(self) -> str:
        """The group whose resources a search's proposals hold."""
        return "search" if self.configuration.settings.finetune is None else "finetune"

    @property
    def context(self) -> Context:
        """What the method's searches work with, but for studies."""
        values = self.configuration.values
        return Context(values["search"], values.get("finetune"))


@dataclass(frozen=True)
class Plan:
    """All that an experiment does.

    Attributes:
        experiment: its settings, without anything that is `auto`.
        parts: what each method does, by its name.
        dataset: the splits.
        task: what is predicted and how that is judged; the same for all methods.
        notes: what was chosen and why, for the person who asked for it.
        network: builds a network, where `model` does not name one.
    """

    experiment: Experiment
    parts: Mapping[str, Part]
    dataset: Dataset
    task: Task
    notes: tuple[str, ...]
    network: Model | None

    @property
    def held_out(self) -> str:
        """The share of train that the first method's search validates on, in words."""
        part = next(iter(self.parts.values()))
        return part.method.held_out(part.configuration.settings.search.val_fraction)

    def setup(self, part: Part, device: str) -> partial[Setup]:
        """Makes the setup of a method's trials on a device, given `dataset` and `seed`."""
        settings = part.configuration.settings
        return partial(
            Setup,
            model=self.network or settings.model.name,
            device=torch.device(device),
            predefined=predefined_of(part.configuration),
            val_fraction=settings.search.val_fraction,
            task=self.task,
        )


def make_plan(
    experiment: Experiment,
    capacity: Capacity | None = None,
    *,
    kept: Mapping[str, Path] | None = None,
    dataset: Dataset | None = None,
    network: Model | None = None,
) -> Plan:
    """Load the data, choose what is `auto`, and lay out what is done.

    Args:
        experiment: its settings.
        capacity: of this machine; None where a cluster decides, of which nothing is known yet.
        kept: the experiment's folder, by the names of the methods that go on.
        dataset: the data, where they are there already.
        network: builds a network, where `model` does not name one.

    Raises:
        RaysearchError: data that cannot be used, or a method or a policy that is not known.
    """
    _check_rows(experiment)
    if dataset is None:
        device = capacity.device if capacity else experiment.settings.device.replace(AUTO, "cuda")
        dataset = load_dataset(experiment.values["data"], device=device)
    experiment, notes = settle_choices(experiment, dataset, capacity)
    parts = {
        name: _part(experiment, name, configuration, dataset.size)
        for name, configuration in experiment.methods.items()
    }
    task = _task(experiment, dataset)
    plan = Plan(experiment, parts, dataset, task, notes, network)
    known = {
        name: replace(
            part,
            method=_settled(plan, part),
            given=given_checkpoints(plan, part, (kept or {}).get(name)),
        )
        for name, part in parts.items()
    }
    return replace(plan, parts=known)


def _settled(plan: Plan, part: Part) -> Method:
    """The method with the choices made that follow from the data."""
    if not part.seeds:
        return part.method
    return part.method.settled(plan.setup(part, "cpu")(dataset=plan.dataset, seed=part.seeds[0]))


def settle_choices(
    experiment: Experiment, dataset: Dataset, capacity: Capacity | None
) -> tuple[Experiment, tuple[str, ...]]:
    """The experiment with the choices that were left to it, and a remark on the network's.

    The settings of an experiment that is continued hold the choices made when it began.
    """
    notes: tuple[str, ...] = ()
    changed: dict[str, Any] = {}
    values = experiment.values
    if values["model"]["name"] == AUTO:
        device = capacity.device if capacity else "cuda"
        cores = int(capacity.cpus) if capacity else 1
        images = len(dataset.train) + (len(dataset.val) if dataset.val is not None else 0)
        name, reason = models.choose_model(images, dataset.size, device, cores)
        changed["model"] = {**values["model"], "name": name}
        notes = (reason,)
    if values["data"].get("size") == AUTO:
        changed["data"] = {**values["data"], "size": list(dataset.size)}
    if values["data"].get("range") == AUTO and dataset.range is not None:
        changed["data"] = {**changed.get("data", values["data"]), "range": list(dataset.range)}
    return experiment.changed(**changed), notes


def predefined_of(configuration: Configuration) -> Predefined:
    """The data's predefined augmentation."""
    return Predefined.of(configuration.values["data"].get("predefined") or {})


def slug(name: str) -> str:
    """A policy's name as a part of a folder's; files whose names are not the same differ in it."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")
    if not name.endswith(".json"):
        return plain
    return f"{plain[:100]}-{zlib.crc32(os.fsencode(name)):08x}"


def _part(
    experiment: Experiment, name: str, configuration: Configuration, size: tuple[int, int]
) -> Part:
    settings, given = configuration.settings, predefined_of(configuration)
    method = methods.find(settings.method.name).of(configuration.values["method"])
    known, accompanying = method.known, method.predefined(given, size)
    own = None if known is None else (known, accompanying)
    if experiment.compared:
        rows = [Row(name, own)] if own is not None else _searched_rows(name, settings)
    else:
        rows = [
            Row(policy, own if policy == LEARNED else _augmentation(policy, method, given, size))
            for policy in settings.evaluation.policies
        ]
    seeds = tuple(settings.seeds) if known is None else ()
    return Part(name, configuration, method, seeds, tuple(rows), accompanying)


def _augmentation(
    policy: str, method: Method, given: Predefined, size: tuple[int, int]
) -> Augmentation:
    """What a name in `evaluation.policies` stands for, beside a method."""
    if policy.endswith(".json"):
        return read_policy(policy), given
    if policy == "uniform" and (uniform := method.uniform) is not None:
        return uniform, given
    fixed = Fixed(policy)
    return fixed.known, fixed.predefined(given, size)


def _searched_rows(name: str, settings: Settings) -> list[Row]:
    """The rows of a method that is judged, and has to search.

    A statement about a method needs a search of its own for every evaluation. Where there are as
    many, evaluation i is of what search i found, and the policy that is handed over, merged from
    several, has a row of its own.
    """
    searches = len(settings.seeds)
    paired = searches == len(settings.evaluation.seeds)
    if paired and searches > 1:
        return [Row(f"{name} (method)", None, paired=True), Row(name, None)]
    return [Row(name, None)]


def _task(experiment: Experiment, dataset: Dataset) -> Task:
    """What is predicted: as asked for, or as the data's targets have it.

    Raises:
        RaysearchError: the data have no such targets, the task no such metric, or the metric no
            value on the images to be judged.
    """
    asked, metric = experiment.settings.task, experiment.settings.metric
    fits = tasks.suited(dataset.kind)
    if asked not in (None, fits):
        has = "any number of labels" if dataset.kind == "multi" else "one class"
        raise RaysearchError(f"task={asked}: an image of {dataset.name} has {has} ({fits})")
    task = tasks.find(fits, metric)
    for name, split in {"validation": dataset.val, "test": dataset.test}.items():
        if split is not None and math.isnan(task.guess(dataset.train.targets, split.targets)):
            raise RaysearchError(
                f"metric={task.metric.name} has no value on the {name} images: they are all of one "
                "class, or none has any"
            )
    return task


def _check_rows(experiment: Experiment) -> None:
    """Raises RaysearchError for a policy that is not known, or that is named twice."""
    if experiment.compared:
        return
    names = experiment.settings.evaluation.policies
    if len(set(names)) < len(names):
        raise RaysearchError("evaluation.policies names a policy twice")
    for name in names:
        if not name.endswith(".json") and name not in POLICIES:
            raise unknown("policy in evaluation.policies", name, POLICIES)
