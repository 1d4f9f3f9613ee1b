"""`method=randaugment` from the command line: killed, continued, and its study opened."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import SMALL, CommandLine, descendants, figures_of, kept_state, kill_tree, wait_for

ARGUMENTS = [
    *SMALL,
    "method=randaugment",
    "search.epochs=40",
    "method.trials=6",
    "method.parallel=2",
    "method.startup_trials=2",
    "device=cpu",
]


def told(run: Path) -> int:
    """Trials whose answers are on disk."""
    if (state := kept_state(run)) is None:
        return 0
    search = state["search"]
    return len(search["study"]) + len(search["answers"])


def study_of(run: Path) -> list[dict[str, Any]]:
    """What Optuna's storage has."""
    study = optuna.load_study(study_name="seed 0", storage=f"sqlite:///{run}/optuna.db")
    return [
        {"params": t.params, "values": t.values, "seen": t.intermediate_values, "state": t.state}
        for t in study.trials
    ]


@pytest.mark.slow
def test_killed_workers_and_drivers_change_nothing(
    module_cli: CommandLine, stopping: list[subprocess.Popen[str]]
) -> None:
    done = module_cli.run(*ARGUMENTS, "--num-cpus", "1", "name=whole")
    assert done.returncode == 0, done.stderr
    assert "Policy" in done.stdout
    whole, run = (module_cli.folder / "runs" / name for name in ("whole", "disturbed"))

    process = module_cli.start(*ARGUMENTS, "--num-cpus", "2", "name=disturbed")
    stopping.append(process)
    wait_for(lambda: told(run) >= 1, process)
    workers = [pid for pid, command in descendants(process.pid) if "Trainable" in command]
    assert workers
    os.kill(workers[0], signal.SIGKILL)
    wait_for(lambda: told(run) >= 3, process)
    kill_tree(process)
    assert not (run / "policy.json").exists()

    finished = module_cli.run("--resume", "disturbed", "--num-cpus", "2")
    assert finished.returncode == 0, finished.stderr
    assert figures_of(run) == figures_of(whole)
    assert study_of(run) == study_of(whole)
    assert len(study_of(run)) == 6


def test_given_n_and_m_nothing_is_searched(module_cli: CommandLine) -> None:
    done = module_cli.run(*ARGUMENTS, "method.n=2", "method.m=9", "name=given")
    assert done.returncode == 0, done.stderr
    assert "search" not in done.stdout.partition("\n")[0]
    assert "magnitude 0.3" in done.stdout
    assert not (module_cli.folder / "runs" / "given" / "optuna.db").exists()
