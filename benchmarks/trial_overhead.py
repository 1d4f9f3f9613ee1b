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
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks._common import arguments, console, finish, run
from benchmarks._local import Configured
from benchmarks._search import configured
from raysearch import engine
from raysearch.data import Dataset, load_dataset
from raysearch.engine import Entry, Place, Share, Wish, cluster
from raysearch.errors import RaysearchError
from raysearch.files import write_whole
from raysearch.protocol import Answer, Build, Metrics, Proposal, Values, Work
from raysearch.training import Predefined, Setup
from raysearch.trials import TrialInfo

DEFAULTS = {"updates": 20, "parallel": 8, "workers": 2, "epochs": 3, "limit": 1000}
BOUND = 0.1  # seconds a trial


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


class Timed:
    """A fine-tuning that leaves in a folder when it ran, and where.

    Args:
        work: the fine-tuning.
        round_: which it belongs to, from 0.
        began: its first instruction, seconds since 1970.
        file: where to.
    """

    def __init__(self, work: Work, round_: int, began: float, file: Path) -> None:
        self.work, self.file = work, file
        self.round, self.began = round_, began
        self.epochs = work.epochs

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return self.work.epoch

    def step(self) -> Metrics:
        """One epoch."""
        return self.work.step()

    def answer(self) -> Answer:
        """The fine-tuning's."""
        answer = self.work.answer()
        ran = Ran(self.round, os.getpid(), self.began, time.time() - self.began)
        write_whole(self.file, json.dumps(asdict(ran)).encode())
        return answer

    def state_dict(self) -> dict[str, Any]:
        """The fine-tuning's."""
        return self.work.state_dict()

    def load_state_dict(self, state: Values) -> None:
        """Go on from `state_dict`."""
        self.work.load_state_dict(state)


@dataclass(frozen=True)
class TimedWork:
    """Makes the work of the search in a worker; its fine-tunings are timed.

    Attributes:
        groups: AWS's settings.
        folder: where fine-tunings leave when they ran.
    """

    groups: Configured
    folder: Path

    def __call__(self, data: Dataset) -> Build:
        """See the class."""
        setup = Setup(data, "small_cnn", torch.device("cpu"), 0, Predefined(padding=1))
        build = self.groups.build(setup)

        def timed(proposal: Proposal, files: Mapping[str, Values]) -> Work:
            began = time.time()
            work = build(proposal, files)
            if not proposal.needs:
                return work
            return Timed(work, proposal.round - 1, began, self.folder / f"{proposal.id}.json")

        return timed


def search(values: Mapping[str, Any]) -> tuple[list[Ran], float]:
    """Carry out a search; its fine-tunings, and the seconds of the whole."""
    groups = configured(
        {"method": "aws", "method.updates": values["updates"], "method.best": 1},
        "search.epochs=1",
        f"finetune.epochs={values['epochs']}",
        f"finetune.parallel={values['parallel']}",
    )
    trial = TrialInfo("aws", "aws", "search", "aws seed 0", None, 0, values["updates"])
    place = Place(Share(1.0, 0.0, "cpu"), values["workers"])
    data = load_dataset({"name": "digits", "limit": values["limit"]})
    with (
        tempfile.TemporaryDirectory() as folder,
        cluster(Wish(device="cpu", cpus=values["workers"])),
    ):
        times = Path(folder) / "times"
        times.mkdir()
        entry = Entry(
            id=trial.id,
            method=trial.method,
            trial=trial,
            search=groups.search(0),
            build=TimedWork(groups, times),
            places={"search": place, "finetune": place},
        )
        start = time.perf_counter()
        ended = engine.run([entry], data, folder=Path(folder), max_failures=0)
        elapsed = time.perf_counter() - start
        for error in ended.failed.values():
            raise error
        return [Ran(**json.loads(file.read_text())) for file in times.iterdir()], elapsed


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
