"""Does augmentation at the end of a training help more than at its start? (AWS, figure 2.)

    python -m benchmarks.late [data=digits|cifar10] [policy=uniform] [fractions=0,0.25,0.5,0.75,1]

That it does is AWS's motive for sharing the first part of all trainings (Tian et al., NeurIPS
2020). Networks are trained from scratch on all training images, with the policy in the first N or
only in the last N of all epochs, and tested once; the predefined augmentation is on throughout.
N = 0 and N = all are the same for both. The policy is `uniform` (over AWS's pairs),
`trivial_augment` or a JSON file; one that changes over a training is taken as it is at the start
of each epoch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from benchmarks._common import (
    arguments,
    compared,
    console,
    finish,
    plot_path,
    run,
    workers,
)
from benchmarks._search import configured
from benchmarks.gain import setting_of, train
from raysearch.errors import RaysearchError
from raysearch.policy import Policy, RandomOperations, Schedule, read_policy, trivial_augment
from raysearch.results import mean_and_std

DEFAULTS = {
    "data": "digits",
    "policy": "uniform",  # uniform, trivial_augment or the path of a policy file
    "fractions": "0,0.25,0.5,0.75,1",  # of the epochs that have the policy
    "seeds": 5,
    "epochs": 0,  # 0: the setup's own
    "limit": 4000,
    "plot": "",
    "workers": os.cpu_count() or 1,
}


@dataclass(frozen=True)
class Window:
    """The epochs that have the policy: from `start` to before `end`."""

    start: int
    end: int

    def of(self, policy: Policy, epochs: int) -> Schedule:
        """The policy inside, nothing outside.

        Raises:
            RaysearchError: the policy cannot be a part of a schedule.
        """
        nothing = RandomOperations(["Identity"])
        try:
            return Schedule(
                [
                    policy.at(epoch / epochs) if self.start <= epoch < self.end else nothing
                    for epoch in range(epochs)
                ]
            )
        except ValueError as error:
            raise RaysearchError(f"policy: {error}") from None


def policy_of(name: str) -> Policy:
    """The policy that was asked for."""
    if name == "uniform":
        uniform: Policy = configured({"method": "aws"}).method.uniform
        return uniform
    return trivial_augment() if name == "trivial_augment" else read_policy(name)


def lengths(text: str, epochs: int) -> list[int]:
    """The N of all fractions, ascending.

    Raises:
        RaysearchError: they are not numbers from 0 to 1.
    """
    try:
        fractions = [float(part) for part in text.split(",") if part]
    except ValueError:
        fractions = []
    if not fractions or not all(0 <= fraction <= 1 for fraction in fractions):
        raise RaysearchError(f"fractions={text}: expected numbers from 0 to 1, commas between")
    return sorted({round(fraction * epochs) for fraction in fractions})


def windows(n: int, epochs: int) -> dict[str, Window]:
    """The first and the last n epochs; equal where they mean the same."""
    return {"first": Window(0, n), "last": Window(epochs - n, epochs) if n else Window(0, 0)}


def main() -> None:
    """Measure and print."""
    values = arguments(DEFAULTS)
    if values["seeds"] < 2:
        raise RaysearchError("seeds=N: at least 2, so that there is a spread")
    path, setting = plot_path(values["plot"]), setting_of(values)
    policy, epochs = policy_of(values["policy"]), setting.evaluation["epochs"]
    points = lengths(values["fractions"], epochs)
    # each once, though both sides may have it
    every = list(dict.fromkeys(w for n in points for w in windows(n, epochs).values()))
    jobs = [
        (setting, window.of(policy, epochs), setting.predefined, seed)
        for window in every
        for seed in range(values["seeds"])
    ]
    with workers(values["workers"]) as pool:
        trained = list(pool.map(train, jobs))
    count = values["seeds"]
    by_window = {
        window: [error for error, _ in trained[i * count : (i + 1) * count]]
        for i, window in enumerate(every)
    }
    errors = {
        side: {n: by_window[windows(n, epochs)[side]] for n in points} for side in ("first", "last")
    }
    report(values, epochs, errors, sum(seconds for _, seconds in trained))
    if path is not None:
        draw(path, values, epochs, errors)


Errors = Mapping[str, Mapping[int, Sequence[float]]]  # by side, N, seed; percent


def report(values: Mapping[str, Any], epochs: int, errors: Errors, seconds: float) -> None:
    """The table for people and the line for machines."""
    policy = values["policy"]
    table = Table(title=f"{values['data']}: test error %, {policy} in N of {epochs} epochs")
    for heading in ("N", "first N", "last N", "last minus first, 95 % interval"):
        table.add_column(heading)
    differences: dict[str, list[float]] = {}
    for n, first in errors["first"].items():
        last, text = errors["last"][n], ""
        if 0 < n < epochs:
            differences[str(n)], text = compared(last, first)
        cells = ["{:.2f} ± {:.2f}".format(*mean_and_std(runs)) for runs in (first, last)]
        table.add_row(str(n), *cells, text)
    console.print(table)
    finish(
        {
            "benchmark": "late",
            "data": values["data"],
            "policy": policy,
            "epochs": epochs,
            "errors": {
                side: {str(n): [round(e, 3) for e in runs] for n, runs in points.items()}
                for side, points in errors.items()
            },
            "difference": differences,
            "training_seconds": round(seconds, 1),
        }
    )


def draw(path: Path, values: Mapping[str, Any], epochs: int, errors: Errors) -> None:
    """Mean and standard deviation over seeds against N."""
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.subplots()
    for (side, points), colour in zip(errors.items(), ("#1f77b4", "#d95f02"), strict=True):
        means, stds = zip(*(mean_and_std(runs) for runs in points.values()), strict=True)
        label = f"the {side} N epochs"
        axes.errorbar(list(points), means, stds, marker="o", capsize=3, color=colour, label=label)
    axes.set_xticks(list(errors["first"]))
    axes.set_xlabel(f"N, epochs of {epochs} with augmentation ({Path(values['policy']).stem})")
    axes.set_ylabel("test error %")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    run(main)
