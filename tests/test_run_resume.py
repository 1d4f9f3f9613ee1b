"""Processes that are killed: the run goes on and ends as an undisturbed one would have.

`pytest -m faults` does much more of this, to more methods.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    SMALL,
    Ask,
    CommandLine,
    descendants,
    epochs_done,
    figures_of,
    kill_tree,
    wait_for,
)

import raysearch
from raysearch.engine._worker import REPORT_VARIABLE


def result_of(run: Path) -> dict[str, Any]:
    """What must not depend on how often a run was interrupted."""
    return {
        **figures_of(run),
        "networks": {
            path.name: {
                name: tensor.tolist()
                for name, tensor in raysearch.load_network(path).state_dict().items()
            }
            for path in run.glob("networks/*/*")
        },
    }


# Long enough to be caught in the act: of the search, and of the evaluation.
ARGUMENTS = [*SMALL, "search.epochs=30", "--num-cpus", "2", "device=cpu"]
SHORT = [*ARGUMENTS, "evaluation.epochs=1", "evaluation.policies=[learned]"]
LATE = [*ARGUMENTS, "evaluation.epochs=8"]
METHODS = ["dada", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bilevel", "ddas"))]


@pytest.fixture
def every_epoch(module_cli: CommandLine) -> CommandLine:
    """A command line whose runs report every epoch."""
    module_cli.environment[REPORT_VARIABLE] = "0"
    return module_cli


def undisturbed(cli: CommandLine, ask: Ask, arguments: list[str], method: str) -> dict[str, Any]:
    """The result of a run that nobody disturbs, with a worker less."""
    name = f"{method}-undisturbed-{len(list((cli.folder / 'runs').glob('*')))}"
    done = ask(cli, *arguments, "--num-cpus", "1", f"method={method}", f"name={name}")
    assert done.returncode == 0, done.stderr
    assert not (cli.folder / "runs" / name / "trials").exists()
    complete = ask(cli, "--resume", name)
    assert complete.returncode == 0
    assert "is complete" in complete.stdout
    return result_of(cli.folder / "runs" / name)


@pytest.mark.parametrize("method", METHODS)
def test_killed_workers_and_drivers_change_nothing(
    every_epoch: CommandLine, ask: Ask, stopping: list[subprocess.Popen[str]], method: str
) -> None:
    expected = undisturbed(every_epoch, ask, SHORT, method)
    name = f"{method}-disturbed"
    run = every_epoch.folder / "runs" / name

    process = every_epoch.start(*SHORT, f"method={method}", f"name={name}")
    stopping.append(process)
    wait_for(lambda: epochs_done(run, "search") >= 3, process)
    worker = [pid for pid, command in descendants(process.pid) if "Trainable" in command]
    assert worker
    before = epochs_done(run, "search")
    for pid in worker:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: epochs_done(run, "search") >= before + 4, process)
    kill_tree(process)
    assert 0 < epochs_done(run, "search") < 30

    finished = ask(every_epoch, "--resume", str(run))
    assert finished.returncode == 0, finished.stderr
    assert result_of(run) == expected
    assert bool(expected["networks"]) == (method == "bilevel")
    log = (run / "raysearch.log").read_text()
    assert "goes on from" in log or "failed" in log


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dada", "bilevel", "ddas"])
def test_a_driver_killed_in_the_evaluation_changes_nothing(
    every_epoch: CommandLine, ask: Ask, stopping: list[subprocess.Popen[str]], method: str
) -> None:
    name = f"{method}-late"
    run = every_epoch.folder / "runs" / name
    process = every_epoch.start(*LATE, f"method={method}", f"name={name}")
    stopping.append(process)
    wait_for(lambda: epochs_done(run, "evaluation") >= 2, process)
    kill_tree(process)
    assert not (run / "summary.json").exists()
    finished = every_epoch.run("--resume", name)
    assert finished.returncode == 0, finished.stderr
    assert result_of(run) == undisturbed(every_epoch, ask, LATE, method)


def test_ctrl_c_keeps_what_was_done(
    cli: CommandLine, ask: Ask, stopping: list[subprocess.Popen[str]]
) -> None:
    process = cli.start(*ARGUMENTS, "search.epochs=5000", "name=stopped")
    stopping.append(process)
    run = cli.folder / "runs" / "stopped"
    wait_for(lambda: epochs_done(run, "search") >= 2, process)
    refused = ask(cli, "--resume", "stopped")
    assert refused.returncode == 2
    assert "still going on in another process" in refused.stderr
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - start < 30
    assert process.returncode == 130
    assert "--resume runs/stopped" in err.splitlines()[-1]
    assert "Traceback" not in err
    state = json.loads((run / "run.json").read_text())
    assert state["status"] == "interrupted"
    assert epochs_done(run, "search") >= 2
    state["data"]["images"]["train"] += 1  # as if an image had been removed since
    (run / "run.json").write_text(json.dumps(state))
    other = ask(cli, "--resume", "stopped")
    assert other.returncode == 2
    assert "are others than when runs/stopped began (train: 201, now 200)" in other.stderr
