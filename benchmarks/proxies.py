"""Does AWS's proxy rank policies as training from scratch does? (Tian et al. 2020, table 5.)

    python -m benchmarks.proxies [data=cifar10|digits] [policies=12] [seeds=3] [plot=proxies.png]

Each of some policies over AWS's 36 elements, from nearly harmless to destructive, has the accuracy
of a full training with it, and four short-cuts to that figure:

    shared      the checkpoint trained with the uniform policy, fine-tuned with the policy (AWS)
    plain       the same from a checkpoint trained without augmentation
    random      the same from random weights
    no tuning   the checkpoint trained without augmentation, as it is, on validation images that
                the policy augmented (Fast AutoAugment's proxy)

All five numbers are on the same images: trained on the search's train split, measured on its
validation split, so the full training too; test images are not used. Each seed divides the images
anew and has its own checkpoints, and every number is the mean over the same seeds. A fine-tuning
has its own order of images and draws, as in a search; full trainings of one seed share theirs.

Correlations are over policies, with 95 % intervals: Pearson's by Fisher's transformation,
Spearman's by a bootstrap over policies. Destructive policies are easily told from the rest and
make any correlation large, so Pearson's is printed without these as well.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from rich.table import Table
from scipy import stats
from torch import Tensor

from benchmarks._common import arguments, console, finish, plot_path, run, workers
from benchmarks._local import Configured, answer_to
from benchmarks._search import configured, done
from benchmarks.gain import Setting, setting_of
from raysearch.data import load_dataset
from raysearch.errors import RaysearchError
from raysearch.methods.aws import SHARED, SharedTraining
from raysearch.policy import Pairs
from raysearch.protocol import Answer, Proposal, Values
from raysearch.results import mean_and_std
from raysearch.training import Setup, Training, derive_seed, evaluate

DEFAULTS = {
    "data": "cifar10",
    "method": "aws",  # its operations, levels, label_smoothing and best
    "policies": 12,
    "policy_seed": 0,  # of those that are drawn at random
    "seeds": 3,
    "limit": 0,  # images to train and validate on; 0, here and below: the data's own number
    "epochs": 0,  # of a full training
    "shared_epochs": 0,  # of a checkpoint; 0: as many as of a full training
    "finetune_epochs": 0,
    "batch": 64,
    "lr": 0.1,
    "finetune_lr": 0.01,
    "plot": "",
    "workers": os.cpu_count() or 1,
}
OWN: dict[str, dict[str, int]] = {
    "cifar10": {"limit": 4000, "epochs": 8, "finetune_epochs": 1},
    "digits": {"limit": 1000, "epochs": 60, "finetune_epochs": 5},
}
FULL = "full"
PAPER = {"shared": 0.85, "plain": 0.55, "random": 0.36, "no tuning": 0.045}

GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
TONE = ("Equalize", "Solarize", "Posterize", "Contrast", "Color", "Brightness", "Sharpness")
FAINT = ("AutoContrast", "Posterize", "Color", "Sharpness")
DESTRUCTIVE = ("inverted", "shifted")
DRAWN = (2, 6, 0.01, 0.1)  # so many elements, or pairs by a Dirichlet of that concentration

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """How everything is trained.

    Attributes:
        setting: data, and the predefined augmentation.
        full: the `search` group of a full training.
        groups: AWS's settings; its `search` group is a checkpoint's.
    """

    setting: Setting
    full: Values
    groups: Configured

    def setup(self, seed: int) -> Setup:
        """The small CNN, with the seed's division of the images."""
        return self.setting.setup(seed, self.setting.predefined)


def plan_of(values: Mapping[str, Any]) -> Plan:
    """What was asked for."""
    if values["data"] not in OWN:
        raise RaysearchError(f"data={values['data']}: expected digits or cifar10")
    sizes = {key: values[key] or own for key, own in OWN[values["data"]].items()}
    setting = setting_of({**values, **sizes})
    if values["data"] == "digits":  # more of them than the default run has
        data = load_dataset({"name": "digits", "limit": sizes["limit"]})
        setting = replace(setting, data=data)
    # a trial as in the paper: every image draws from the policy, and accuracy is the reward
    groups = configured(
        {**values, "method.draws": 0, "method.reward": "metric"},
        *setting.overrides,
        f"search.epochs={values['shared_epochs'] or sizes['epochs']}",
        f"search.batch_size={values['batch']}",
        f"search.lr={values['lr']}",
        f"finetune.epochs={sizes['finetune_epochs']}",
        f"finetune.lr={values['finetune_lr']}",
    )
    smoothing = groups.method.label_smoothing
    full = {**groups.context.search, "epochs": sizes["epochs"], "label_smoothing": smoothing}
    return Plan(setting, full, groups)


def policies_of(uniform: Pairs, count: int, seed: int) -> dict[str, Pairs]:
    """Policies from weak to strong over the elements of the uniform one.

    First those of chosen elements, then ones drawn at random; the same every time.

    Args:
        uniform: has the elements.
        count: of policies.
        seed: of those drawn at random.
    """
    low, high, n = float(uniform.magnitudes.min()), 1.0, len(uniform)
    faint = _elements(uniform, FAINT, low)
    chosen = {
        "harmless": (faint, faint),
        "uniform": (torch.ones(n), torch.ones(n)),
        "inverted": (_elements(uniform, ("Invert",), high), faint),
        "geometric, weak": (_elements(uniform, GEOMETRIC, low),) * 2,
        "geometric, strong": (_elements(uniform, GEOMETRIC, high),) * 2,
        "tone, weak": (_elements(uniform, TONE, low),) * 2,
        "tone, strong": (_elements(uniform, TONE, high),) * 2,
        "all, strong": (_elements(uniform, uniform.operations, high),) * 2,
        "shifted": tuple(_elements(uniform, (f"Translate{axis}",), high) for axis in "XY"),
    }
    pairs = {name: torch.outer(*both) for name, both in chosen.items()}
    pairs = {name: p for name, p in pairs.items() if p.any()}  # the method may lack operations
    for index in range(count - len(pairs)):
        kind, rng = DRAWN[index % len(DRAWN)], np.random.default_rng([seed, index])
        if isinstance(kind, int):
            some = np.zeros(n)
            some[rng.choice(n, min(kind, n), replace=False)] = 1
            p, what = np.outer(some, some), f"{kind} elements"
        else:
            p, what = rng.dirichlet(np.full(n * n, kind)).reshape(n, n), f"Dirichlet {kind}"
        pairs[f"{what}, #{index + 1}"] = torch.from_numpy(p)
    return {name: uniform.with_probabilities(p) for name, p in list(pairs.items())[:count]}


def _elements(uniform: Pairs, operations: Sequence[str], magnitude: float) -> Tensor:
    """1 for elements of some operations at one magnitude, or whose magnitude does not matter."""
    elements = zip(uniform.operations, uniform.magnitudes.tolist(), uniform.elements, strict=True)
    return torch.tensor(
        [float(name in operations and (m == magnitude or e == name)) for name, m, e in elements]
    )


def checkpoint(job: tuple[Plan, int, bool]) -> bytes:
    """A checkpoint of one seed, trained with the uniform policy or without augmentation."""
    plan, seed, augmented = job
    policy = plan.groups.method.uniform if augmented else None
    search = {**plan.full, "epochs": plan.groups.context.epochs}
    training = done(SharedTraining(plan.setup(seed), search, policy, {}))
    buffer = io.BytesIO()  # as tensors it would go through shared memory, one file a tensor
    torch.save(training.answer().file, buffer)
    return buffer.getvalue()


def measure(job: tuple[Plan, int, str, Pairs, bytes, bytes]) -> dict[str, tuple[float, float]]:
    """Accuracy (percent) of one policy and seed by the full training and each proxy; seconds."""
    plan, seed, name, policy, *checkpoints = job
    setup = plan.setup(seed)
    train, val = setup.search_splits()
    shared, plain = (torch.load(io.BytesIO(one), weights_only=True) for one in checkpoints)
    untrained = {
        "model": setup.build_model().state_dict(),
        "optimizer": {"state": {}},
        "metrics": {"epoch_equivalents": 0.0},
    }
    values = {
        "log_probabilities": policy.probabilities.log().float().numpy(),
        "seed": derive_seed(seed, "finetune", name),
    }

    def full() -> float:
        training = done(Training(setup, plan.full, policy, True, split=train))
        return 100 - evaluate(training.model, setup, val)["error"]

    def tuned(prepared: Values) -> float:
        proposal = Proposal(name, 1, values, (SHARED,), "finetune")
        answer = answer_to(proposal, plan.groups.build(setup), {SHARED: prepared})
        return 100 * answer.values["reward"] if isinstance(answer, Answer) else 0.0

    def as_it_is() -> float:
        model = setup.build_model()
        model.load_state_dict(plain["model"])
        generator = setup.generator("augmented validation", name, device=torch.device("cpu"))
        figures = evaluate(model, setup, val, before=lambda images: policy(images, generator))
        return 100 - figures["error"]

    return {
        FULL: _timed(full),
        "shared": _timed(lambda: tuned(shared)),
        "plain": _timed(lambda: tuned(plain)),
        "random": _timed(lambda: tuned(untrained)),
        "no tuning": _timed(as_it_is),
    }


def _timed(work: Callable[[], float]) -> tuple[float, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def spearman(x: Floats, y: Floats, axis: int = -1) -> Floats:
    """The rank correlation along an axis; 0 where one side is all alike."""
    x, y = (stats.rankdata(values, axis=axis) for values in (x, y))
    x, y = (values - values.mean(axis=axis, keepdims=True) for values in (x, y))
    scale = np.sqrt((x**2).sum(axis=axis) * (y**2).sum(axis=axis))
    result: Floats = (x * y).sum(axis=axis) / np.where(scale > 0, scale, 1)
    return result


def correlations(x: Sequence[float], y: Sequence[float]) -> dict[str, list[float] | None]:
    """Pearson's and Spearman's, each with a 95 % interval.

    Returns:
        [value, low, high]; None where it is not defined: fewer than four points, or all alike.
    """
    a, b = np.asarray(x), np.asarray(y)
    if len(a) < 4 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return {"pearson": None, "spearman": None}
    linear = stats.pearsonr(a, b)
    bounds = linear.confidence_interval(0.95)
    ranks = stats.bootstrap(
        (a, b), spearman, paired=True, vectorized=True, method="percentile", rng=0
    ).confidence_interval
    found = {
        "pearson": (linear.statistic, bounds.low, bounds.high),
        "spearman": (spearman(a, b), ranks.low, ranks.high),
    }
    return {key: [round(float(one), 3) for one in three] for key, three in found.items()}


def main() -> None:
    """Measure and print."""
    values = arguments(DEFAULTS)
    if values["seeds"] < 2 or values["policies"] < 4:
        raise RaysearchError("at least seeds=2 and policies=4, so that there is a spread")
    path, plan = plot_path(values["plot"]), plan_of(values)
    uniform = plan.groups.method.uniform
    policies = policies_of(uniform, values["policies"], values["policy_seed"])
    seeds, start = range(values["seeds"]), time.perf_counter()
    with workers(values["workers"]) as pool:
        made = list(pool.map(checkpoint, [(plan, s, aug) for s in seeds for aug in (True, False)]))
        jobs = [
            (plan, seed, *named, made[2 * seed], made[2 * seed + 1])
            for named in policies.items()
            for seed in seeds
        ]
        measured = list(pool.map(measure, jobs))
    elapsed = time.perf_counter() - start
    n = len(seeds)
    runs = {name: measured[i * n : (i + 1) * n] for i, name in enumerate(policies)}
    accuracies = {
        kind: {name: [one[kind][0] for one in of_seeds] for name, of_seeds in runs.items()}
        for kind in (FULL, *PAPER)
    }
    seconds = {kind: fmean(one[kind][1] for one in measured) for kind in (FULL, *PAPER)}
    report(values, plan, accuracies, seconds, elapsed)
    if path is not None:
        draw(path, accuracies)


Accuracies = Mapping[str, Mapping[str, list[float]]]  # by kind, policy, seed; percent


def means(accuracies: Accuracies, kind: str, names: Sequence[str]) -> list[float]:
    """Over seeds, of some policies."""
    return [fmean(accuracies[kind][name]) for name in names]


def report(
    values: Mapping[str, Any],
    plan: Plan,
    accuracies: Accuracies,
    seconds: Mapping[str, float],
    elapsed: float,
) -> None:
    """The tables for people and the line for machines."""
    names = sorted(accuracies[FULL], key=lambda name: -fmean(accuracies[FULL][name]))
    table = Table(title=f"{values['data']}: validation accuracy %, {values['seeds']} seeds")
    for heading in ("policy", "full training", *PAPER):
        table.add_column(heading)
    for name in names:
        mean, std = mean_and_std(accuracies[FULL][name])
        others = [f"{fmean(accuracies[kind][name]):.2f}" for kind in PAPER]
        table.add_row(name, f"{mean:.2f} ± {std:.2f}", *others)
    console.print(table)
    kept = [name for name in names if name not in DESTRUCTIVE]
    found, spared = (
        {
            kind: correlations(means(accuracies, FULL, some), means(accuracies, kind, some))
            for kind in PAPER
        }
        for some in (names, kept)
    )
    table = Table(title=f"correlation with the full training, {len(names)} policies")
    for heading in ("proxy", "Pearson", "Spearman", f"Pearson, {len(kept)} policies", "paper"):
        table.add_column(heading)
    for kind, paper in PAPER.items():
        own = (found[kind]["pearson"], found[kind]["spearman"], spared[kind]["pearson"])
        cells = ["" if o is None else "{:.2f} [{:.2f}, {:.2f}]".format(*o) for o in own]
        table.add_row(kind, *cells, f"{paper}")
    console.print(table)
    costs = ", ".join(f"{kind} {one:.1f}" for kind, one in seconds.items())
    console.print(
        f"{len(kept)} policies: without the destructive ones; paper: Pearson's\n"
        f"seconds per policy and seed, checkpoints not counted: {costs}"
    )
    finish(
        {
            "benchmark": "proxies",
            "data": values["data"],
            "policies": len(names),
            "seeds": values["seeds"],
            "images": len(plan.setting.data.train),
            "epochs": plan.full["epochs"],
            "finetune_epochs": plan.groups.context.tuning["epochs"],
            **{key: {kind: f[key] for kind, f in found.items()} for key in ("pearson", "spearman")},
            "pearson_not_destructive": {kind: f["pearson"] for kind, f in spared.items()},
            "paper": PAPER,
            "accuracies": {
                name: {k: [round(a, 2) for a in accuracies[k][name]] for k in accuracies}
                for name in names
            },
            "seconds": {kind: round(total, 2) for kind, total in seconds.items()},
            "elapsed_seconds": round(elapsed, 1),
        }
    )


def draw(path: Path, accuracies: Accuracies) -> None:
    """A panel for each proxy, a point for each policy; destructive ones are crosses."""
    figure = Figure(figsize=(8.0, 7.0), layout="constrained")
    for axes, (kind, paper) in zip(figure.subplots(2, 2).flat, PAPER.items(), strict=True):
        for destructive, marker in ((False, "o"), (True, "x")):
            some = [name for name in accuracies[FULL] if (name in DESTRUCTIVE) == destructive]
            x, y = means(accuracies, FULL, some), means(accuracies, kind, some)
            axes.scatter(x, y, marker=marker, color="#d95f02" if destructive else "#1f77b4")
        every = list(accuracies[FULL])
        own = correlations(means(accuracies, FULL, every), means(accuracies, kind, every))
        title = "" if own["pearson"] is None else f": r = {own['pearson'][0]:.2f}"
        axes.set_title(f"{kind}{title} (paper {paper})", fontsize=10)
        axes.set_xlabel("full training, validation accuracy %", fontsize=8)
        axes.set_ylabel("proxy, accuracy %", fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    run(main)
