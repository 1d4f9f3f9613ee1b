"""What tests share: one thread for PyTorch, and the command line, here or in a process."""

from __future__ import annotations

import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import ray  # noqa: F401  (its logger keeps the stderr of the moment, which a test's capture closes)
import torch

from raysearch import engine
from raysearch.data import Dataset, TensorSplit
from raysearch.engine import Wish, local_capacity
from raysearch.experiment._signals import handlers_kept
from raysearch.results import _write
from raysearch.tasks import MultiLabel
from raysearch.training import Predefined, Setup

TOKEN = "RAY_AUTH_TOKEN"
ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    "method=dada",  # of several, the last counts
    "tracking=none",
    "data.limit=200",
    "search.epochs=6",
    "evaluation.epochs=4",
    "evaluation.seeds=2",
    "evaluation.policies=[predefined,learned]",
]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    """A run that ends early ignores further signals, which the next test must not."""
    with handlers_kept(forever=False):
        yield


def dark_and_light() -> Setup:
    """Eighty grey images of two classes that differ in brightness."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(80) % 2
    noise = torch.randint(0, 100, (80, 1, 8, 8), generator=generator)
    images = (noise + 60 * labels[:, None, None, None]).to(torch.uint8)
    split = TensorSplit(images, labels)
    data = Dataset(
        name="two",
        train=split,
        val=None,
        test=split,
        classes=("dark", "light"),
        channels=1,
        size=(8, 8),
        mean=(0.3,),
        std=(0.2,),
    )
    return Setup(data, "small_cnn", torch.device("cpu"), 0, Predefined(padding=1))


def dark_and_striped() -> Setup:
    """Eighty grey images that are bright, striped, both or neither."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.stack([torch.arange(80) % 2, torch.arange(80) // 2 % 2], 1)
    bright, striped = (60 * labels[:, i, None, None, None] for i in range(2))
    noise = torch.randint(0, 60, (80, 1, 8, 8), generator=generator)
    images = (noise + bright + striped * (torch.arange(8) % 2)).to(torch.uint8)
    split = TensorSplit(images, labels.float())
    one = dark_and_light()
    data = replace(one.dataset, train=split, test=split, classes=("bright", "striped"))
    return replace(one, dataset=data, task=MultiLabel())


def through_a_file(state: dict[str, Any]) -> Any:
    """A state as it comes back from a checkpoint."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


class CommandLine:
    """`python -m raysearch.run`, or another program, in a folder of its own."""

    def __init__(self, folder: Path, program: str = "raysearch.run") -> None:
        self.folder, self.program = folder, program
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.environment.pop("RAY_ADDRESS", None)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a run and return at once."""
        return self.spawn(sys.executable, "-m", self.program, *arguments)

    def spawn(self, *command: str, own_group: bool = False) -> subprocess.Popen[str]:
        """Start a process, in a group of its own or in this one's."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=own_group,
        )

    def run(self, *arguments: str, timeout: float = 200) -> subprocess.CompletedProcess[str]:
        """Run to the end."""
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            raise
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def files(self) -> list[str]:
        """Everything in the folder."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    """The command line in an empty folder."""
    return CommandLine(tmp_path)


@pytest.fixture(scope="module")
def module_cli(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """The command line in one folder for all tests of a module."""
    return CommandLine(tmp_path_factory.mktemp("cli"))


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """One Ray with two CPUs for all runs of a module that are started in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        with engine.cluster(Wish("cpu", cpus=2)):
            patch.setattr(engine, "cluster", lambda wish, *_: nullcontext(local_capacity(wish)))
            yield


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is drawn, which takes seconds."""
    monkeypatch.setattr(_write, "pictures", lambda measured: {})
    monkeypatch.setattr(_write, "cost_png", lambda summary: None)


Ask = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Ask:
    """`ask(cli, *arguments)` is `cli.run(*arguments)` in this process, which is quicker."""

    def asked(cli: CommandLine, *arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(cli.folder)
        capfd.readouterr()
        with mock.patch.dict(os.environ, cli.environment):
            os.environ.pop("RAY_ADDRESS", None)
            code = importlib.import_module(cli.program).main(arguments)
            token = os.environ.get(TOKEN)
        if token is not None:  # which Ray has kept for the life of this process
            os.environ[TOKEN] = token
        return subprocess.CompletedProcess(arguments, code, *capfd.readouterr())

    return asked


def wait_for(
    condition: Callable[[], bool],
    process: subprocess.Popen[str] | None = None,
    seconds: float = 90,
) -> None:
    """Wait until something holds, up to a minute and a half, while a process is alive."""
    end = time.monotonic() + seconds
    while not condition():
        if process is not None and process.poll() is not None:
            out, err = process.communicate()
            pytest.fail(f"the run ended with {process.returncode}:\n{out}\n{err}")
        if time.monotonic() > end:
            pytest.fail(f"waited for {seconds:.0f} s")
        time.sleep(0.05)  # looking takes time from what is waited for


def descendants(pid: int) -> Iterator[tuple[int, str]]:
    """Processes that a process has started, directly or not, with their command lines."""
    parents: dict[int, int] = {}
    commands: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            status = (entry / "stat").read_text().rpartition(")")[2].split()
            if status[0] == "Z":
                continue
            parents[int(entry.name)] = int(status[1])
            commands[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    for child in parents:
        ancestor = parents[child]
        while ancestor in parents and ancestor != pid:
            ancestor = parents[ancestor]
        if ancestor == pid:
            yield child, commands[child]


def kill_tree(process: subprocess.Popen[str]) -> None:
    """kill -9 of the driver alone; Ray has to notice by itself (its idle agents take a minute)."""
    children = [pid for pid, command in descendants(process.pid) if "Agent" not in command]
    assert children
    process.kill()
    process.communicate()
    wait_for(lambda: not any(_alive(pid) for pid in children))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def stopping() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes to stop when a test fails."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=30)


def epochs_done(run: Path, stage: str, proposal: str = "*") -> int:
    """Finished epochs of the stage's furthest work, as far as they are on disk.

    Args:
        run: the run's folder.
        stage: `search` or `evaluation`.
        proposal: of one with this id only, `shared` for AWS's shared training.
    """
    done = [0]
    for path in run.glob(f"trials/{stage}-*/{proposal}/*/progress.json"):
        try:
            done.append(json.loads(path.read_text())["epoch"])
        except (OSError, ValueError):
            continue
    return max(done)


def answers(run: Path, parallel: int) -> int:
    """Answers to the search with seed 0, on disk now or before.

    Args:
        run: the run's folder.
        parallel: proposals in a round.
    """
    found = [path.parent.name for path in run.glob("trials/search-*-seed-0/*-*/answer")]
    if not found:
        return 0
    rounds = [int(name.split("-")[0]) for name in found]  # the earliest is 1
    return (max(rounds) - 1) * parallel + rounds.count(max(rounds))


def figures_of(run: Path) -> dict[str, Any]:
    """What must not depend on how often a run was interrupted."""
    summary = json.loads((run / "summary.json").read_text())
    return {
        "policy": json.loads((run / "policy.json").read_text()),
        "errors": summary["errors"],
        "equivalents": summary["search"]["epoch_equivalents"],
    }
