"""What a run computes does not follow the machine, nor the directory from which it is resumed."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from _fake_engine import Recorded
from conftest import SMALL, Ask, CommandLine
from PIL import Image

from raysearch import methods
from raysearch.engine import Wish, local_capacity
from raysearch.experiment._compose import choices, from_yaml
from raysearch.experiment._experiment import compose_run
from raysearch.experiment._forecast import forecast
from raysearch.experiment._plan import make_plan
from raysearch.policy import trivial_augment

SEARCHING = [name for name in choices("method") if name not in methods.FIXED]


@pytest.mark.parametrize("method", [name for name in SEARCHING if not name.endswith("_paper")])
def test_what_is_proposed_is_the_same_on_every_machine(method: str) -> None:
    plan = make_plan(compose_run([f"method={method}"]))
    one = replace(local_capacity(Wish("cpu", cpus=1)), cpus=1.0)
    found = [
        [
            (group.count, group.proposals, group.parallel, group.equivalents, group.described)
            for group in forecast(plan, replace(one, cpus=float(cpus))).groups
        ]
        for cpus in (1, 2, 3, 9, 64)
    ]
    assert all(each == found[0] for each in found)


SIZES = {
    "aws": 8,
    "ohl": 8,
    "fast_autoaugment": 5,  # one of each fold
    "randaugment": 2,
    "validated_magnitude": 2,
    "dada": 1,
    "auto": 8,  # all that its budget can give a third of a training
}


def test_rounds_of_a_default_size() -> None:
    found = {
        name: next(iter(forecast(make_plan(compose_run([f"method={name}"])), None).groups)).parallel
        for name in SIZES
    }
    assert found == SIZES


def test_what_is_auto_is_settled_once(
    cli: CommandLine, ask: Ask, monkeypatch: pytest.MonkeyPatch, undrawn: None
) -> None:
    photos(cli.folder / "photos")
    engine = Recorded.in_place(monkeypatch)
    engine.stop_after = 1
    settings = ["data=folder", "data.root=photos", *QUICK]
    assert ask(cli, *settings, "name=mine", "--num-cpus", "2").returncode == 130
    began = from_yaml(cli.folder / "runs/mine/config.yaml")
    assert "auto" not in (began["model"]["name"], began["data"]["size"])
    monkeypatch.setattr("raysearch.models.choose_model", lambda *_: pytest.fail("chosen again"))
    engine.stop_after = None
    assert ask(cli, "--resume", "mine", "--num-cpus", "1").returncode == 0
    assert from_yaml(cli.folder / "runs/mine/config.yaml") == began


QUICK = [
    "search.epochs=2",
    "evaluation.epochs=2",
    "evaluation.seeds=2",
    "evaluation.batch_size=8",
    "search.batch_size=8",
    "device=cpu",
    "tracking=none",
]


def photos(folder: Path) -> None:
    """Two classes of few images."""
    for number in range(40):
        place = folder / f"Klasse {number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (number, 120 * (number % 2), 0)).save(place / f"{number}.png")


def test_a_run_is_resumed_from_another_directory(
    cli: CommandLine,
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    undrawn: None,
) -> None:
    """With its relative paths from where it began: images, a policy's file, storage, MLflow's."""
    photos(cli.folder / "Fotos für (1)")
    trivial_augment().save(cli.folder / "eigene, 1.json")
    engine = Recorded.in_place(monkeypatch)
    engine.stop_after = 1
    settings = ["data=folder", "data.root=Fotos für (1)", "storage=Ablage #1", *QUICK]
    policies = "evaluation.policies=[none,learned,'eigene, 1.json']"
    stopped = ask(cli, *settings, policies, "name=007", "runs_dir=${läufe}")
    assert stopped.returncode == 130, stopped.stderr
    run = cli.folder / "${läufe}/007"
    assert json.loads((run / "run.json").read_text())["directory"] == os.fspath(cli.folder)
    began = from_yaml(run / "config.yaml")
    engine.stop_after = None

    elsewhere = CommandLine(tmp_path_factory.mktemp("elsewhere"))
    done = ask(elsewhere, "--resume", os.fspath(run))
    assert done.returncode == 0, done.stderr
    assert elsewhere.files() == []
    assert from_yaml(run / "config.yaml") == began
    assert (cli.folder / "Ablage #1/007/report.html").is_file()
    summary = json.loads((run / "summary.json").read_text())
    assert "eigene, 1.json" in summary["errors"]

    again = ask(elsewhere, "--resume", os.path.relpath(run, elsewhere.folder))
    assert again.returncode == 0, again.stderr
    assert "is complete" in again.stdout


def test_a_run_whose_directory_is_gone_is_resumed_from_here(
    cli: CommandLine, ask: Ask, monkeypatch: pytest.MonkeyPatch, undrawn: None
) -> None:
    began = CommandLine(cli.folder / "before")
    began.folder.mkdir()
    photos(began.folder / "photos")
    engine = Recorded.in_place(monkeypatch)
    engine.stop_after = 1
    assert ask(began, "data=folder", "data.root=photos", "name=x", *QUICK).returncode == 130
    engine.stop_after = None
    began.folder.rename(cli.folder / "after")
    after = CommandLine(cli.folder / "after")
    done = ask(after, "--resume", "x")
    assert done.returncode == 0, done.stderr


def test_tracking_is_left_out_in_one_way(cli: CommandLine, ask: Ask) -> None:
    assert "name: none" in ask(cli, *SMALL, "--dry-run", "tracking=none").stdout
    refused = ask(cli, *SMALL, "tracking.enabled=false")
    assert refused.returncode == 2
    assert "unknown setting 'tracking.enabled'" in refused.stderr
