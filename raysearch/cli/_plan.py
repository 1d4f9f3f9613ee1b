"""What a run will do: its trials, and what each holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from raysearch import methods
from raysearch.cli._compose import Configuration
from raysearch.cli._schema import TrainingSettings
from raysearch.data import Dataset, load_dataset
from raysearch.errors import RaysearchError, unknown
from raysearch.methods import (
    Augmentation,
    Member,
    Population,
    PreparedTrialSearch,
    TrialSearch,
    augmentations,
)
from raysearch.policy import Policy, read_policy
from raysearch.states import load
from raysearch.tracking import TrialInfo
from raysearch.training import Predefined
from raysearch.tune import (
    Capacity,
    EvaluationJob,
    MemberJob,
    SearchJob,
    Setting,
    Share,
    WorkerJob,
    trial_share,
)

LEARNED = "learned"  # the run's own policy, in evaluation.policies
POLICIES = (*methods.FIXED, "randaugment", LEARNED)


@dataclass(frozen=True)
class Place:
    """What the trials of a stage hold.

    Attributes:
        share: each trial's.
        at_once: how many fit at the same time.
    """

    share: Share
    at_once: int


@dataclass(frozen=True)
class Plan:
    """The trials of the stages, in the order in which they are started, and their data.

    Attributes:
        configuration: the run's.
        shared: what searches of many trials begin with; without those that are given.
        search: one for each seed, also where a search is made of many trials; none where the
            policy is known.
        evaluation: a training for each policy and seed.
        dataset: the splits.
        fixed: the policies to evaluate that need no search.
        given: by seed what another run prepared (`method.shared_checkpoint`).
    """

    configuration: Configuration
    shared: list[TrialInfo]
    search: list[TrialInfo]
    evaluation: list[TrialInfo]
    dataset: Dataset
    fixed: Mapping[str, Augmentation]
    given: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def trial_search(self) -> type[TrialSearch] | None:
        """The method, where its search is made of many trials."""
        return methods.find_trials(self.configuration.settings.method.name)

    @property
    def members(self) -> type[Member] | None:
        """The method, where its search is made by a population."""
        return methods.find_members(self.configuration.settings.method.name)

    @property
    def populations(self) -> dict[str, Population]:
        """The rules of each search trial's population, by its id; of none for other methods."""
        values, cls = self.configuration.values, self.members
        search, method = values["search"], values["method"]
        return {t.id: cls.population(t.seed, search, method) for t in self.search} if cls else {}

    def setting(self, device: str) -> Setting:
        """What search and evaluation have in common, on a device."""
        settings = self.configuration.settings
        return Setting(
            dataset=self.dataset,
            model=settings.model.name,
            device=device,
            predefined=_given(self.configuration.values),
            val_fraction=settings.search.val_fraction,
        )

    def search_job(self, device: str) -> SearchJob:
        """Builds a search, or what it begins with, from its seed."""
        values = self.configuration.values
        return SearchJob(self.setting(device), values["search"], values["method"])

    def member_job(self, device: str) -> MemberJob:
        """Builds a member of a seed's population."""
        values = self.configuration.values
        return MemberJob(self.setting(device), values["search"], values["method"])

    def worker_job(
        self, device: str, training: Mapping[str, Any], prepared: Mapping[int, Any]
    ) -> WorkerJob:
        """Builds what carries out the trials of a seed's search."""
        method = self.configuration.values["method"]
        return WorkerJob(self.setting(device), method, training, prepared)

    @property
    def trials_group(self) -> str:
        """The group of the configuration that the trials of a search of many follow."""
        return "search" if self.configuration.settings.finetune is None else "finetune"

    def parallel(self, at_once: int) -> int:
        """Trials in a round of a search of many: as asked, or as suits what fits at once."""
        trials, method = self.trial_search, self.configuration.values["method"]
        assert trials is not None
        return self.asked_parallel or trials.group(at_once, method)

    @property
    def asked_parallel(self) -> int | None:
        """Trials in a round of a search of many, where that does not depend on what fits."""
        finetune = self.configuration.settings.finetune
        asked = self.configuration.values["method"].get("parallel")
        return asked if finetune is None else finetune.parallel

    def training(self, parallel: int) -> dict[str, Any]:
        """How the trials of a search of many train; see `TrialSearch`."""
        return {**self.configuration.values[self.trials_group], "parallel": parallel}

    def accompanying(self) -> Predefined:
        """The predefined augmentation that goes with the learned policy."""
        values = self.configuration.values
        given = Predefined(**_given(values))
        return methods.find(values["method"]["name"]).predefined(given, self.dataset.size)

    def known(self) -> Policy | None:
        """The method's policy, where there is nothing to search."""
        method = self.configuration.values["method"]
        return methods.find(method["name"]).known(method)

    def uniform(self) -> Policy | None:
        """The policy of a search that knows nothing; None without a search."""
        method = self.configuration.values["method"]
        return methods.find(method["name"]).uniform(method) if self.search else None

    def row(self) -> str:
        """The name of the run's own policy among those that are evaluated."""
        settings = self.configuration.settings
        named = settings.evaluation.policies
        name = settings.method.name
        return name if name in methods.FIXED and LEARNED not in named else LEARNED

    def evaluation_job(self, device: str, learned: Policy | None) -> EvaluationJob:
        """Builds a training from a policy's name and a seed."""
        policies = {**self.fixed, LEARNED: (learned, self.accompanying())}
        settings = self.configuration.values["evaluation"]
        return EvaluationJob(self.setting(device), settings, policies)


def make_plan(
    configuration: Configuration, kept: Path | None = None, dataset: Dataset | None = None
) -> Plan:
    """Load the data and lay out the trials.

    Args:
        configuration: the run's.
        kept: its folder, when it is continued.
        dataset: its data, where they have been loaded.

    Raises:
        RaysearchError: data that cannot be used, or a method or a policy that is not known.
    """
    values, settings = configuration.values, configuration.settings
    method, trials = settings.method.name, methods.find_trials(settings.method.name)
    files = _policy_files(settings.evaluation.policies, Predefined(**_given(values)))
    searched = methods.find(method).known(values["method"]) is None
    dataset = dataset or load_dataset(values["data"])
    plan = Plan(
        configuration,
        [],
        _per_seed(configuration, "search", method) if searched else [],
        _evaluation_trials(configuration),
        dataset,
        {**_fixed_policies(values, dataset.size), **files},
    )
    if trials is None or not issubclass(trials, PreparedTrialSearch):
        return plan
    given = _given_checkpoints(plan, trials, kept)
    shared = _per_seed(configuration, "shared", f"{method} shared checkpoint")
    return replace(plan, shared=[t for t in shared if t.seed not in given], given=given)


def _given_checkpoints(
    plan: Plan, trials: type[PreparedTrialSearch], kept: Path | None
) -> dict[int, Mapping[str, Any]]:
    """What `method.shared_checkpoint` names for every seed, if it does.

    Args:
        plan: the run's.
        trials: its method.
        kept: folder of a run that is continued, which has a copy.

    Raises:
        RaysearchError: it cannot be read, or does not fit.
    """
    values = plan.configuration.values
    trials.uniform(values["method"])  # refuses settings of a wrong type
    given = values["method"].get("shared_checkpoint")
    found: dict[int, Mapping[str, Any]] = {}
    for trial in plan.search if given else ():
        name = f"seed-{trial.seed}.pt"
        places = [Path(given), Path(given) / name, Path(given) / "shared" / name]
        if kept is not None:
            places.insert(0, kept / "shared" / name)
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise RaysearchError(
                f"method.shared_checkpoint={given}: there is no {name} in it, nor in its shared/"
            )
        try:
            checkpoint = load(path)
        except Exception as error:  # whatever a file may hold
            raise RaysearchError(
                f"method.shared_checkpoint={path}: not a checkpoint ({type(error).__name__})"
            ) from None
        setup = plan.setting("cpu").setup(trial.seed)
        try:
            trials.fits(checkpoint, setup, values["search"], values["method"])
        except RaysearchError as error:
            raise RaysearchError(f"method.shared_checkpoint={path}: {error}") from None
        found[trial.seed] = checkpoint
    return found


def place_trials(configuration: Configuration, capacity: Capacity) -> dict[str, Place]:
    """What the trials of each stage hold of what there is.

    Raises:
        RaysearchError: not even one fits.
    """
    settings = configuration.settings
    groups: dict[str, TrainingSettings | None] = {
        "search": settings.search,
        "finetune": settings.finetune,
        "evaluation": settings.evaluation,
    }
    return {
        stage: Place(*trial_share(stage, capacity, group.cpus_per_trial, group.gpus_per_trial))
        for stage, group in groups.items()
        if group is not None
    }


def _per_seed(configuration: Configuration, stage: str, name: str) -> list[TrialInfo]:
    """A trial of each search seed."""
    return [
        TrialInfo(
            id=f"{stage}-seed-{seed}",
            stage=stage,
            name=f"{name} seed {seed}",
            policy=None,
            seed=seed,
            params=_params(configuration, "search", seed),
        )
        for seed in configuration.settings.seeds
    ]


def _evaluation_trials(configuration: Configuration) -> list[TrialInfo]:
    settings = configuration.settings
    return [
        TrialInfo(
            id=f"evaluation-{_slug(policy)}-seed-{seed}",
            stage="evaluation",
            name=f"{policy} seed {seed}",
            policy=policy,
            seed=seed,
            params={**_params(configuration, "evaluation", seed), "policy": policy},
        )
        for seed in settings.evaluation.seeds
        for policy in settings.evaluation.policies
    ]


def _params(configuration: Configuration, stage: str, seed: int) -> dict[str, Any]:
    group = {k: v for k, v in configuration.values[stage].items() if k not in ("policies", "seeds")}
    params: dict[str, Any] = {"seed": seed, stage: group}
    if stage == "search":
        params |= {key: configuration.values.get(key, {}) for key in ("method", "finetune")}
    return params


def _slug(policy: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", policy).strip("-")


def _given(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The data's predefined augmentation."""
    given: Mapping[str, Any] = values["data"].get("predefined") or {}
    return given


def _fixed_policies(values: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Augmentation]:
    """The policies that need no search; `uniform` is the method's own."""
    method, given = values["method"], Predefined(**_given(values))
    known = augmentations(given, size)
    return {**known, "uniform": (methods.find(method["name"]).uniform(method), given)}


def _policy_files(names: list[str], given: Predefined) -> dict[str, Augmentation]:
    """The policies that are read, which go with all of the predefined augmentation.

    Raises:
        RaysearchError: a file that is no policy, or a name that none has.
    """
    if len({_slug(name) for name in names}) < len(names):
        raise RaysearchError("evaluation.policies names a policy twice")
    found: dict[str, Augmentation] = {}
    for name in names:
        if name.endswith(".json"):
            found[name] = read_policy(name), given
        elif name not in POLICIES:
            raise unknown("policy in evaluation.policies", name, POLICIES)
    return found
