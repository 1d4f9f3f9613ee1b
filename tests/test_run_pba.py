"""`method=pba` from the command line: killed in the search, continued, asked what it would cost."""

from __future__ import annotations

import os
import re
import signal
import subprocess

import pytest
from conftest import (
    SMALL,
    Ask,
    CommandLine,
    answers,
    descendants,
    figures_of,
    kill_tree,
    wait_for,
)

MEMBERS = 4
ARGUMENTS = [
    *SMALL,
    "method=pba",
    "seeds=1",
    "search.epochs=6",
    f"method.population={MEMBERS}",
    "method.interval=2",
    "evaluation.epochs=1",
    "device=cpu",
]
LONG = [*ARGUMENTS, "search.epochs=30"]  # enough to be caught in the act


def test_the_run_leaves_a_schedule_and_what_the_population_cost(cli: CommandLine, ask: Ask) -> None:
    done = ask(cli, *ARGUMENTS, "--num-cpus", "1", "name=pba")
    assert done.returncode == 0, done.stderr
    run = cli.folder / "runs" / "pba"
    result = figures_of(run)
    assert result["policy"]["kind"] == "schedule"
    assert len(result["policy"]["phases"]) == 6
    assert set(result["policy"]["phases"][0]["probabilities"]) == {0.0}
    assert len(result["policy"]["phases"][0]["operations"]) == 30
    # whole batches of an epoch, and a validation of as many images after every second one
    assert result["equivalents"] == pytest.approx(4 * 6 * (1 + 1 / 3 / 2), rel=1e-6)
    assert set(result["errors"]) == {"predefined", "learned"}
    assert (run / "policy.png").is_file()
    assert not (run / "trials").exists()


@pytest.mark.slow
def test_killed_workers_and_drivers_change_nothing(
    module_cli: CommandLine, stopping: list[subprocess.Popen[str]]
) -> None:
    done = module_cli.run(*LONG, "--num-cpus", "1", "name=undisturbed")
    assert done.returncode == 0, done.stderr
    run = module_cli.folder / "runs" / "disturbed"
    process = module_cli.start(*LONG, "--num-cpus", "2", "name=disturbed")
    stopping.append(process)
    wait_for(lambda: answers(run, MEMBERS) >= 9, process)
    workers = [pid for pid, command in descendants(process.pid) if "Trainable" in command]
    assert workers
    os.kill(workers[0], signal.SIGKILL)
    before = answers(run, MEMBERS)
    wait_for(lambda: answers(run, MEMBERS) >= before + 8, process)
    kill_tree(process)
    assert answers(run, MEMBERS) < 15 * MEMBERS

    process = module_cli.start("--resume", "disturbed", "--num-cpus", "2")
    stopping.append(process)
    before = answers(run, MEMBERS)
    wait_for(lambda: answers(run, MEMBERS) >= before + 8, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in err
    assert answers(run, MEMBERS) < 15 * MEMBERS

    finished = module_cli.run("--resume", str(run), "--num-cpus", "2")
    assert finished.returncode == 0, finished.stderr
    assert figures_of(run) == figures_of(module_cli.folder / "runs" / "undisturbed")


def test_a_dry_run_counts_all_members(cli: CommandLine, ask: Ask) -> None:
    shown = ask(cli, *LONG, "--dry-run", "--num-cpus", "2", "seeds=2")
    assert shown.returncode == 0, shown.stderr
    searches = "search: 2 searches of 4 members that copy and explore 14 times, 2 at once"
    assert searches in shown.stdout
    costs = re.findall(r"cost: ([\d.]+) epoch-equivalents each, ([\d.]+) in all", shown.stdout)
    each, total = map(float, costs[0])
    assert each == pytest.approx(MEMBERS * 30 * (1 + 1 / 3 / 2), abs=0.1)
    assert total == pytest.approx(2 * each, rel=0.01)
