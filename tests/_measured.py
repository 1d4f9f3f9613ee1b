"""Made-up experiments, for tests of what is shown of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from raysearch.policy import Schedule, SubPolicies, Transformations
from raysearch.results import Measured, MethodMeasured, frame, history
from raysearch.tasks import Metric
from raysearch.trials import TrialInfo, TrialResult

NAMES = ("ShearX", "Rotate", "Color", "Posterize", "Cutout", "Invert", "Solarize", "Equalize")
PARAMETERS = ("a11", "a12", "tx", "a21", "a22", "ty", "brightness", "contrast", "saturation", "hue")
ERROR = Metric("error", "test error in %", "%", True)
AUROC = Metric("auroc", "test AUROC", "", False)
ERRORS = {
    "none": [9.0, 9.4, 8.8, 9.2, 9.1],
    "predefined": [6.0, 6.3, 6.1, 5.9, 6.2],
    "trivial_augment": [4.6, 4.1, 4.9, 4.2, 4.7],
    "learned": [4.3, 4.5, 4.4, 4.0, 4.8],
}
NETWORKS = [3.3, 3.2, 3.6, 3.1, 3.4]  # errors of networks that searches trained
COMPARED = {
    "none": [9.0, 9.4, 8.8],
    "trivial_augment": [4.6, 4.1, 4.9],
    "dada": [4.3, 4.5, 4.4],
    "aws": [4.2, 4.4, 4.0],
}
SEARCHES = {"dada": 100.0, "aws": 1000.0}  # epoch-equivalents, where a training has 20
EPOCHS = 6


def policies(count: int) -> list[SubPolicies]:
    """Different policies of operations."""
    source = torch.Generator().manual_seed(0)
    return [
        SubPolicies.pairs(NAMES, weights=torch.rand(28, generator=source)) for _ in range(count)
    ]


def searches(
    method: str, seeds: int, cost: float = 44.0, networks: Sequence[float] = ()
) -> list[TrialResult]:
    """Searches of 10 s, half a device each; with the errors of networks that they trained."""
    found = []
    for seed in range(seeds):
        history = [
            {
                "epoch": float(epoch),
                "train_loss": 1.0 / epoch,
                "val_loss": 1.2 / epoch,
                "kl_uniform": 0.01 * epoch,
                **{f"share/{name}": (i + 1 + seed) / 50 for i, name in enumerate(NAMES)},
            }
            for epoch in range(1, 5)
        ]
        tested = {"test_error": networks[seed], "test_loss": 0.1} if networks else {}
        info = TrialInfo(
            f"search-{method}-{seed}", method, "search", f"{method} seed {seed}", None, seed, 4
        )
        found.append(TrialResult(info, history, {**history[-1], **tested}, 10.0, 5.0, cost))
    return found


def evaluations(
    method: str,
    row: str,
    runs: Sequence[float],
    *,
    cost: float = 20.0,
    paired: bool = False,
    failed: Mapping[int, str] | None = None,
    metric: str = "test_error",
) -> list[TrialResult]:
    """Trainings of two epochs; `paired` with a search of its own for each."""
    found = []
    for seed, run in enumerate(runs):
        own = seed if paired else None
        name = f"{row} seed {seed}"
        info = TrialInfo(f"{row}-{seed}", method, "evaluation", name, row, seed, 2, search_seed=own)
        history = [{"epoch": 1.0, "train_loss": 0.5}, {"epoch": 2.0, "train_loss": 0.4}]
        error = (failed or {}).get(seed)
        tested = {} if error else {metric: run, "test_loss": 0.1}
        metrics = {"train_loss": 0.4, **tested}
        found.append(TrialResult(info, history, metrics, 4.0, 2.0, cost, error))
    return found


def baselines(errors: Mapping[str, Sequence[float]], method: str = "dada") -> list[TrialResult]:
    """The evaluations of every row."""
    return [result for row, runs in errors.items() for result in evaluations(method, row, runs)]


def made(given: Mapping[str, Any]) -> Measured:
    """An experiment whose trials are given as results, or as a frame beside its history."""
    trials = given["trials"]
    if isinstance(trials, list):
        given = {**given, "trials": frame(trials), "history": history(trials)}
    return Measured(**given)


def one_method(seeds: int = 2, **changes: Any) -> Measured:
    """An experiment of one method."""
    found = policies(seeds)
    method = MethodMeasured(
        row="learned",
        policy=SubPolicies.merge(found),
        seed_policies=dict(enumerate(found)),
        predefined={"flip": True, "vertical_flip": False, "padding": 2, "cutout": 0},
        configuration={"method": {"name": "dada"}},
        wall_seconds=12.0,
    )
    given: dict[str, Any] = {
        "name": "demo",
        "folder": "runs/demo",
        "metric": ERROR,
        "methods": {"dada": method},
        "trials": [*searches("dada", seeds), *baselines(ERRORS)],
        "configuration": {"data": {"name": "folder", "root": "photos"}},
        "classes": ["a", "b"],
        "images": {"train": 12345, "val": 0, "test": 360, "skipped": 3},
        "samples": torch.randint(0, 256, (9, 1, 8, 8)).to(torch.uint8),
        "wall_seconds": {"search": 12.0, "total": 40.0},
    }
    return made({**given, **changes})


def compared_trials() -> list[TrialResult]:
    """What `compared` has carried out."""
    found = []
    for name, runs in COMPARED.items():
        cost = SEARCHES.get(name)
        found += searches(name, 2, cost / 2) if cost else []
        found += evaluations(name, name, runs)
    return found


def compared(**changes: Any) -> Measured:
    """An experiment of several methods, two of them searched for twice and three times."""
    methods = {}
    for name in COMPARED:
        cost = SEARCHES.get(name)
        found = policies(2 if cost else 1)
        methods[name] = MethodMeasured(
            row=name,
            policy=SubPolicies.merge(found),
            seed_policies=dict(enumerate(found)) if cost else {},
            configuration={"method": {"name": name}},
            wall_seconds=50.0 if cost else 0.0,
        )
    given: dict[str, Any] = {
        "name": "compare-digits",
        "folder": "runs/compare-digits",
        "metric": ERROR,
        "methods": methods,
        "trials": compared_trials(),
        "configuration": {
            "data": {"name": "digits", "root": "here"},
            "model": {"name": "small_cnn"},
            "evaluation": {"epochs": 2, "enlarge_batch": 1},
        },
        "classes": ["a", "b"],
        "images": {"train": 100, "val": 0, "test": 1697, "skipped": 0},
        "samples": torch.randint(0, 256, (9, 1, 8, 8)).to(torch.uint8),
    }
    return made({**given, **changes})


def joint_searches(seeds: int = 5) -> tuple[dict[int, Schedule], list[TrialResult]]:
    """Searches that trained networks, and their policies of continuous parameters."""
    source = torch.Generator().manual_seed(0)
    found, trials = {}, []
    for seed, plain in enumerate(searches("dada", seeds, 156.0, NETWORKS)):
        phases = [
            Transformations(PARAMETERS, 0.05 * epoch * torch.randn(20, 10, generator=source))
            for epoch in range(1, EPOCHS + 1)
        ]
        history = [
            {"epoch": float(epoch), "train_loss": 1 / epoch, "val_loss": 2 / epoch}
            | {f"mean/{name}": mean for name, (mean, _) in phase.parameters().items()}
            | {f"std/{name}": std for name, (_, std) in phase.parameters().items()}
            for epoch, phase in enumerate(phases, start=1)
        ]
        found[seed] = Schedule(phases)
        trials.append(
            TrialResult(plain.trial, history, {**history[-1], **plain.metrics}, 22.0, 11.0, 156.0)
        )
    return found, trials


def joint(seeds: int = 5, **changes: Any) -> Measured:
    """An experiment whose searches trained networks, with policies of continuous parameters."""
    found, trials = joint_searches(seeds)
    method = MethodMeasured("learned", Schedule.merge(list(found.values())), found)
    samples = torch.randint(0, 256, (9, 3, 8, 8)).to(torch.uint8)
    given = {
        "methods": {"dada": method},
        "trials": [*trials, *baselines(ERRORS)],
        "samples": samples,
    }
    return one_method(**{**given, **changes})
