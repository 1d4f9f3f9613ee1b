"""`method=ohl` from the command line: kills, one worker or two, a lost file."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import pytest
from conftest import SMALL, CommandLine, answers, descendants, figures_of, kill_tree, wait_for

PARALLEL = 3
ARGUMENTS = [
    *SMALL,
    "method=ohl",
    "seeds=1",
    "search.epochs=24",
    "method.updates=12",
    f"method.parallel={PARALLEL}",
    "evaluation.epochs=1",
    "evaluation.policies=[learned]",
    "device=cpu",
]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_workers_and_drivers_change_nothing(
    cli: CommandLine, stopping: list[subprocess.Popen[str]]
) -> None:
    done = cli.run(*ARGUMENTS, "--num-cpus", "1", "name=undisturbed", timeout=400)
    assert done.returncode == 0, done.stderr
    undisturbed = figures_of(cli.folder / "runs" / "undisturbed")
    assert undisturbed["policy"]["kind"] == "schedule"
    assert len(undisturbed["policy"]["phases"]) == 12
    assert undisturbed["equivalents"] == pytest.approx(24 * 3 + 36 / 3, rel=0.3)

    run = cli.folder / "runs" / "disturbed"
    process = cli.start(*ARGUMENTS, "--num-cpus", "2", "name=disturbed")
    stopping.append(process)
    wait_for(lambda: answers(run, PARALLEL) >= 5, process)
    workers = [pid for pid, command in descendants(process.pid) if "Trainable" in command]
    assert workers
    os.kill(workers[0], signal.SIGKILL)
    before = answers(run, PARALLEL)
    wait_for(lambda: answers(run, PARALLEL) >= before + 4, process)
    kill_tree(process)
    assert not (run / "policy.json").exists()

    lost = shutil.copytree(run, run.with_name("lost"), symlinks=True)
    for file in lost.glob("trials/search-ohl-seed-0/*/answer/file.pt"):
        file.unlink()
    failed = cli.run("--resume", "lost", "--num-cpus", "2", timeout=400)
    assert failed.returncode == 2
    assert "file.pt is gone, which the search goes on from" in failed.stderr
    assert failed.stderr.strip().count("\n") == 0

    finished = cli.run("--resume", str(run), "--num-cpus", "2", timeout=400)
    assert finished.returncode == 0, finished.stderr
    assert figures_of(run) == undisturbed
