"""Processes that are killed: the run goes on and ends as an undisturbed one would have.

`pytest -m faults` does much more of this, to more methods.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from functools import cache
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


# Long enough to be caught in the act.
ARGUMENTS = [*SMALL, "search.epochs=30", "evaluation.epochs=8", "--num-cpus", "2", "device=cpu"]


METHODS = ["dada", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bilevel", "ddas"))]


@pytest.fixture(scope="module")
def undisturbed(module_cli: CommandLine) -> Callable[[str], dict[str, Any]]:
    """The result of a method's run that nobody disturbs; here all runs report every epoch."""
    module_cli.environment[REPORT_VARIABLE] = "0"

    @cache
    def result(method: str) -> dict[str, Any]:
        done = module_cli.run(*ARGUMENTS, f"method={method}", f"name={method}")
        assert done.returncode == 0, done.stderr
        run = module_cli.folder / "runs" / method
        assert not (run / "trials").exists()
        return result_of(run)

    return result


@pytest.mark.parametrize("method", METHODS)
def test_killed_workers_and_drivers_change_nothing(
    undisturbed: Callable[[str], dict[str, Any]],
    module_cli: CommandLine,
    ask: Ask,
    stopping: list[subprocess.Popen[str]],
    method: str,
) -> None:
    expected = undisturbed(method)
    name = f"{method}-disturbed"
    run = module_cli.folder / "runs" / name

    process = module_cli.start(*ARGUMENTS, f"method={method}", f"name={name}")
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

    finished = ask(module_cli, "--resume", str(run))
    assert finished.returncode == 0, finished.stderr
    assert result_of(run) == expected
    assert bool(expected["networks"]) == (method == "bilevel")
    log = (run / "raysearch.log").read_text()
    assert "goes on from" in log or "failed" in log


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dada", "bilevel", "ddas"])
def test_a_driver_killed_in_the_evaluation_changes_nothing(
    undisturbed: Callable[[str], dict[str, Any]],
    module_cli: CommandLine,
    stopping: list[subprocess.Popen[str]],
    method: str,
) -> None:
    name = f"{method}-late"
    run = module_cli.folder / "runs" / name
    process = module_cli.start(*ARGUMENTS, f"method={method}", f"name={name}")
    stopping.append(process)
    wait_for(lambda: epochs_done(run, "evaluation") >= 2, process)
    kill_tree(process)
    assert not (run / "summary.json").exists()
    finished = module_cli.run("--resume", name)
    assert finished.returncode == 0, finished.stderr
    assert result_of(run) == undisturbed(method)


def test_a_complete_run_has_nothing_to_resume(
    undisturbed: Callable[[str], dict[str, Any]], module_cli: CommandLine, ask: Ask
) -> None:
    undisturbed("dada")
    again = ask(module_cli, "--resume", "dada")
    assert again.returncode == 0
    assert "is complete" in again.stdout


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
