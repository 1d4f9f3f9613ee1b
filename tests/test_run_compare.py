"""`python -m raysearch.compare` on the real thing: one Ray run, only what is missing, kills.

What is searched and evaluated is tested on recorded answers: see `test_experiment_plan.py`.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pandas
import pytest
from conftest import Ask, CommandLine, epochs_done, figures_of, kill_tree, wait_for
from mlflow import MlflowClient

from raysearch.engine._worker import REPORT_VARIABLE

QUICK = [
    *("search.epochs=4", "evaluation.epochs=2", "seeds=1", "evaluation.seeds=2"),
    *("data.limit=400", "--num-cpus", "2", "device=cpu"),
]
FIRST = ["methods=[none,dada]", *QUICK]


def summary_of(cli: CommandLine, name: str = "compare-digits") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((cli.folder / f"runs/{name}/summary.json").read_text())
    return found


def figures(cli: CommandLine, *methods: str) -> dict[str, Any]:
    """What must not depend on what else was compared, or on interruptions."""
    summary = summary_of(cli)
    return {
        name: (
            summary["errors"][name],
            summary["methods"][name]["search"]["epoch_equivalents"],
            json.loads((cli.folder / f"runs/compare-digits/policies/{name}.json").read_text()),
        )
        for name in methods
    }


@pytest.fixture
def compared(module_cli: CommandLine, ask: Ask, one_ray: None) -> CommandLine:
    """A comparison of two, to which a third is added; one for all tests."""
    cli = CommandLine(module_cli.folder, "raysearch.compare")
    if not (cli.folder / "runs").exists():
        first = ask(cli, *FIRST)
        assert first.returncode == 0, first.stderr
        added = ask(cli, "methods=[none,dada,uniform]", *QUICK)
        assert added.returncode == 0, added.stderr
        assert "2 of 2 trials done" in added.stdout  # the two trainings of the uniform policy
    return cli


def test_all_are_on_one_page(compared: CommandLine) -> None:
    summary = summary_of(compared)
    assert list(summary["rows"]) == ["none", "uniform", "dada"]
    folder = compared.folder / "runs/compare-digits"
    assert {path.name for path in folder.glob("*.html")} == {"report.html"}
    assert {path.name for path in folder.glob("policies/*.json")} == {
        "none.json",
        "uniform.json",
        "dada.json",
    }
    assert (folder / "report.html").stat().st_size > 10_000
    assert not (folder / "trials").exists()


@pytest.mark.slow
def test_a_method_finds_what_it_finds_alone(compared: CommandLine, ask: Ask) -> None:
    run = CommandLine(compared.folder)
    alone = ask(run, "method=dada", "evaluation.policies=[learned]", "name=alone", *QUICK)
    assert alone.returncode == 0, alone.stderr
    found = figures_of(compared.folder / "runs/alone")
    errors, equivalents, policy = figures(compared, "dada")["dada"]
    assert found == {
        "policy": policy,
        "errors": {"learned": errors},
        "equivalents": equivalents,
    }


def test_mlflow_has_costs_and_errors_in_columns(compared: CommandLine) -> None:
    client = MlflowClient(f"sqlite:///{compared.folder}/mlflow.db")
    experiment = client.get_experiment_by_name("compare-digits")
    runs = client.search_runs([experiment.experiment_id])
    parents = {run.info.run_name: run for run in runs if "mlflow.parentRunId" not in run.data.tags}
    assert set(parents) == {"none", "dada", "uniform", "compare-digits (comparison)"}
    for name in ("none", "dada", "uniform"):
        assert {"test_error", "search_epoch_equivalents", "trainings_bought"} <= set(
            parents[name].data.metrics
        )
    assert "difference/none/mean" in parents["dada"].data.metrics
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(children) == 1 + 3 * 2
    view = json.loads(experiment.tags["mlflow.sharedViewState.raysearch"])
    known = {name for run in parents.values() for name in run.data.metrics}
    shown = {c.split("`")[1] for c in view["selectedColumns"] if c.startswith("metrics.")}
    assert shown <= known
    log = (compared.folder / "runs/compare-digits/raysearch.log").read_text()
    assert "WARNING" not in log
    pages = client.list_artifacts(parents["compare-digits (comparison)"].info.run_id)
    assert "report.html" in {file.path for file in pages}


def test_existing_runs_and_experiments_are_compared_without_ray(
    compared: CommandLine, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.init", lambda **options: pytest.fail("Ray is started"))
    by_folder = ask(compared, "runs=[runs/compare-digits]", "name=again")
    assert by_folder.returncode == 0, by_folder.stderr
    by_experiment = ask(compared, "experiment=compare-digits", "name=tracked")
    assert by_experiment.returncode == 0, by_experiment.stderr
    for name in ("again", "tracked"):
        assert summary_of(compared, name)["errors"] == summary_of(compared)["errors"]
    missing = ask(compared, "experiment=nothing")
    assert missing.returncode == 2
    assert "has no experiment 'nothing'" in missing.stderr


def test_other_settings_need_another_name(compared: CommandLine, ask: Ask) -> None:
    changed = ask(compared, *FIRST, "search.epochs=5")
    assert changed.returncode == 2
    assert "compare-digits began with search.epochs=4, not 5" in changed.stderr


def test_nothing_of_the_users_is_touched(tmp_path: Path, ask: Ask) -> None:
    cli = CommandLine(tmp_path, "raysearch.compare")
    for file in ("photos/none/cat.png", "photos/trials/a/b"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    before = cli.files()
    refused = ask(cli, *FIRST, "name=photos", "runs_dir=.")
    assert refused.returncode == 2
    said = "error: photos exists and is no comparison of this version: choose another name=\n"
    assert refused.stderr == said
    assert cli.files() == before


@pytest.fixture(scope="module")
def left_out(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A comparison of four, of which two cannot go on."""
    cli = CommandLine(tmp_path_factory.mktemp("left-out"), "raysearch.compare")
    diverging = [f"{method}.search.lr=1e30" for method in ("ddas", "aws")]
    ended = cli.run("methods=[none,ddas,aws,dada]", *diverging, *QUICK)
    assert ended.returncode == 2
    [line] = ended.stderr.splitlines()
    assert line.startswith("error: left out of runs/compare-digits: ")
    assert "aws: no search of aws found a policy: training: the loss is not finite" in line
    assert "ddas: no search of ddas found a policy: search: the loss is not finite" in line
    assert "the same command tries again (aws, ddas: only other settings help)" in line
    return cli


@pytest.mark.slow
def test_it_goes_on_without_methods_that_cannot(
    left_out: CommandLine, compared: CommandLine
) -> None:
    folder = left_out.folder / "runs/compare-digits"
    summary = summary_of(left_out)
    assert list(summary["rows"]) == ["none", "dada"]
    assert set(summary["failed_methods"]) == {"aws", "ddas"}
    assert "DDAS could not go on and is left out: " in (folder / "report.html").read_text()
    assert figures(left_out, "none", "dada") == figures(compared, "none", "dada")
    state = json.loads((folder / "run.json").read_text())
    assert state["status"] == "failed"
    complete = dict.fromkeys(("none", "dada"), "complete")
    assert state["methods"] == {**complete, "aws": "failed", "ddas": "failed"}
    client = MlflowClient(f"sqlite:///{left_out.folder}/mlflow.db")
    experiment = client.get_experiment_by_name("compare-digits")
    runs = client.search_runs([experiment.experiment_id])
    failed = {run.info.run_name for run in runs if run.info.status == "FAILED"}
    assert {"aws", "ddas"} <= failed
    assert {run.info.status for run in runs} == {"FINISHED", "FAILED"}


@pytest.mark.slow
def test_a_method_left_out_begins_again_with_other_settings(left_out: CommandLine) -> None:
    again = left_out.run("methods=[none,ddas,dada]", *QUICK)  # what it had computed is forgotten
    assert again.returncode == 0, again.stderr
    assert summary_of(left_out)["failed_methods"] == {}
    rows = pandas.read_parquet(left_out.folder / "runs/compare-digits/history.parquet")
    assert rows[rows["method"] == "ddas"]["lr"].max() < 1


@pytest.mark.slow
def test_a_killed_comparison_goes_on(
    tmp_path: Path, compared: CommandLine, stopping: list[subprocess.Popen[str]]
) -> None:
    cli = CommandLine(tmp_path, "raysearch.compare")
    cli.environment[REPORT_VARIABLE] = "0"
    process = cli.start(*FIRST)
    stopping.append(process)
    folder = cli.folder / "runs/compare-digits"
    wait_for(lambda: epochs_done(folder, "search") >= 2, process)
    kill_tree(process)
    again = cli.run(*FIRST)
    assert again.returncode == 0, again.stderr
    assert figures(cli, "none", "dada") == figures(compared, "none", "dada")
