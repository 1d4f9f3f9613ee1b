"""What a person sees of the data before anything is computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len

from raysearch.data import Dataset, load_dataset
from raysearch.engine import Wish, local_capacity
from raysearch.experiment import _forecast
from raysearch.experiment._count import Plain
from raysearch.experiment._data_table import data_lines
from raysearch.experiment._describe import describe, described
from raysearch.experiment._experiment import compose_run
from raysearch.experiment._first_picture import draw_first
from raysearch.experiment._forecast import forecast
from raysearch.experiment._plan import Plan, make_plan


def fill(root: Path, counts: dict[str, int], bits: int = 8) -> Path:
    rng = np.random.default_rng(len(counts))
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 1 << bits, (20, 30), np.uint16)
            pixels[0, :2] = 0, (1 << bits) - 1
            image = Image.fromarray(pixels if bits > 8 else pixels.astype(np.uint8))
            image.save(root / name / f"{number}.png")
    return root


def load(root: Path) -> Dataset:
    return load_dataset({"name": "folder", "root": str(root)})


def test_parts_classes_and_images(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"[red]": 12, "dog": 30, "猫": 4})
    fill(tmp_path / "test", {"dog": 3, "猫": 3}, bits=12)
    lines = data_lines(load(tmp_path), "25%")
    rows = [line.split() for line in lines]
    assert rows[0] == ["part", "images", "classes", "rarest", "most", "frequent", "origin"]
    assert rows[2] == ["train", "46", "3", "猫", "(4)", "dog", "(30)", "read"]
    assert lines[3].split("  ")[-1].strip() == "25% of train, held out"
    assert rows[4] == ["test", "6", "2", "of", "3", "[red]", "(0)", "dog", "(3)", "read"]
    assert lines[5] == (
        "stored: 20x30 pixels; grey, 8 bits (46); grey, 16 bits (6); used as 20x30 pixels, 1 "
        "channel of 8 bits"
    )
    assert lines[6].startswith("6 of 52 images have more than 8 bits, values from 0 to 4095: ")


def test_parts_of_their_own_and_such_that_are_split_off(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"a": 10, "b": 10})
    fill(tmp_path / "val", {"a": 4, "b": 4})
    rows = [line.split() for line in data_lines(load(tmp_path), "50%")]
    assert rows[2] == ["train", "16", "2", "each", "8", "read"]
    assert rows[3] == ["val", "8", "2", "each", "4", "read"]
    assert rows[4] == ["test", "4", "2", "each", "2", "split", "off"]


def test_objects_in_memory_and_several_labels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)
    labels = np.stack((np.arange(12) % 2, np.ones(12, int), np.arange(12) % 3 == 0), 1)
    data = Dataset.of((images, labels), test=(images, labels), classes=["a", "b", "c"])
    lines = data_lines(data, "50%")
    assert lines[2].split() == ["train", "12", "3", "c", "(4)", "b", "(12)", "read"]
    assert lines[5] == "used as 6x5 pixels, 3 channels of 8 bits"


@pytest.mark.parametrize("sign", ["x", "猫"])
def test_long_names_keep_the_table_narrow(tmp_path: Path, sign: str) -> None:
    fill(tmp_path, {sign * 60: 5, f"{sign * 59}y": 6})
    lines = data_lines(load(tmp_path), "50%")[:5]
    assert all(cell_len(line) <= 100 for line in lines)
    assert lines[0].startswith("part    images   classes")
    assert lines[2].startswith("train")


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setattr(_forecast, "plain_cost", lambda *_: Plain(seconds=1e-4, parameters=1000))
    root = fill(tmp_path / "photos", {"a": 20, "b": 30}, bits=10)
    asked = ["method=dada", "data=folder", f"data.root={root}", "model=small_cnn", "device=cpu"]
    return make_plan(compose_run(asked), local_capacity(Wish("cpu", 2)))


def test_a_dry_run_and_the_first_lines_have_it(plan: Plan) -> None:
    lines = data_lines(plan.dataset, "50%")
    dry = describe(plan, forecast(plan, local_capacity(Wish("cpu", 2))))
    assert dry.startswith("\n".join(["# data", *lines, "", "# trials"]))
    assert described(plan, "cpu").splitlines()[1:] == lines
    (said,) = [line for line in dry.splitlines() if "more than 8 bits" in line]
    assert said.startswith("50 of 50 images")


def test_images_are_drawn_before_a_search(plan: Plan, tmp_path: Path) -> None:
    assert draw_first(plan, tmp_path) == [tmp_path / "augmented.png"]
    with Image.open(tmp_path / "augmented.png") as picture:
        assert min(picture.size) > 100
    assert draw_first(plan, tmp_path) == []  # what is there stays


def test_what_a_search_never_uses_is_not_drawn(tmp_path: Path) -> None:
    plan = make_plan(compose_run(["method=stn", "data.limit=100"]), local_capacity(Wish("cpu", 2)))
    assert draw_first(plan, tmp_path) == []


def test_the_range_is_settled_once(plan: Plan) -> None:
    assert plan.experiment.values["data"]["range"] == [0, 1023]
    again = make_plan(plan.experiment, local_capacity(Wish("cpu", 2)))
    assert again.dataset.mean == plan.dataset.mean
    assert again.dataset.range == (0, 1023)
