"""`python -m raysearch.compare` on the real thing: one Ray run, only what is missing, kills."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pandas
import pytest
from conftest import Ask, CommandLine, kill_tree, wait_for
from mlflow import MlflowClient

QUICK = ["search.epochs=4", "evaluation.epochs=2", "seeds=1", "evaluation.seeds=2"]
FIRST = ["methods=[none,dada]", *QUICK]


def comparison_of(cli: CommandLine, name: str = "compare-digits") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((cli.folder / f"runs/{name}/summary.json").read_text())
    return found


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A comparison of two, to which a third is added."""
    cli = CommandLine(tmp_path_factory.mktemp("compare"), "raysearch.compare")
    first = cli.run(*FIRST)
    assert first.returncode == 0, first.stderr
    added = cli.run("methods=[none,dada,uniform]", *QUICK)
    assert added.returncode == 0, added.stderr
    assert "2 of 2 trials done" in added.stdout  # the two trainings of the uniform policy
    return cli


def test_all_methods_are_in_one_folder_and_on_one_page(compared: CommandLine) -> None:
    comparison = comparison_of(compared)
    assert set(comparison["rows"]) == {"none", "uniform", "dada"}
    folder = compared.folder / "runs/compare-digits"
    assert (folder / "report.html").stat().st_size > 10_000
    assert {path.stem for path in (folder / "policies").glob("*.json")} == set(comparison["rows"])
    assert not (folder / "trials").exists()


@pytest.mark.slow
def test_a_method_finds_what_it_finds_alone(compared: CommandLine, ask: Ask) -> None:
    run = CommandLine(compared.folder)
    alone = ask(run, "method=dada", "evaluation.policies=[learned]", "name=alone", *QUICK)
    assert alone.returncode == 0, alone.stderr
    runs = compared.folder / "runs"
    summary = json.loads((runs / "alone/summary.json").read_text())
    assert summary["errors"]["learned"] == comparison_of(compared)["errors"]["dada"]
    found = (runs / "compare-digits/policies/dada.json").read_text()
    assert (runs / "alone/policy.json").read_text() == found


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
    assert shown - known == {"difference/trivial_augment/mean"}  # which is not among the three
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
    names = set(comparison_of(compared)["rows"])
    for name in ("again", "tracked"):
        assert set(comparison_of(compared, name)["rows"]) == names
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
    assert refused.stderr.startswith("error: photos exists and is no comparison")
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
    assert "ddas: no search of ddas found a policy: search: the loss is not finite" in line
    assert "aws: " in line
    assert line.endswith("with the same settings of these methods or with others")
    return cli


def test_it_goes_on_without_methods_that_cannot(
    left_out: CommandLine, compared: CommandLine
) -> None:
    folder = left_out.folder / "runs/compare-digits"
    comparison = comparison_of(left_out)
    assert set(comparison["rows"]) == {"none", "dada"}
    assert set(comparison["failed_methods"]) == {"aws", "ddas"}
    assert "DDAS could not go on and is left out: " in (folder / "report.html").read_text()
    for name in ("none", "dada"):
        assert comparison["errors"][name] == comparison_of(compared)["errors"][name]
    state = json.loads((folder / "run.json").read_text())
    assert state["methods"] == {
        "none": "complete",
        "dada": "complete",
        "ddas": "failed",
        "aws": "failed",
    }
    client = MlflowClient(f"sqlite:///{left_out.folder}/mlflow.db")
    experiment = client.get_experiment_by_name("compare-digits")
    runs = client.search_runs([experiment.experiment_id])
    failed = {run.info.run_name for run in runs if run.info.status == "FAILED"}
    assert {"aws", "ddas"} <= failed
    assert {run.info.status for run in runs} == {"FINISHED", "FAILED"}


@pytest.mark.slow
def test_a_method_left_out_begins_again_with_other_settings(left_out: CommandLine) -> None:
    folder = left_out.folder / "runs/compare-digits"
    again = left_out.run("methods=[none,ddas,dada]", *QUICK)
    assert again.returncode == 0, again.stderr
    assert comparison_of(left_out)["failed_methods"] == {}
    rows = pandas.read_parquet(folder / "history.parquet")
    assert rows["lr"].max() < 1


@pytest.mark.slow
def test_a_killed_comparison_goes_on(
    tmp_path: Path, compared: CommandLine, stopping: list[subprocess.Popen[str]]
) -> None:
    cli = CommandLine(tmp_path, "raysearch.compare")
    process = cli.start(*FIRST)
    stopping.append(process)
    folder = cli.folder / "runs/compare-digits"
    wait_for(lambda: _epochs(folder) >= 2, process)
    kill_tree(process)
    again = cli.run(*FIRST)
    assert again.returncode == 0, again.stderr
    for name in ("none", "dada"):
        expected = comparison_of(compared)["errors"][name]
        assert comparison_of(cli)["errors"][name] == expected


def _epochs(folder: Path) -> int:
    done = [0]
    for path in folder.glob("trials/*/*/checkpoint_*/progress.json"):
        try:
            done.append(json.loads(path.read_text())["epoch"])
        except (OSError, ValueError):
            continue
    return max(done)
