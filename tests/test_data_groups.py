"""`data.groups`: what belongs together stays together, in every split and fold."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from test_data_folder import load, refusal
from test_data_parquet import IMAGE, png
from test_data_parquet import load as load_parquet

from raysearch.data import Dataset
from raysearch.data._grouped import grouped_folds, grouped_part
from raysearch.errors import RaysearchError
from raysearch.methods._folds import stratified_folds

PATIENTS, SLICES = 20, 5


def write(root: Path, form: str = "patient{p}_slice{s}.png", inside: str = "") -> None:
    """Noise of 20 patients of two classes, 5 slices each; the first pixel tells whose."""
    rng = np.random.default_rng(0)
    for p in range(PATIENTS):
        for s in range(SLICES):
            path = root / inside / "ab"[p % 2] / form.format(p=p, s=s, side="vwxyz"[s])
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            pixels[0, 0] = p
            Image.fromarray(pixels).save(path)


def patients(split: Any) -> set[int]:
    batches = split.batches(64, device=torch.device("cpu"), generator=None)
    return {int(p) for images, _, _ in batches for p in images[:, 0, 0, 0]}


def check(data: Dataset) -> None:
    """No patient is on two sides of any split, and the shares are about what was asked for."""
    assert not patients(data.train) & patients(data.test)
    assert len(data.test) == 20
    assert data.test.targets.bincount().tolist() == [10, 10]
    for seed in range(3):
        train, val = data.search_splits(seed, 0.25)
        assert not patients(train) & patients(val)
        assert patients(train) | patients(val) == patients(data.train)
        assert len(val) == 20
    folds = stratified_folds(data.train.targets, 4, 0, data.train.groups)
    whose = [patients(data.train.subset(fold)) for fold in folds]
    assert sorted(p for fold in whose for p in fold) == sorted(patients(data.train))
    assert {len(fold) for fold in folds} == {20}


@pytest.mark.parametrize("limit_mb", [4096, 0], ids=["resident", "stream"])
@pytest.mark.parametrize("pattern", [r"patient\d+", r"^(.*)_", r"^[a-z]+(?P<who>\d+)_slice(?:\d)"])
def test_a_pattern_of_the_files_names(tmp_path: Path, pattern: str, limit_mb: int) -> None:
    write(tmp_path)
    data = load(tmp_path, groups=pattern, memory_limit_mb=limit_mb)
    check(data)
    assert (
        "data.groups: 20 groups of 100 images, the largest of 5, which splits keep whole"
        in data.notes
    )


def test_a_pattern_of_the_folders(tmp_path: Path) -> None:
    write(tmp_path, "p{p}/{s}.png", "train")
    check(load(tmp_path, groups=r"p\d+"))


@pytest.mark.parametrize("named", ["path", "part", "name"])
def test_a_csv_file(tmp_path: Path, named: str) -> None:
    write(tmp_path, "{p}-{s}.png", "train")
    rows = [["file", "group"]]
    for p in range(PATIENTS):
        for s in range(SLICES):
            name = f"{p}-{s}.png"
            within = f"{'ab'[p % 2]}/{name}"
            rows.append([{"path": f"train/{within}", "part": within, "name": name}[named], f"P{p}"])
    place = tmp_path / ("train/who.csv" if named == "part" else "who.csv")
    with open(place, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    data = load(tmp_path, groups=str(place.relative_to(tmp_path)))
    check(data)
    assert len(data.notes) == 1
    check(load(tmp_path, groups=str(place)))


def write_parquet(root: Path, patients: list[Any]) -> None:
    images = [{"bytes": png(p or 0), "path": f"{p}_{n}.png"} for n, p in enumerate(patients)]
    labels = [(p or 0) % 2 for p in patients]
    table = pa.table(
        {"image": pa.array(images, IMAGE), "label": labels, "patient": pa.array(patients)}
    )
    pq.write_table(table, root / "train-0.parquet", row_group_size=7)


@pytest.mark.parametrize("groups", ["patient", r"^\d+"])
def test_a_parquet_column(tmp_path: Path, groups: str) -> None:
    write_parquet(tmp_path, [p for p in range(PATIENTS) for _ in range(SLICES)])
    check(load_parquet(tmp_path, groups=groups, duplicates="warn"))


def test_images_without_a_group_are_said(tmp_path: Path) -> None:
    write_parquet(tmp_path, [p for p in range(10) for _ in range(4)] + [None, None])
    data = load_parquet(tmp_path, groups="patient")
    assert "2 images are in no group of data.groups, each is taken for one of its own: " in (
        " ".join(data.notes)
    )
    assert data.train.groups is not None


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("patien[", "no regular expression"),
        ("who.csv", "No such file"),
        ("nurse", "it matches no image's name"),
    ],
)
def test_groups_that_are_wrong(tmp_path: Path, groups: str, message: str) -> None:
    write(tmp_path)
    assert message in refusal(tmp_path, groups=groups)


@pytest.mark.parametrize("groups", [".*", r"patient\d+_slice\d+", "each.csv"])
def test_images_that_are_each_a_group_of_their_own_are_said(tmp_path: Path, groups: str) -> None:
    write(tmp_path)
    names = sorted(path.name for path in tmp_path.glob("*/*.png"))
    rows = [f"{name},{number}" for number, name in enumerate(names)]
    (tmp_path / "each.csv").write_text("\n".join(["file,group", *rows]))
    data = load(tmp_path, groups=groups)
    assert any("each of the 100 images is a group of its own" in note for note in data.notes)


def test_groups_on_both_sides_of_given_parts_are_said(tmp_path: Path) -> None:
    write(tmp_path, inside="train")
    write(tmp_path, inside="test")
    notes = load(tmp_path, groups=r"patient\d+").notes
    assert any(note.startswith("20 groups are in train and in test: patient0, ") for note in notes)


def test_without_the_setting_splits_are_as_ever(tmp_path: Path) -> None:
    write(tmp_path)
    data = load(tmp_path)
    assert data.train.groups is None
    assert patients(data.train) & patients(data.test)


def test_objects_with_groups() -> None:
    images = np.random.default_rng(0).integers(0, 256, (100, 4, 4, 3), dtype=np.uint8)
    who = [f"p{i // 5}" for i in range(100)]
    images[:, 0, 0] = (np.arange(100) // 5)[:, None]
    check(Dataset.of((images, np.arange(100) // 5 % 2), groups=who))
    with pytest.raises(RaysearchError, match="99 for 100 images"):
        Dataset.of((images, np.arange(100) % 2), groups=who[:99])


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.2, 0.35, 0.5])
def test_shares_of_uneven_groups(multi: bool, share: float) -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 60, 600) ** 2 // 40
    targets: Any = rng.integers(0, 4, 600)
    if multi:
        targets = (rng.random((600, 5)) < 0.3).astype(np.float32)
    part = grouped_part(targets, groups, share, 0)
    assert not set(groups[part]) & set(groups[~part])
    assert part.mean() == pytest.approx(share, abs=0.05)
    for label in range(4):
        has = targets[:, label] > 0 if multi else targets == label
        assert part[has].mean() == pytest.approx(share, abs=0.12)
    assert (grouped_part(targets, groups, share, 0) == part).all()


def test_the_rest_has_every_class() -> None:
    groups = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    targets = np.array([0, 0, 0, 0, 0, 1, 0, 0])  # class 1 is in group 2 alone
    for seed in range(20):
        part = grouped_part(targets, groups, 0.5, seed)
        assert not part[5]
        assert part.any()
    with pytest.raises(RaysearchError, match="2 groups cannot be divided"):
        grouped_part(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]), 0.5, 0)


def test_folds_of_groups() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 40, 400)
    folds = grouped_folds(rng.integers(0, 3, 400), groups, 5, 0)
    assert all(len(set(folds[groups == group])) == 1 for group in range(40))
    assert np.bincount(folds).min() > 60
    with pytest.raises(RaysearchError, match="there are only 3 groups"):
        grouped_folds(np.arange(9) % 2, np.arange(9) // 3, 5, 0)


@pytest.mark.parametrize(
    ("form", "example"),
    [
        ("patient{p}_slice{s}.png", "patient19"),
        ("{p}-{s}.png", "19"),
        ("video {p} frame {s:03}.jpg.png", None),
        ("p{p}.view{s}.png", "p19"),
        ("p{p}/{s}.png", "a/p18"),
        ("{p}_{side}.png", "a/18"),
        ("eye{p}{side}.png", "a/eye18"),
        ("scan{p}{s:02}.png", None),
        ("img_{p}0{s}.png", None),
    ],
)
def test_likely_groups_are_pointed_out(tmp_path: Path, form: str, example: str | None) -> None:
    write(tmp_path, form)
    notes = [note for note in load(tmp_path).notes if "likely groups" in note]
    assert len(notes) == (example is not None)
    if notes:
        assert notes[0].startswith("20 likely groups by their names, as ")
        pattern = notes[0].partition("data.groups='")[2].partition("'")[0]
        check(load(tmp_path, groups=pattern))
        assert not [note for note in load(tmp_path, groups=pattern).notes if "likely" in note]


def test_a_likely_column_is_pointed_out(tmp_path: Path) -> None:
    write_parquet(tmp_path, [p for p in range(PATIENTS) for _ in range(SLICES)])
    assert any("data.groups=patient keeps" in note for note in load_parquet(tmp_path).notes)


def test_near_equal_images_are_pointed_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(20):
        coarse = rng.integers(0, 256, (4, 4), dtype=np.uint8)
        scene = np.asarray(Image.fromarray(coarse).resize((32, 32))).astype(int)
        for frame in "xy":
            noisy = np.clip(scene + rng.integers(-6, 7, scene.shape), 0, 255).astype(np.uint8)
            path = tmp_path / "ab"[number % 2] / f"{frame}{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(noisy).save(path)
    assert any("nearly equal to another" in note for note in load(tmp_path).notes)
    for path in tmp_path.glob("*/y*.png"):
        path.unlink()
    assert not any("nearly equal" in note for note in load(tmp_path).notes)
