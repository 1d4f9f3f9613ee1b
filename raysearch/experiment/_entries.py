"""The engine's entries: searches first, and the evaluations of what they find."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from raysearch.engine import Capacity, Entry, OptunaStudies, Outcome, Place, trial_share
from raysearch.errors import SearchFailedError
from raysearch.experiment._folder import Folder
from raysearch.experiment._given import shared_file
from raysearch.experiment._plan import Augmentation, Part, Plan, Row, slug
from raysearch.experiment._work import EvaluationWork, SearchWork
from raysearch.files import write_whole
from raysearch.methods import Once
from raysearch.policy import Policy
from raysearch.results import write_policies
from raysearch.trials import TrialInfo, TrialResult

SEARCH, SHARED, TRAINING = "search", "shared", "training"  # proposals' ids
Sizes = Mapping[tuple[str, str], float]
"""What a search, and an evaluation, of a method cost in trainings, by (method, stage)."""


class Entries:
    """Makes a plan's entries, and settles a method when its searches have ended.

    Args:
        plan: what is to be done.
        folder: the experiment's; policies, networks and shared checkpoints go there.
        capacity: what there is.
        sizes: what searches and evaluations cost, in trainings.

    Attributes:
        policies: what methods hand over, by their names: known, or merged from all searches.
        seed_policies: what each method's search seeds found.
        not_run: evaluations of a search that has failed.
    """

    def __init__(self, plan: Plan, folder: Folder, capacity: Capacity, sizes: Sizes) -> None:
        self._plan, self._folder, self._sizes = plan, folder, sizes
        self._device = capacity.device
        self._places = {name: places_of(part, capacity) for name, part in plan.parts.items()}
        self._ended: dict[str, dict[int, Outcome]] = {name: {} for name in plan.parts}
        self.policies: dict[str, Policy] = {}
        self.seed_policies: dict[str, dict[int, Policy]] = {}
        self.not_run: list[TrialResult] = []

    def first(self, done: Sequence[str] = ()) -> list[Entry]:
        """What can begin at once: searches, and the evaluation of what needs no search.

        Args:
            done: methods that are left out, as they have been carried out.
        """
        parts = [part for name, part in self._plan.parts.items() if name not in done]
        entries = [entry for part in parts for entry in self._searches(part)]
        for part in parts:
            if (known := part.method.known) is not None:
                self._settle(part, known, {})
            for row in part.rows:
                if row.augmentation is not None:
                    entries += self._evaluations(part, row)
        return entries

    def ended(self, outcome: Outcome) -> list[Entry]:
        """Take an outcome; the evaluations that it makes possible.

        Raises:
            SearchFailedError: no search of its method found anything.
        """
        trial = outcome.entry.trial
        if trial.stage != SEARCH:
            return []
        part, ended = self._plan.parts[trial.method], self._ended[trial.method]
        ended[trial.seed] = outcome
        self._keep_files(part, outcome)
        if len(ended) < len(part.seeds):
            return []
        policies = {s: p for s in part.seeds if (p := ended[s].policy) is not None}
        if not policies:
            reason = _reason(ended[part.seeds[0]])
            raise SearchFailedError(f"no search of {part.name} found a policy: {reason}")
        found = list(policies.values())
        self._settle(part, type(found[0]).merge(found), policies)
        rows = [row for row in part.rows if row.augmentation is None]
        return [entry for row in rows for entry in self._evaluations(part, row)]

    def _searches(self, part: Part) -> Iterator[Entry]:
        if not part.seeds:
            return
        places = self._places[part.name]
        whose = f"{part.name} " if self._plan.experiment.compared else ""
        studies = OptunaStudies(self._folder.path, prefix=whose)  # all in one file
        context = replace(part.context, studies=studies)
        for seed in part.seeds:
            search = part.method.search(seed, context)
            once = isinstance(search, Once)
            epochs = search.rows or part.configuration.settings.search.epochs
            trial = self._trial(part, SEARCH, f"search seed {seed}", seed, epochs)
            shown = {SEARCH: trial} if once else {}
            if part.method.begins_shared and seed not in part.given:
                epochs = part.configuration.settings.search.epochs
                name = f"shared checkpoint seed {seed}"
                shown[SHARED] = self._trial(part, SHARED, name, seed, epochs)
            yield Entry(
                id=trial.id,
                method=part.name,
                trial=trial,
                search=search,
                build=SearchWork(self._plan.setup(part, self._device), part.method, context, seed),
                places=places,
                size=self._sizes.get((part.name, SEARCH), 1.0),
                shown=shown,
                given={SHARED: part.given[seed]} if seed in part.given else {},
            )

    def _evaluations(self, part: Part, row: Row) -> Iterator[Entry]:
        setup = self._plan.setup(part, self._device)
        evaluation = part.configuration.values["evaluation"]
        for index, seed in enumerate(part.configuration.settings.evaluation.seeds):
            augmentation, search_seed = self._augmentation(part, row, index)
            trial = self._evaluation(part, row, seed, search_seed)
            if augmentation is None:
                reason = _reason(self._ended[part.name][part.seeds[index]])
                error = f"search seed {search_seed} failed: {reason}"
                self.not_run.append(TrialResult(trial, [], {}, 0.0, 0.0, 0.0, error))
                continue
            yield Entry(
                id=trial.id,
                method=part.name,
                trial=trial,
                search=Once(TRAINING, "evaluation"),
                build=EvaluationWork(setup, evaluation, *augmentation, seed),
                places=self._places[part.name],
                size=self._sizes.get((part.name, "evaluation"), 1.0),
                shown={TRAINING: trial},
            )

    def _augmentation(
        self, part: Part, row: Row, index: int
    ) -> tuple[Augmentation | None, int | None]:
        """What an evaluation trains with, and the search seed of which it is; None: it failed."""
        if row.augmentation is not None:
            return row.augmentation, None
        if not row.paired:
            seed = part.seeds[0] if len(part.seeds) == 1 else None
            return (self.policies[part.name], part.accompanying), seed
        seed = part.seeds[index]
        policy = self.seed_policies[part.name].get(seed)
        return (None if policy is None else (policy, part.accompanying)), seed

    def _settle(self, part: Part, policy: Policy, found: dict[int, Policy]) -> None:
        self.policies[part.name], self.seed_policies[part.name] = policy, found
        write_policies(self._folder.path, part.name, policy, found, len(self._plan.parts))

    def _keep_files(self, part: Part, outcome: Outcome) -> None:
        """What a search leaves beside its policy: a network, and what others may begin with."""
        seed, kept = outcome.entry.trial.seed, {}
        if outcome.network is not None:
            kept[self._folder.path / "networks" / part.name / f"seed-{seed}.pt"] = outcome.network
        if part.method.begins_shared and (file := outcome.file(SHARED)).exists():
            kept[shared_file(self._folder.path, part.name, seed)] = file
        for path, source in kept.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, source.read_bytes())

    def _trial(self, part: Part, stage: str, name: str, seed: int, epochs: int) -> TrialInfo:
        values = part.configuration.values
        groups = ("search", "method", "finetune")
        params: dict[str, Any] = {key: values[key] for key in groups if key in values}
        return TrialInfo(
            id=f"{stage}-{part.name}-seed-{seed}",
            method=part.name,
            stage=stage,
            name=f"{part.name} {name}",
            policy=None,
            seed=seed,
            epochs=epochs,
            params={"seed": seed, **params},
        )

    def _evaluation(self, part: Part, row: Row, seed: int, search_seed: int | None) -> TrialInfo:
        group = part.configuration.values["evaluation"]
        own = {key: value for key, value in group.items() if key not in ("policies", "seeds")}
        params: dict[str, Any] = {"seed": seed, "policy": row.name, "evaluation": own}
        return TrialInfo(
            id=f"evaluation-{slug(row.name)}-seed-{seed}",
            method=part.name,
            stage="evaluation",
            name=f"{row.name} seed {seed}",
            policy=row.name,
            seed=seed,
            epochs=part.configuration.settings.evaluation.epochs,
            params=params,
            search_seed=search_seed,
        )


def places_of(part: Part, capacity: Capacity) -> dict[str, Place]:
    """What the proposals of each stage hold of what there is.

    Raises:
        RaysearchError: not even one fits.
    """
    settings = part.configuration.settings
    groups = {
        "search": settings.search,
        "finetune": settings.finetune,
        "evaluation": settings.evaluation,
    }
    return {
        stage: trial_share(stage, capacity, group.cpus_per_trial, group.gpus_per_trial)
        for stage, group in groups.items()
        if group is not None
    }


def _reason(search: Outcome) -> str:
    """Why a search has come to nothing."""
    return search.failed or "it found no policy"
