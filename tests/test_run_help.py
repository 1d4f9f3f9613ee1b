"""What the command line shows without running anything."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, descendants
from PIL import Image

from raysearch import __version__
from raysearch.cli._main import main
from raysearch.experiment._compose import choices, compose, config_dir
from raysearch.experiment._describe import cautions
from raysearch.experiment._experiment import compose_run
from raysearch.experiment._plan import make_plan


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_names_all_that_can_be_chosen(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capfd.readouterr().out
    for name in [*choices("method"), *choices("data"), *choices("model")]:
        assert name in out
    for flag in ("--num-gpus", "--num-cpus", "--address", "--dry-run", "--resume", "--quiet"):
        assert flag in out
    assert "search.epochs=" in out


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capfd.readouterr().out.strip() == f"raysearch {__version__}"


def test_dry_run_says_what_would_happen_and_starts_nothing(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import ray

    arguments = ["seeds=3", "data.limit=200", "search.epochs=5", "evaluation.seeds=[7,8]"]
    assert main(["method=dada", *arguments, "--dry-run", "--num-cpus", "2", "device=cpu"]) == 0
    out = capfd.readouterr().out
    assert "search: 3 trials of 5 epochs, 2 at once, each with 1 CPU, on cpu" in out
    assert "evaluation: 10 trials" in out
    assert "epoch-equivalents" in out
    assert "epochs: 5" in out
    assert not ray.is_initialized()
    assert not list(folder.iterdir())
    assert not [command for _, command in descendants(os.getpid()) if "raylet" in command]


def test_a_dry_run_of_much_takes_seconds(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    big = ["data=digits", "data.size=224", "model=resnet50", "data.limit=null"]
    began = time.monotonic()
    assert main([*big, "--dry-run", "--num-cpus", "2", "device=cpu"]) == 0
    assert time.monotonic() - began < 20  # ten, and reading the data, on a busy machine
    out = capfd.readouterr().out
    assert "this takes about " in out
    assert "data.size=112 would take about a quarter of that" in out


@pytest.mark.slow
def test_a_dry_run_of_a_folder_of_photos_takes_ten_seconds(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    for number in range(2000):
        place = folder / "photos" / f"class-{number % 4}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (100, 100, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.jpg")
    began = time.monotonic()
    assert main(["data=folder", "data.root=photos", "--dry-run", "--num-cpus", "2"]) == 0
    assert time.monotonic() - began < 10
    out = capfd.readouterr().out
    assert "epoch-equivalents" in out
    assert "model=small_cnn was chosen: " in out
    assert "resized and centre-cropped to 32x32; data.size= chooses another size" in out


def test_logical_gpus_are_packed(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    packed = ["search.gpus_per_trial=0.25", "evaluation.gpus_per_trial=0.25", "seeds=32"]
    flags = ["--dry-run", "--num-gpus", "8", "--num-cpus", "2"]
    assert main(["method=dada", *packed, *flags, "device=cpu", "data.limit=200"]) == 0
    out = capfd.readouterr().out
    assert "search: 32 trials of 200 epochs, 32 at once, each with 0.0625 CPU and 0.25 GPU" in out


def test_overrides_win_over_data_and_method_files() -> None:
    settings = compose(["method=dada_paper", "search.epochs=3"]).settings
    assert settings.search.epochs == 3
    assert settings.search.weight_decay == pytest.approx(2e-4)


def test_a_torchvision_model_by_its_name() -> None:
    assert compose(["model=efficientnet_b0"]).settings.model.name == "efficientnet_b0"


def test_every_method_and_data_set_composes() -> None:
    for method in choices("method"):
        compose([f"method={method}"])
    for data in choices("data"):
        compose([f"data={data}"])


def test_the_configuration_lies_beside_the_package() -> None:
    assert (config_dir() / "config.yaml").is_file()


@pytest.mark.parametrize("module", ["_main", "_compare"])
def test_the_command_line_starts_without_pytorch(module: str) -> None:
    script = f"import sys, raysearch.cli.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(("limit", "warned"), [(99, True), (100, False)])
def test_trainings_of_a_step_an_epoch_are_warned_of(limit: int, warned: bool) -> None:
    plan = make_plan(compose_run([f"data.limit={limit}", "evaluation.batch_size=50"]))
    said = cautions(plan)
    assert bool(said) == warned
    assert all("an epoch of 99 images is one step" in line for line in said)
