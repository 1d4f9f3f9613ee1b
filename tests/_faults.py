"""A run that faults are done to, what it leaves behind, and the table of what it lost."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, CommandLine, answers, epochs_done, figures_of, wait_for

from raysearch.engine._worker import REPORT_VARIABLE
from raysearch.files import write_whole

MARK = "FAULTS_MARK"  # in the environment of all processes of a case, and of no others
PATIENCE = 250.0  # seconds, with much else going on; a run takes 10
SECONDS = 10.0  # after which none of them may be there
COMMON = [
    "tracking=none",
    "device=cpu",
    "data.limit=200",
    "evaluation.epochs=4",
    "evaluation.seeds=2",
    "evaluation.policies=[learned]",
]
METHODS = {
    "dada": ["method=dada", "seeds=2", "search.epochs=30"],
    "aws": [
        "method=aws",
        "seeds=1",
        "search.epochs=20",
        "method.updates=10",
        "method.warmup_updates=2",
        "finetune.parallel=4",
        "finetune.epochs=2",
        "method.best=1",
    ],
    "randaugment": [
        "method=randaugment",
        "seeds=1",
        "search.epochs=40",
        "method.trials=6",
        "method.parallel=2",
        "method.startup_trials=2",
        "method.interval=4",
    ],
    "pba": [
        "method=pba",
        "seeds=1",
        "search.epochs=30",
        "method.population=4",
        "method.interval=2",
    ],
}
ROUND = {"aws": 4, "randaugment": 2, "pba": 4}  # proposals in one
BY_THE_SECOND = "dada, reported by the second"
"""As a user's run reports and keeps checkpoints; all others do after every epoch."""


class Faulty(CommandLine):
    """The command line, in a folder of its own, with all its processes known.

    Args:
        folder: where.
        temporary: for Ray's sessions, with a path so short that sockets can lie below it.
        method: a key of METHODS, or BY_THE_SECOND.
    """

    def __init__(self, folder: Path, temporary: Path, method: str) -> None:
        super().__init__(folder)
        self.mark, self.method = secrets.token_hex(8), method.partition(",")[0]
        self._more = ["search.epochs=200"] if method == BY_THE_SECOND else []
        self._trace, self._clock = folder / "epochs.txt", folder / "clock.txt"
        (folder / "tmp").mkdir()
        self.environment |= {
            MARK: self.mark,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(ROOT)]),
            "TMPDIR": str(folder / "tmp"),
            "RAY_TMPDIR": str(temporary),
            "FAULTS_EPOCHS": str(self._trace),
        }
        if method != BY_THE_SECOND:
            self.environment[REPORT_VARIABLE] = "0"
        self.running: list[subprocess.Popen[str]] = []
        self.extra: list[str] = []

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder / "runs" / self.method

    def spawn(self, *command: str, own_group: bool = True) -> subprocess.Popen[str]:
        """Start a process in a group of its own, as a shell does."""
        process = super().spawn(*command, own_group=own_group)
        self.running.append(process)
        return process

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """See `CommandLine.start`."""
        return super().start(*arguments, *self.extra)

    def begin(self, *arguments: str, cpus: int = 1) -> subprocess.Popen[str]:
        """Start the method's run, with so many workers."""
        settings = [*COMMON, *METHODS[self.method], *self._more, f"name={self.method}"]
        return self.start(*settings, *arguments, "--num-cpus", str(cpus))

    def resume(self) -> subprocess.Popen[str]:
        """Continue the run."""
        return self.start("--resume", self.method, "--num-cpus", "1")

    def finish(self) -> str:
        """Continue the run to its end; what it said."""
        process = self.resume()
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        return out

    def processes(self, word: str = "") -> dict[int, str]:
        """Those of the case that are there, with their command lines, where the word is in one."""
        found = {}
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if not entry.name.isdigit() or self.mark not in (entry / "environ").read_text():
                    continue
                if (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                    found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        return {pid: command for pid, command in found.items() if word in command}

    def workers(self) -> list[int]:
        """The processes of trials."""
        return list(self.processes("Trainable"))

    def stop_all(self) -> None:
        """kill -9 of what is left of the case."""
        while left := self.processes():
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for process in self.running:
            process.communicate()

    def epochs(self) -> int:
        """How many have been computed."""
        return len(self._trace.read_text().splitlines()) if self._trace.exists() else 0

    def shift_clock(self, seconds: float) -> None:
        """Let the wall clock be wrong in all processes started since the first call of this."""
        self.environment["FAULTS_CLOCK"] = str(self._clock)
        write_whole(self._clock, str(seconds).encode())

    def wait(self, process: subprocess.Popen[str], done: int) -> None:
        """Wait until the search is so far; see `done`."""

        def reached() -> bool:
            time.sleep(0.05)
            return self.done() >= done

        wait_for(reached, process, PATIENCE)

    def done(self) -> int:
        """How far the search is, in units of its own: epochs, or answers that are on disk."""
        if self.method == "dada":
            return epochs_done(self.path, "search")
        return answers(self.path, ROUND[self.method])


def result_of(run: Path) -> dict[str, Any]:
    """All of a finished run that must not depend on what was done to it."""
    summary = json.loads((run / "summary.json").read_text())
    return {
        **figures_of(run),
        "evaluations": {
            name: cost["epoch_equivalents"] for name, cost in summary["evaluations"].items()
        },
        "seed policies": {p.name: json.loads(p.read_text()) for p in run.glob("policies/*/*")},
        "history": pq.read_table(run / "history.parquet").to_pylist(),
        "study": _study(run) if (run / "optuna.db").exists() else None,
    }


def _study(run: Path) -> list[Any]:
    study = optuna.load_study(study_name="seed 0", storage=f"sqlite:///{run}/optuna.db")
    return [(t.params, t.values, t.intermediate_values, t.state) for t in study.trials]


def check_files(folder: Path, complete: bool) -> None:
    """Nothing is half-written.

    Args:
        folder: the run's.
        complete: whether the run is; else the checkpoint that was being written may be torn.
    """
    assert (folder / "trials").exists() != complete
    files = [path for path in folder.rglob("*") if path.is_file()]
    own = [path for path in files if folder / "trials" not in path.parents]
    for path in own:
        if path.suffix == ".json":
            json.loads(path.read_text())
    hidden = [path.name for path in own if path.name.startswith(".") and path.name != ".lock"]
    assert not hidden
    status = json.loads((folder / "run.json").read_text())["status"]
    assert (status == "complete") == complete


def check_no_processes(case: Faulty, except_for: str = "nothing") -> None:
    """None of the case's is left after some seconds.

    Args:
        case: whose.
        except_for: a word in the command lines of those that may be.
    """
    end = time.monotonic() + SECONDS
    while left := [c for c in case.processes().values() if except_for not in c]:
        assert time.monotonic() < end, left
        time.sleep(0.1)


@dataclass
class Row:
    """A fault, and what became of the run.

    Attributes:
        fault: what was done.
        method: to whose run.
        outcome: in a few words; empty when the test failed.
        recomputed: epochs that were computed although they had been before.
        of: the undisturbed run's epochs.
        seconds: of the case.
    """

    fault: str
    method: str
    outcome: str = ""
    recomputed: int = 0
    of: int = 0
    seconds: float = 0.0


@dataclass
class Reference:
    """An undisturbed run."""

    result: dict[str, Any]
    epochs: int


@dataclass
class Case:
    """A test's run, its reference and its row of the table."""

    cli: Faulty
    reference: Reference
    row: Row

    def check(self, outcome: str, recomputed: int | None = None) -> None:
        """The run has ended as if nothing had been done to it, and left nothing behind.

        Args:
            outcome: for the table.
            recomputed: at most so many epochs were; None for any number.
        """
        assert result_of(self.cli.path) == self.reference.result
        check_files(self.cli.path, complete=True)
        self.row.recomputed = self.cli.epochs() - self.reference.epochs
        self.row.of = self.reference.epochs
        assert self.row.recomputed >= 0
        assert recomputed is None or self.row.recomputed <= recomputed
        self.row.outcome = outcome


@dataclass
class Cluster:
    """A small Ray cluster of nodes with one CPU each.

    Attributes:
        address: HOST:PORT.
        nodes: `ray start` of each, the head's first.
    """

    cli: Faulty
    address: str = ""
    nodes: list[subprocess.Popen[str]] = field(default_factory=list)

    def add(self, *options: str) -> None:
        """Start a node, and wait until it belongs to the cluster."""
        place = ["--head", "--include-dashboard=false", "--port", str(free_port())]
        if self.nodes:
            place = ["--address", self.address]
        else:
            self.address = f"127.0.0.1:{place[-1]}"
        ray = str(Path(sys.executable).with_name("ray"))
        named = ["--node-ip-address", "127.0.0.1", "--num-cpus", "1", "--num-gpus", "0"]
        node = self.cli.spawn(ray, "start", "--block", *place, *named, *options)
        self.nodes.append(node)
        assert node.stdout is not None
        said = ""
        while "Ray runtime started" not in said:
            line = node.stdout.readline()
            said += line
            assert line, said + node.communicate()[1]

    def of_node(self, index: int) -> list[int]:
        """A node's processes."""
        group = self.nodes[index].pid
        return [pid for pid in self.cli.processes() if _ancestor(pid, group)]

    def kill(self, index: int) -> None:
        """kill -9 of a node with its raylet and its workers, as when the machine is gone."""
        for pid in self.of_node(index):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _ancestor(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return False
        pid = int(stat.rpartition(")")[2].split()[1])
    return False


def free_port() -> int:
    """A port on the loopback interface that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of its own in a folder, in memory."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"only root may mount a small disk: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fill the disk on which a folder lies; the file that does."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        for size in (2**16, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    return filler
