"""`method=aws` from the command line: killed in both stages of the search, a given checkpoint."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pandas
import pytest
from conftest import (
    SMALL,
    Ask,
    CommandLine,
    answers,
    descendants,
    epochs_done,
    figures_of,
    kill_tree,
    wait_for,
)

from raysearch.engine._worker import REPORT_VARIABLE

PARALLEL = 4
ARGUMENTS = [
    *SMALL,
    "method=aws",
    "seeds=1",
    "search.epochs=6",
    "method.updates=2",
    f"finetune.parallel={PARALLEL}",
    "evaluation.epochs=1",
    "device=cpu",
]
LONG = [*ARGUMENTS, "search.epochs=20", "method.updates=6"]  # enough to be caught in the act


@pytest.fixture
def undisturbed(module_cli: CommandLine, ask: Ask, one_ray: None) -> Path:
    """A run that nobody disturbs, with one worker; one for all tests."""
    run = module_cli.folder / "runs" / "aws"
    if not run.exists():
        done = ask(module_cli, *ARGUMENTS, "--num-cpus", "1", "name=aws")
        assert done.returncode == 0, done.stderr
        assert ": aws shared checkpoint seed 0: " in done.stdout
    return run


def test_the_run_leaves_a_policy_over_pairs_and_what_it_cost(undisturbed: Path) -> None:
    result = figures_of(undisturbed)
    assert result["policy"]["kind"] == "pairs"
    assert len(result["policy"]["operations"]) == 36
    trials = 2 * 4 * (3 * (0.8 + 1 / 3))  # epochs of whole batches, validated each
    assert result["equivalents"] == pytest.approx(6 + trials, rel=0.3)
    assert (undisturbed / "shared" / "aws" / "seed-0.pt").is_file()
    assert not (undisturbed / "trials").exists()
    history = pandas.read_parquet(undisturbed / "history.parquet")
    assert history["stage"].value_counts()[["shared", "search"]].to_dict() == {
        "shared": 6,
        "search": 2,
    }


@pytest.mark.slow
def test_killed_workers_and_drivers_change_nothing(
    module_cli: CommandLine, stopping: list[subprocess.Popen[str]]
) -> None:
    done = module_cli.run(*LONG, "--num-cpus", "1", "name=undisturbed")
    assert done.returncode == 0, done.stderr
    run = module_cli.folder / "runs" / "disturbed"
    module_cli.environment[REPORT_VARIABLE] = "0"
    process = module_cli.start(*LONG, "--num-cpus", "2", "name=disturbed")
    stopping.append(process)
    wait_for(lambda: epochs_done(run, "search", "shared") >= 3, process)
    kill_tree(process)
    assert epochs_done(run, "search", "shared") < 20

    process = module_cli.start("--resume", "disturbed", "--num-cpus", "2")
    stopping.append(process)
    wait_for(lambda: answers(run, PARALLEL) >= 5, process)
    workers = [pid for pid, command in descendants(process.pid) if "Trainable" in command]
    assert workers
    os.kill(workers[0], signal.SIGKILL)
    before = answers(run, PARALLEL)
    wait_for(lambda: answers(run, PARALLEL) >= before + 6, process)
    kill_tree(process)
    assert not (run / "policy.json").exists()

    finished = module_cli.run("--resume", str(run), "--num-cpus", "2")
    assert finished.returncode == 0, finished.stderr
    assert figures_of(run) == figures_of(module_cli.folder / "runs" / "undisturbed")


def test_a_shared_checkpoint_is_used_again(
    undisturbed: Path, module_cli: CommandLine, ask: Ask
) -> None:
    given = f"method.shared_checkpoint={undisturbed}"
    done = ask(module_cli, *ARGUMENTS, given, "--num-cpus", "1", "name=again")
    assert done.returncode == 0, done.stderr
    assert "shared checkpoint" not in done.stdout
    again = module_cli.folder / "runs" / "again"
    assert figures_of(again) == figures_of(undisturbed)
    assert (again / "shared" / "aws" / "seed-0.pt").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search.epochs=9"], "it was made with search.epochs 6, not 9"),
        (["model=resnet18"], "it was made with model small_cnn, not resnet18"),
        (["seeds=[1]"], "seed-1.pt"),
        (["data.split_seed=4"], "it was made with training images"),
        (["method.shared_checkpoint=config.yaml"], "config.yaml: there is no seed-0.pt in it"),
        (["method.shared_checkpoint="], "expected a word that is not empty"),
    ],
)
def test_one_that_does_not_fit_is_refused_before_anything_is_computed(
    undisturbed: Path,
    module_cli: CommandLine,
    ask: Ask,
    arguments: list[str],
    message: str,
) -> None:
    given = f"method.shared_checkpoint={undisturbed}"
    refused = ask(module_cli, *ARGUMENTS, given, *arguments, "name=refused")
    assert refused.returncode == 2
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not Path("runs/refused").exists()
