"""What an experiment will do: the methods that search, and the policies that are evaluated."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysearch import methods, models
from raysearch.data import Dataset, load_dataset
from raysearch.errors import RaysearchError, unknown
from raysearch.experiment._compose import Configuration
from raysearch.experiment._experiment import Experiment
from raysearch.experiment._given import given_checkpoints
from raysearch.experiment._settings import AUTO
from raysearch.experiment._work import EvaluationWork, Model, SearchWork, Setting
from raysearch.methods import Augmentation, Groups, Method
from raysearch.policy import Policy, read_policy
from raysearch.tasks import Metric, Task
from raysearch.training import Predefined

if TYPE_CHECKING:
    from raysearch.engine import Capacity
    from raysearch.protocol import Values

LEARNED = "learned"  # a run's own policy, in evaluation.policies
POLICIES = (*methods.FIXED, "randaugment", LEARNED)
Told = Callable[[int, int], None]  # images that have been read, of so many


@dataclass(frozen=True)
class Row:
    """A policy that is evaluated, on every evaluation seed.

    Attributes:
        name: what it is called.
        augmentation: it, and the predefined augmentation that goes with it; None where the method
            has to find it.
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
        seeds: a search for each; none where its policy is known.
        rows: the policies that are evaluated on its behalf.
        given: by search seed, the shared checkpoint of another run.
        accompanying: the predefined augmentation that goes with what it finds.
    """

    name: str
    configuration: Configuration
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    accompanying: Predefined
    given: Mapping[int, Values] = field(default_factory=dict)

    @property
    def method(self) -> type[Method]:
        """Its class."""
        return methods.find(self.configuration.settings.method.name)

    @property
    def known(self) -> Policy | None:
        """Its policy, where nothing is searched."""
        return self.method.known(self.configuration.values["method"])

    @property
    def uniform(self) -> Policy | None:
        """The policy of a search that knows nothing; None without a search."""
        return self.method.uniform(self.configuration.values["method"]) if self.seeds else None

    @property
    def rounds_stage(self) -> str:
        """The group whose resources a search's proposals hold."""
        return "search" if self.configuration.settings.finetune is None else "finetune"

    def groups(self, parallel: int = 1) -> Groups:
        """What the method reads.

        Args:
            parallel: proposals in a round.
        """
        values = self.configuration.values
        return Groups(values["method"], values["search"], values.get("finetune"), parallel)

    def parallel(self, at_once: int) -> int:
        """Proposals in a round: as asked for, or as suits what fits at once."""
        return self.method.parallel(at_once, self.groups())


@dataclass(frozen=True)
class Plan:
    """All that an experiment does.

    Attributes:
        experiment: its settings, without anything that is `auto`.
        parts: what each method does, by its name.
        dataset: the splits.
        notes: what was chosen and why, for the person who asked for it.
        network: builds a network, where `model` does not name one.
    """

    experiment: Experiment
    parts: Mapping[str, Part]
    dataset: Dataset
    notes: tuple[str, ...] = ()
    network: Model | None = None

    @property
    def task(self) -> Task:
        """What is predicted and how that is judged; the same for all methods."""
        return self.setting(next(iter(self.parts.values())), "cpu").task_of(self.dataset)

    @property
    def metric(self) -> Metric:
        """What networks are judged by."""
        return self.task.metric

    def setting(self, part: Part, device: str) -> Setting:
        """What a method's trials have in common, on a device."""
        settings = part.configuration.settings
        return Setting(
            model=self.network or settings.model.name,
            device=device,
            predefined=predefined_of(part.configuration.values),
            val_fraction=settings.search.val_fraction,
            task=settings.task,
            metric=settings.metric,
        )

    def search_work(self, part: Part, device: str, seed: int, parallel: int) -> SearchWork:
        """What does the work of a search."""
        method = part.configuration.settings.method.name
        return SearchWork(self.setting(part, device), method, part.groups(parallel), seed)

    def evaluation_work(
        self, part: Part, device: str, seed: int, augmentation: Augmentation
    ) -> EvaluationWork:
        """What trains with a policy."""
        evaluation = part.configuration.values["evaluation"]
        return EvaluationWork(self.setting(part, device), evaluation, *augmentation, seed)


def make_plan(
    experiment: Experiment,
    capacity: Capacity | None = None,
    *,
    kept: Path | None = None,
    dataset: Dataset | None = None,
    network: Model | None = None,
    progress: Told | None = None,
) -> Plan:
    """Load the data, choose what is `auto`, and lay out what is done.

    Args:
        experiment: its settings.
        capacity: of this machine; None where a cluster decides, of which nothing is known yet.
        kept: the experiment's folder, where it is continued.
        dataset: the data, where they are there already.
        network: builds a network, where `model` does not name one.
        progress: told how many images have been read.

    Raises:
        RaysearchError: data that cannot be used, or a method or a policy that is not known.
    """
    _check_rows(experiment)
    if dataset is None:
        device = capacity.device if capacity else experiment.settings.device.replace(AUTO, "cuda")
        dataset = load_dataset(experiment.values["data"], progress, device=device)
    experiment, notes = settle_choices(experiment, dataset, capacity)
    parts = {
        name: _part(experiment, name, configuration, dataset.size)
        for name, configuration in experiment.methods.items()
    }
    plan = Plan(experiment, parts, dataset, (*dataset.notes, *notes), network)
    _check_task(plan.task, dataset)
    given = {n: replace(p, given=given_checkpoints(plan, p, kept)) for n, p in parts.items()}
    return replace(plan, parts=given)


def settle_choices(
    experiment: Experiment, dataset: Dataset, capacity: Capacity | None
) -> tuple[Experiment, tuple[str, ...]]:
    """The experiment with the choices that were left to it, and a remark on the network's.

    A run that is continued has the network and the size with which it began, whatever the machine.
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
    return (experiment.changed(**changed) if changed else experiment), notes


def predefined_of(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The data's predefined augmentation, fields of `Predefined`."""
    given: Mapping[str, Any] = values["data"].get("predefined") or {}
    return given


def slug(name: str) -> str:
    """A policy's name as a part of a folder's."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")


def _part(
    experiment: Experiment, name: str, configuration: Configuration, size: tuple[int, int]
) -> Part:
    values, settings = configuration.values, configuration.settings
    cls, given = methods.find(settings.method.name), Predefined.of(predefined_of(values))
    searched = cls.known(values["method"]) is None
    make = _own_rows if experiment.compared else _named_rows
    return Part(
        name=name,
        configuration=configuration,
        seeds=tuple(settings.seeds) if searched else (),
        rows=make(name, configuration, size),
        accompanying=cls.predefined(given, size),
    )


def _own_rows(name: str, configuration: Configuration, size: tuple[int, int]) -> tuple[Row, ...]:
    """The rows of a method that is judged.

    A statement about a method needs a search of its own for every evaluation. Where there are as
    many, evaluation i is of what search i found, and the policy that is handed over, merged from
    several, has a row of its own.
    """
    values, settings = configuration.values, configuration.settings
    method, given = settings.method.name, Predefined.of(predefined_of(values))
    fixed = methods.augmentations(given, size)
    if method in methods.FIXED:
        return (Row(name, fixed[method]),)
    cls = methods.find(method)
    if (known := cls.known(values["method"])) is not None:
        return (Row(name, (known, cls.predefined(given, size))),)
    searches = len(settings.seeds)
    paired = searches == len(settings.evaluation.seeds)
    if paired and searches > 1:
        return Row(f"{name} (method)", None, paired=True), Row(name, None)
    return (Row(name, None),)


def _named_rows(name: str, configuration: Configuration, size: tuple[int, int]) -> tuple[Row, ...]:
    """The rows of a run: the policies in `evaluation.policies`."""
    values, settings = configuration.values, configuration.settings
    cls, given = methods.find(settings.method.name), Predefined.of(predefined_of(values))
    fixed = {
        **methods.augmentations(given, size),
        "uniform": (cls.uniform(values["method"]), given),
    }
    known = cls.known(values["method"])
    own = None if known is None else (known, cls.predefined(given, size))
    rows = []
    for policy in settings.evaluation.policies:
        if policy == LEARNED:
            rows.append(Row(policy, own))
        elif policy.endswith(".json"):
            rows.append(Row(policy, (read_policy(policy), given)))
        else:
            rows.append(Row(policy, fixed[policy]))
    return tuple(rows)


def _check_task(task: Task, dataset: Dataset) -> None:
    """Raises RaysearchError for a metric that has no value on the images to be judged."""
    targets = {"validation": dataset.val, "test": dataset.test}
    for name, split in targets.items():
        if split is None:
            continue
        if math.isnan(task.guess(dataset.train.targets, split.targets)):
            raise RaysearchError(
                f"metric={task.metric.name} has no value on the {name} images: they are all of one "
                "class, or none has any"
            )


def _check_rows(experiment: Experiment) -> None:
    """Raises RaysearchError for a policy that is not known, or that is named twice."""
    if experiment.compared:
        return
    names = experiment.settings.evaluation.policies
    if len({slug(name) for name in names}) < len(names):
        raise RaysearchError("evaluation.policies names a policy twice")
    for name in names:
        if not name.endswith(".json") and name not in POLICIES:
            raise unknown("policy in evaluation.policies", name, POLICIES)
