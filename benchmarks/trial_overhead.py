"""What a fine-tune trial costs beyond its own computation, and how long workers wait.

    python -m benchmarks.trial_overhead [updates=20] [parallel=8] [workers=2] [epochs=3]

A search of AWS on digits with a shared checkpoint of one epoch, on a Ray started for it. A
trial's overhead is the time from when its worker was free, and its round could begin, to its first
instruction: Tune's turn, the policy's way to the worker and, once a round, the PPO update and the
search's state on disk. A round can begin when the last trial of the one before has ended; what
workers wait for that is counted as idle. Each worker's first trial, which loads its data, is left
out.
"""

from __future__ import annotations

import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks._common import CONFIGS, arguments, console, finish, method_settings, run
from raysearch import methods
from raysearch.data import load_dataset
from raysearch.errors import RaysearchError
from raysearch.tune import (
    Job,
    Progress,
    RoundsJob,
    SearchJob,
    Setting,
    Share,
    Wish,
    WorkerJob,
    cluster,
    run_rounds,
    run_stage,
)

DEFAULTS = {"updates": 20, "parallel": 8, "workers": 2, "epochs": 3, "limit": 1000}
BOUND = 0.1  # seconds a trial


@dataclass(frozen=True)
class Trial:
    """The search, as stages know it."""

    id: str = "search-seed-0"
    name: str = "aws seed 0"
    policy: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Ran:
    """When a trial ran, where, and in which round."""

    round: int
    worker: int
    began: float
    seconds: float

    @property
    def ended(self) -> float:
        """Its last instruction."""
        return self.began + self.seconds


@dataclass(frozen=True)
class Spent:
    """Where the workers' time went.

    Attributes:
        overheads: of each trial but every worker's first, seconds.
        idle: share of the workers' time spent waiting for the rest of a round.
        busy: share spent on computation.
    """

    overheads: list[float]
    idle: float
    busy: float


def account(trials: Sequence[Ran]) -> Spent:
    """Divide the workers' time from the second round on."""
    rounds = 1 + max(trial.round for trial in trials)
    ready = [0.0, *(max(t.ended for t in trials if t.round == r) for r in range(rounds))]
    by_worker: dict[int, list[Ran]] = {}
    for trial in sorted(trials, key=lambda trial: trial.began):
        by_worker.setdefault(trial.worker, []).append(trial)
    overheads, waited = [], 0.0
    for own in by_worker.values():
        for before, trial in itertools.pairwise(own):
            could = max(before.ended, ready[trial.round])
            overheads.append(trial.began - could)
            if trial.round:
                waited += could - before.ended
    counted = [t for t in trials if t.round]
    elapsed = (ready[-1] - ready[1]) * len(by_worker)
    return Spent(overheads, waited / elapsed, sum(t.seconds for t in counted) / elapsed)


def search(values: Mapping[str, Any]) -> tuple[list[Ran], float]:
    """Run a search; its trials, and the seconds of its rounds from start to end."""
    group = yaml.safe_load((CONFIGS / "config.yaml").read_text())["search"]
    sgd = {key: group[key] for key in ("lr", "momentum", "nesterov", "weight_decay")}
    sgd |= {"epochs": 1, "batch_size": 50}
    method = {**method_settings({"method": "aws"}), "updates": values["updates"], "best": 1}
    finetune = {**sgd, "epochs": values["epochs"], "lr": 0.01, "parallel": values["parallel"]}
    data = load_dataset({"name": "digits", "limit": values["limit"]})
    setting = Setting(data, "small_cnn", "cpu", {"padding": 1}, 0.5)
    share, trial = Share(1.0, 0.0, "cpu"), Trial()
    ran: list[Ran] = []

    def note(proposal: str, result: Mapping[str, Any]) -> None:
        round_ = int(proposal.partition("-")[0]) - 1
        ran.append(Ran(round_, result["pid"], result["began"], result["seconds"]))

    cls = methods.find_trials("aws")
    assert cls is not None
    with (
        tempfile.TemporaryDirectory() as folder,
        cluster(Wish(device="cpu", cpus=values["workers"])),
    ):
        place = Path(folder)
        [shared] = run_stage(
            "shared",
            [trial],
            Job(SearchJob(setting, sgd, method), share),
            folder=place,
            epochs=1,
            max_failures=0,
        )
        assert shared.network is not None
        prepared = torch.load(shared.network, weights_only=True)
        start = time.perf_counter()
        run_rounds(
            "search",
            {trial.id: cls(0, method, finetune)},
            [trial],
            RoundsJob(WorkerJob(setting, method, finetune, {0: prepared}), share),
            folder=place,
            before={trial.id: Progress(epochs=1)},
            max_failures=0,
            at_once=values["workers"],
            answered=note,
        )
        return ran, time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    values = arguments(DEFAULTS)
    if values["updates"] < 2:
        raise RaysearchError("updates=N: at least 2, so that there is a round to wait for")
    ran, elapsed = search(values)
    spent = account(ran)
    mean = statistics.fmean(spent.overheads)
    worst = sorted(spent.overheads)[math.ceil(0.95 * len(spent.overheads)) - 1]
    own = statistics.median(trial.seconds for trial in ran)
    workers = len({trial.worker for trial in ran})
    console.print(
        f"{len(ran)} trials of {own:.3f} s on {workers} workers in {elapsed:.1f} s, with the "
        f"workers' start\noverhead per trial: mean {mean:.3f} s (bound {BOUND}), 95th percentile "
        f"{worst:.3f} s\nworkers' time from the second round on: {spent.busy:.0%} computing, "
        f"{spent.idle:.0%} idle waiting for the round, {1 - spent.busy - spent.idle:.0%} overhead"
    )
    finish(
        {
            "benchmark": "trial_overhead",
            "overhead_seconds": round(mean, 4),
            "overhead_p95": round(worst, 4),
            "idle_share": round(spent.idle, 4),
            "busy_share": round(spent.busy, 4),
            "trial_seconds": round(own, 4),
            "trials": len(ran),
            "processes": workers,
            "elapsed_seconds": round(elapsed, 2),
        }
    )


if __name__ == "__main__":
    run(main)
