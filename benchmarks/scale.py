"""What Ray Tune, the driver and MLflow add to trials, from one trial to many.

    python -m benchmarks.scale [trials=1,4,16,64,256] [at_once=16] [epochs=25] [seconds=0.2]
                               [values=20]

Trials that do nothing but sleep for `seconds` an epoch and report `values` numbers after each go
through `raysearch.engine.run` as evaluations do: worker processes take trial after trial, with a
checkpoint at each report, and a `Tracker` writes to an SQLite MLflow in a temporary folder. At most
`at_once` of them run at a time, on as many logical CPUs: each worker is a process that has imported
PyTorch, so memory, not Ray, bounds them.

- first trial: from the call to the first instruction of the first trial; all workers have started
  by then.
- between trials: from a trial's last instruction to the first of the next one in the same worker.
- between epochs: what lies between two epochs of a trial: nothing where no report is due, else the
  checkpoint, the report and Tune's turn; their mean, and the mean of those with a report.
- wall time over the sleep: of all trials, less the time to the first one, divided by what the
  sleeping alone would take on so many workers.
- tracking: CPU time of MLflow's writer while trials run, and the time that the driver spends on
  telling it, as a share of the trials' own time (bound: 1 %). What has not been written by then is
  written at the end (last write).
"""

from __future__ import annotations

import itertools
import math
import os
import resource
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks._common import arguments, console, finish, run
from raysearch import engine
from raysearch.engine import Entry, Place, Share, Wish, cluster
from raysearch.errors import RaysearchError
from raysearch.methods import Once
from raysearch.protocol import Answer, Build, Proposal, Values
from raysearch.results import Tracker
from raysearch.trials import TrialInfo

DEFAULTS = {
    "trials": "1,4,16,64,256",
    "at_once": 16,
    "epochs": 25,
    "seconds": 0.2,
    "values": 20,
}
BOUND = 1.0  # percent of the trials' time


@dataclass
class Sleep:
    """A trial's work that takes a known time."""

    epochs: int
    seconds: float
    values: int
    epoch: int = 0

    def step(self) -> dict[str, float]:
        """Sleep for an epoch; when, where, and numbers as a search reports them."""
        began = time.time()
        time.sleep(self.seconds)
        self.epoch += 1
        numbers = {f"value/{i}": math.sin(self.epoch + i) for i in range(self.values)}
        return {**numbers, "worker": os.getpid(), "began": began, "ended": time.time()}

    def answer(self) -> Answer:
        """Nothing."""
        return Answer({"epoch_equivalents": float(self.epochs)})

    def state_dict(self) -> dict[str, Any]:
        """The epoch."""
        return {"epoch": self.epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.epoch = state["epoch"]


@dataclass(frozen=True)
class Sleeps:
    """Makes the trials' work."""

    epochs: int
    seconds: float
    values: int

    def __call__(self, shared: None) -> Build:
        def build(proposal: Proposal, files: Mapping[str, Values]) -> Sleep:
            return Sleep(self.epochs, self.seconds, self.values)

        return build


@dataclass
class Watch:
    """Passes everything on to a tracker, and notes when trials ran and how long telling took.

    Attributes:
        ran: by trial, beginning and end of each epoch (seconds since 1970) and the worker.
        told: seconds that the driver spent in the tracker.
    """

    tracker: Tracker
    ran: dict[str, list[tuple[float, float, int]]] = field(default_factory=dict)
    told: float = 0.0

    def planned(self, trials: Sequence[TrialInfo], done: int) -> None:
        self.tracker.planned(trials, done)

    def trial_started(self, trial: TrialInfo) -> None:
        with self._telling():
            self.tracker.trial_started(trial)

    def trial_progress(self, trial: TrialInfo, epoch: int, metrics: Mapping[str, float]) -> None:
        with self._telling():
            self.tracker.trial_progress(trial, epoch, metrics)
        own = self.ran.setdefault(trial.id, [])
        own.append((metrics["began"], metrics["ended"], int(metrics["worker"])))

    def trial_finished(
        self, trial: TrialInfo, error: str | None, metrics: Mapping[str, float]
    ) -> None:
        with self._telling():
            self.tracker.trial_finished(trial, error, metrics)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.told += time.perf_counter() - start

    def message(self, text: str) -> None:
        console.print(text)

    def ended(self) -> None:
        self.tracker.ended()


@dataclass(frozen=True)
class Scale:
    """What so many trials took.

    Attributes:
        trials: how many.
        workers: processes that they ran in.
        wall_seconds: of all.
        first_trial_seconds: until the first trial's first instruction.
        overhead_seconds: between two trials in a worker, median; None with a trial a worker.
        epoch_seconds: between two epochs of a trial, mean.
        report_seconds: the same of those over 1 ms, as with a report; None: there are none.
        slowdown: wall time from the first trial on, over what sleeping alone would take.
        driver_cpu: CPU seconds of the driver, per second of wall time.
        driver_mib: resident memory of the driver at the end.
        metrics: values that MLflow has at the end.
        metrics_per_second: of that wall time and the final writing.
        drain_seconds: of that final writing.
        tracking_percent: see the module.
        tracking_ms: milliseconds per trial, the final writing included.
    """

    trials: int
    workers: int
    wall_seconds: float
    first_trial_seconds: float
    overhead_seconds: float | None
    epoch_seconds: float
    report_seconds: float | None
    slowdown: float
    driver_cpu: float
    driver_mib: float
    metrics: int
    metrics_per_second: float
    drain_seconds: float
    tracking_percent: float
    tracking_ms: float


def entries_of(count: int, values: Mapping[str, Any]) -> list[Entry]:
    """So many trials that sleep."""
    build = Sleeps(values["epochs"], values["seconds"], values["values"])
    place = Place(Share(1.0, 0.0, "cpu"), min(count, values["at_once"]))
    trials = [
        TrialInfo(f"sleep-{i}", "none", "evaluation", f"sleep {i}", "none", i, values["epochs"])
        for i in range(count)
    ]
    return [
        Entry(
            id=trial.id,
            method=trial.method,
            trial=trial,
            search=Once("training", "evaluation"),
            build=build,
            places={"evaluation": place},
            shown={"training": trial},
        )
        for trial in trials
    ]


def measure(count: int, values: Mapping[str, Any], folder: Path) -> Scale:
    """Carry out `count` trials in `folder`; Ray is running."""
    folder.mkdir()
    place = folder / "mlflow.db"
    tracker = Tracker(f"sqlite:///{place}", "scale", f"{count} trials", {"trials": count})
    watch = Watch(tracker)
    cpu, wall, start = time.process_time(), time.perf_counter(), time.time()
    engine.run(entries_of(count, values), None, folder=folder, max_failures=0, watchers=[watch])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    memory, beside = resident_mib(), tracker.writing_seconds + watch.told
    drain = time.perf_counter()
    tracker.finish(None, None)
    drain = time.perf_counter() - drain
    first = min(epochs[0][0] for epochs in watch.ran.values()) - start
    by_worker = workers_of(watch.ran)
    gaps = [
        after[0][0] - before[-1][1]
        for own in by_worker.values()
        for before, after in itertools.pairwise(own)
    ]
    between = [
        after[0] - before[1]
        for epochs in watch.ran.values()
        for before, after in itertools.pairwise(epochs)
    ]
    reports = [gap for gap in between if gap > 0.001]
    own_seconds = count * values["epochs"] * values["seconds"]
    rounds = math.ceil(count / min(count, values["at_once"]))
    written = metrics_in(place)
    return Scale(
        trials=count,
        workers=len(by_worker),
        wall_seconds=round(wall, 2),
        first_trial_seconds=round(first, 2),
        overhead_seconds=round(statistics.median(gaps), 4) if gaps else None,
        epoch_seconds=round(statistics.fmean(between), 4),
        report_seconds=round(statistics.fmean(reports), 4) if reports else None,
        slowdown=round((wall - first) / (rounds * values["epochs"] * values["seconds"]), 3),
        driver_cpu=round(cpu / wall, 3),
        driver_mib=round(memory, 1),
        metrics=written,
        metrics_per_second=round(written / (wall + drain), 1),
        drain_seconds=round(drain, 2),
        tracking_percent=round(100 * beside / own_seconds, 3),
        tracking_ms=round(1000 * beside / count, 2),
    )


def workers_of(
    ran: Mapping[str, Sequence[tuple[float, float, int]]],
) -> dict[int, list[Sequence[tuple[float, float, int]]]]:
    """The trials of each worker process, in the order in which they ran."""
    by_worker: dict[int, list[Sequence[tuple[float, float, int]]]] = {}
    for epochs in sorted(ran.values(), key=lambda epochs: epochs[0][0]):
        by_worker.setdefault(epochs[0][2], []).append(epochs)
    return by_worker


def metrics_in(database: Path) -> int:
    """Values in an MLflow data base."""
    with sqlite3.connect(database) as connection:
        return int(connection.execute("SELECT count(*) FROM metrics").fetchone()[0])


def resident_mib() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _ms(seconds: float | None, form: str = ".0f") -> str:
    return "" if seconds is None else format(1000 * seconds, form)


def table_of(rows: Sequence[Scale]) -> Table:
    """A column for each number of trials."""
    table = Table(title="Trials that sleep, through the engine and MLflow")
    table.add_column("trials")
    for row in rows:
        table.add_column(str(row.trials), justify="right")
    for name, cells in {
        "workers": [str(row.workers) for row in rows],
        "wall time, s": [f"{row.wall_seconds:.1f}" for row in rows],
        "first trial after, s": [f"{row.first_trial_seconds:.1f}" for row in rows],
        "between trials, ms": [_ms(row.overhead_seconds) for row in rows],
        "between epochs, ms": [_ms(row.epoch_seconds, ".1f") for row in rows],
        "where reported, ms": [_ms(row.report_seconds) for row in rows],
        "wall time over the sleep": [f"{row.slowdown:.2f}" for row in rows],
        "driver, cores": [f"{row.driver_cpu:.2f}" for row in rows],
        "driver, MiB": [f"{row.driver_mib:.0f}" for row in rows],
        "MLflow values per s": [f"{row.metrics_per_second:.0f}" for row in rows],
        "last write, s": [f"{row.drain_seconds:.1f}" for row in rows],
        "tracking, % of trials": [f"{row.tracking_percent:.2f}" for row in rows],
        "tracking, ms per trial": [f"{row.tracking_ms:.0f}" for row in rows],
    }.items():
        table.add_row(name, *cells)
    return table


def counts_of(text: str) -> list[int]:
    """The numbers of trials.

    Raises:
        RaysearchError: not whole numbers of at least 1.
    """
    words = text.split(",")
    if not all(word.isascii() and word.isdigit() and int(word) for word in words):
        raise RaysearchError(f"trials={text}: expected whole numbers of at least 1, as in 1,4,16")
    return [int(word) for word in words]


def main() -> None:
    """Measure and print."""
    values = arguments(DEFAULTS)
    counts = counts_of(str(values["trials"]))
    if min(values["at_once"], values["epochs"] - 1, values["values"]) < 1:
        raise RaysearchError("at_once=N, values=N: at least 1; epochs=N: at least 2")
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        cluster(Wish(device="cpu", cpus=min(max(counts), values["at_once"]))),
    ):
        for count in counts:
            rows.append(measure(count, values, Path(folder) / str(count)))
            console.print(f"{count} trials: {rows[-1].wall_seconds:.1f} s")
    console.print(table_of(rows))
    worst = max(row.tracking_percent for row in rows)
    console.print(
        f"tracking takes {worst:.2f} % of the trials' time at most (bound {BOUND:g} %); "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    finish(
        {
            "benchmark": "scale",
            "at_once": values["at_once"],
            "trial_seconds": values["epochs"] * values["seconds"],
            "tracking_percent": worst,
            "rows": [asdict(row) for row in rows],
        }
    )


if __name__ == "__main__":
    run(main)
