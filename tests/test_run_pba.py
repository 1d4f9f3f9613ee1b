"""`method=pba` from the command line: killed in the search, continued, asked what it would cost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

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
    "search.epochs=30",
    f"method.population={MEMBERS}",
    "method.interval=2",
    "device=cpu",
]


@pytest.fixture(scope="module")
def undisturbed(module_cli: CommandLine) -> Path:
    """A run that nobody disturbs, with one worker."""
    done = module_cli.run(*ARGUMENTS, "--num-cpus", "1", "name=pba")
    assert done.returncode == 0, done.stderr
    return module_cli.folder / "runs" / "pba"


def test_the_run_leaves_a_schedule_and_what_the_population_cost(undisturbed: Path) -> None:
    result = figures_of(undisturbed)
    assert result["policy"]["kind"] == "schedule"
    assert len(result["policy"]["phases"]) == 30
    assert set(result["policy"]["phases"][0]["probabilities"]) == {0.0}
    assert len(result["policy"]["phases"][0]["operations"]) == 30
    # whole batches of an epoch, and a validation of as many images after every second one
    assert result["equivalents"] == pytest.approx(4 * 30 * (1 + 1 / 3 / 2), rel=1e-6)
    assert set(result["errors"]) == {"predefined", "learned"}
    assert (undisturbed / "policy.png").is_file()
    assert not (undisturbed / "trials").exists()


@pytest.mark.slow
def test_killed_workers_and_drivers_change_nothing(
    undisturbed: Path, module_cli: CommandLine, stopping: list[subprocess.Popen[str]]
) -> None:
    run = module_cli.folder / "runs" / "disturbed"
    process = module_cli.start(*ARGUMENTS, "--num-cpus", "2", "name=disturbed")
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
    assert figures_of(run) == figures_of(undisturbed)


def test_a_dry_run_counts_all_members(module_cli: CommandLine, ask: Ask) -> None:
    shown = ask(module_cli, *ARGUMENTS, "--dry-run", "--num-cpus", "2", "seeds=2")
    assert shown.returncode == 0, shown.stderr
    searches = "search: 2 searches of 4 members that copy and explore 14 times, 2 at once"
    assert searches in shown.stdout
    costs = re.findall(r"cost: ([\d.]+) epoch-equivalents each, ([\d.]+) in all", shown.stdout)
    each, total = map(float, costs[0])
    assert each == pytest.approx(MEMBERS * 30 * (1 + 1 / 3 / 2), abs=0.1)
    assert total == pytest.approx(2 * each, rel=0.01)


def test_an_interval_that_never_ends_is_refused_before_anything_is_computed(
    module_cli: CommandLine, ask: Ask
) -> None:
    refused = ask(module_cli, *ARGUMENTS, "method.interval=30", "name=refused")
    assert refused.returncode == 2
    assert "members copy none in search.epochs=30" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not (module_cli.folder / "runs" / "refused").exists()
