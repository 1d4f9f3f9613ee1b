"""Images with any number of classes: how they are read, and how they are divided."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_data_parquet import IMAGE, png

from raysearch.data import Dataset, load_dataset, rank_in_class, strata, stratified_split
from raysearch.errors import RaysearchError

CPU = torch.device("cpu")


def load(root: Path, name: str = "folder", **options: Any) -> Dataset:
    return load_dataset({"name": name, "root": str(root), "workers": 0, **options})


def refusal(root: Path, name: str = "folder", **options: Any) -> str:
    with pytest.raises(RaysearchError) as caught:
        load(root, name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def fill(folder: Path, count: int) -> list[str]:
    """So many images, the shade of each its number; their paths relative to the folder."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    names = [f"images/{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        Image.new("RGB", (8, 8), (number,) * 3).save(folder / name)
    return names


def write(path: Path, rows: list[list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)


def labels_by_shade(data: Dataset) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for split in (data.train, data.val, data.test):
        if split is not None:
            for images, targets, _ in split.batches(4, device=CPU, generator=None):
                shades = images[:, 0, 0, 0].tolist()
                found.update(zip(shades, targets.tolist(), strict=True))
    return found


NAMES = ["a", "a|c", "", "b", "c", "a | b", "b", "c", "a", "b|c"]
TABLE = [[1, 0, 0], [1, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 0], [0, 0, 1]]
TABLE += [[1, 0, 0], [0, 1, 1]]


@pytest.mark.parametrize("memory_limit_mb", [4096, 0], ids=["resident", "stream"])
@pytest.mark.parametrize("form", ["names", "columns"])
def test_one_label_file(tmp_path: Path, form: str, memory_limit_mb: int) -> None:
    paths = fill(tmp_path, 10)
    if form == "names":
        rows = [["image", "labels"], *map(list, zip(paths, NAMES, strict=True))]
    else:
        table = [[str(value) for value in row] for row in TABLE]
        rows = [["image", "a", "b", "c"], *([p, *r] for p, r in zip(paths, table, strict=True))]
    write(tmp_path / "labels.csv", rows)
    data = load(tmp_path, memory_limit_mb=memory_limit_mb)
    assert (data.kind, data.classes) == ("multi", ("a", "b", "c"))
    assert labels_by_shade(data) == dict(enumerate(TABLE))
    assert data.train.targets.dtype == torch.float32
    assert data.train.targets.any(0).all()
    assert "labels.csv" in data.notes[0]
    train, val = data.search_splits(0, 0.5)
    assert train.targets.any(0).all()
    assert sorted([*train.indices.tolist(), *val.indices.tolist()]) == sorted(
        data.train.indices.tolist()
    )


@pytest.mark.parametrize("place", ["{}/labels.csv", "{}.csv"])
def test_a_label_file_of_each_part(tmp_path: Path, place: str) -> None:
    for part in ("train", "val", "test"):
        folder = (tmp_path / place.format(part)).parent
        paths = fill(folder, 10)
        if part == "test":
            paths = paths[:4]
        rows = [["image", "labels"], *map(list, zip(paths, NAMES[: len(paths)], strict=True))]
        write(tmp_path / place.format(part), rows)
    data = load(tmp_path)
    assert data.counts == {"train": 10, "val": 10, "test": 4, "skipped": 0}
    assert data.test.targets.tolist() == TABLE[:4]
    assert len(data.full_train()) == 20


def test_one_name_for_each_image_is_single_label(tmp_path: Path) -> None:
    names = ["cat", "dog"] * 5
    rows = [["id", "label"], *map(list, zip(fill(tmp_path, 10), names, strict=True))]
    write(tmp_path / "labels.csv", rows)
    data = load(tmp_path)
    assert (data.kind, data.classes) == ("single", ("cat", "dog"))
    assert labels_by_shade(data) == {number: number % 2 for number in range(10)}


def test_images_without_a_name_among_such_of_one_are_unlabelled(tmp_path: Path) -> None:
    paths = fill(tmp_path, 14)
    names = ["ant", "bee"] * 4 + [""] * 2
    write(tmp_path / "train.csv", [["image", "label"], *zip(paths[:10], names, strict=True)])
    write(tmp_path / "test.csv", [["image", "label"], *([path, ""] for path in paths[10:])])
    data = load(tmp_path)
    assert data.given == ("train",)
    assert not data.train.target_shape
    assert (len(data.train), len(data.test)) == (6, 2)
    assert "2 images of train are set aside, unlabelled" in data.notes
    assert "4 images of test are set aside, unlabelled" in data.notes


def test_label_files_that_are_wrong(tmp_path: Path) -> None:
    paths = fill(tmp_path, 3)
    file = tmp_path / "labels.csv"
    header = ["image", "a", "b"]
    for rows, message in [
        ([], "labels.csv has another layout: expected, with commas, semicolons or tabs, a first"),
        ([[paths[0], "a"], [paths[1], "b"]], "has no header, its first line names an image"),
        ([header], "names no images"),
        ([header, [paths[0], "1"]], "line 2: it has 2 columns, the header 3"),
        ([header, [paths[0], "1", "2"]], "line 2: '2' in column 'b' is not 0 or 1"),
        ([header, [paths[0], "1", "0"], ["no.png", "0", "1"]], "line 3: 'no.png' is no file"),
        ([header, *[[paths[0], "1", "0"]] * 2], "line 3: 'images/0.png' stands in line 2, too"),
        ([header, ["../x.png", "1", "0"]], "line 2: '../x.png' lies outside data.root"),
        ([["image", "a", "a"], [paths[0], "1", "0"]], "there are two columns 'a'"),
        ([["image", "l"], [paths[0], "a||b"]], "line 2: a name in 'a||b' is empty"),
        ([["image", "l"], [paths[0], "a"]], "has 1 classes; at least two are needed"),
        ([header, *([p, "1", "0"] for p in paths)], "class 'b' has no images in train"),
    ]:
        write(file, rows)
        (tmp_path.parent / "x.png").write_bytes(b"")
        message_found = refusal(tmp_path)
        assert message in message_found
        assert str(tmp_path) in message_found
    for wrong in (b"image,labels\n\xff\x81,a\n", "image,labels\na,b".encode("utf-16-le")):
        file.write_bytes(wrong)
        assert "labels.csv is no table in UTF-8, UTF-16 or Windows-1252" in refusal(tmp_path)


def test_missing_files_are_skipped_on_request(tmp_path: Path) -> None:
    rows = [["image", "labels"], *map(list, zip(fill(tmp_path, 10), NAMES, strict=True))]
    write(tmp_path / "labels.csv", [*rows, ["gone.png", "a"]])
    assert "gone.png' is no file (data.on_error=skip passes over it)" in refusal(tmp_path)
    data = load(tmp_path, on_error="skip")
    assert data.counts["skipped"] == 1
    assert labels_by_shade(data) == dict(enumerate(TABLE))


def test_a_class_that_train_has_not(tmp_path: Path) -> None:
    for part, names in (("train", ["a", "b|a", "b"]), ("test", ["a", "d"])):
        paths = fill(tmp_path / part, len(names))
        rows = [["image", "labels"], *map(list, zip(paths, names, strict=True))]
        write(tmp_path / part / "labels.csv", rows)
    message = refusal(tmp_path)
    assert "labels.csv, line 3: there is no class 'd' in train" in message
    write(tmp_path / "test" / "labels.csv", [["image", "b", "a"], ["images/0.png", "0", "1"]])
    assert "its columns differ from those of" in refusal(tmp_path)


def parquet(path: Path, labels: list[Any], feature: Any = None, kind: Any = None) -> None:
    images = [{"bytes": png(number), "path": None} for number in range(len(labels))]
    columns = {
        "image": pa.array(images, IMAGE),
        "label": pa.array(labels, kind or pa.list_(pa.int64())),
    }
    table = pa.table(columns)
    if feature is not None:
        info = {"info": {"features": {"label": feature}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, path, row_group_size=3)


LISTS = [[number for number, value in enumerate(row) if value] for row in TABLE]
CLASS = {"names": ["ant", "bee", "cow"], "_type": "ClassLabel"}


@pytest.mark.parametrize(
    "feature", [None, {"feature": CLASS, "_type": "Sequence"}, [CLASS]], ids=["", "Sequence", "[]"]
)
def test_parquet_lists(tmp_path: Path, feature: Any) -> None:
    parquet(tmp_path / "train.parquet", LISTS, feature)
    data = load(tmp_path, "parquet")
    assert data.kind == "multi"
    assert data.classes == (("ant", "bee", "cow") if feature else ("0", "1", "2"))
    assert labels_by_shade(data) == dict(enumerate(TABLE))


def test_parquet_lists_that_are_wrong(tmp_path: Path) -> None:
    file = tmp_path / "train.parquet"
    feature = {"feature": CLASS, "_type": "Sequence"}
    for labels, names, message in [
        ([*LISTS, [0, 3]], feature, "row 10: the label 3 is out of range, the 3 classes"),
        ([*LISTS, [0, None]], feature, "row 10: a label is null"),
        ([*LISTS, [4]], None, "row 10: the label 4 is out of range"),
        ([[], []], None, "no image has a label"),
        ([None, None], feature, "has no row with a label"),
    ]:
        parquet(file, labels, names)
        assert message in refusal(tmp_path, "parquet")
    parquet(file, [[0], [1], [0, 1], []] * 3, feature)
    assert load(tmp_path, "parquet").classes == ("ant", "bee")
    parquet(tmp_path / "test.parquet", [[2], [1]], feature)
    assert "class 'cow' has no images in train" in refusal(tmp_path, "parquet")
    parquet(file, LISTS, feature)
    parquet(tmp_path / "test.parquet", [0, 1], feature, pa.int64())
    assert "its column 'label' is of another type than train's" in refusal(tmp_path, "parquet")
    parquet(file, [[0.5]], None, pa.list_(pa.float32()))
    assert "its column 'label' is list<" in refusal(tmp_path, "parquet")


def test_limits_keep_every_class(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", LISTS * 4)
    data = load(tmp_path, "parquet", limit=10, test_limit=4, test_fraction=0.4)
    assert (len(data.train), len(data.test)) == (10, 4)
    assert (data.train.targets.sum(0) >= 2).all()
    assert data.test.targets.any(0).all()
    assert "so that every class" in refusal(tmp_path, "parquet", limit=1)


@st.composite
def multi_hot(draw: st.DrawFn) -> torch.Tensor:
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    count, classes = draw(st.integers(20, 200)), draw(st.integers(1, 8))
    share = generator.uniform(0.01, 0.5, classes)
    return torch.from_numpy((generator.random((count, classes)) < share).astype(np.float32))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(targets=multi_hot(), share=st.floats(0.1, 0.9), seed=st.integers(0, 5))
def test_multi_label_split_properties(targets: torch.Tensor, share: float, seed: int) -> None:
    rest, part = stratified_split(targets, share, seed)
    assert sorted([*rest.tolist(), *part.tolist()]) == list(range(len(targets)))
    assert torch.equal(stratified_split(targets, share, seed)[1], part)
    counts, taken = targets.sum(0), targets[part].sum(0)
    assert (taken[counts >= 2] >= 1).all()
    assert (taken < counts)[counts >= 1].all()
    assert abs(len(part) - share * len(targets)) <= max(2, targets.shape[1])


def test_multi_label_split_keeps_proportions() -> None:
    generator = np.random.default_rng(0)
    share = np.array([0.5, 0.3, 0.1, 0.02, 0.004])
    targets = torch.from_numpy((generator.random((5000, 5)) < share).astype(np.float32))
    _, part = stratified_split(targets, 1000, 0)
    assert len(part) == 1000
    expected = targets.sum(0) / 5
    assert ((targets[part].sum(0) - expected).abs() <= 1).all()
    assert not torch.equal(part, stratified_split(targets, 1000, 1)[1])


def test_a_class_of_one_image_is_trained_on_and_named(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", [*LISTS, [3]])
    data = load(tmp_path, "parquet")
    assert data.notes[-1].endswith("a search does not validate on: '3'")
    train, _ = data.search_splits(0, 0.5)
    assert train.targets.any(0).all()


def test_where_both_sides_cannot_have_every_class_the_rest_does() -> None:
    circle = torch.tensor([[1.0, 0, 1], [1, 1, 0], [0, 1, 1]])  # each class on two of three images
    rest, part = stratified_split(circle, 0.3, 0)
    assert circle[rest].any(0).all()
    assert len(part) == 1
    with pytest.raises(RaysearchError, match="cannot take 1 of 3 images so that every class"):
        stratified_split(circle, 1, 0)


def test_the_stratum_of_an_image_is_its_rarest_class() -> None:
    targets = torch.tensor([[1.0, 0], [1, 1], [1, 0], [0, 0], [0, 1]])
    assert strata(targets).tolist() == [0, 1, 0, 2, 1]
    assert rank_in_class(targets).tolist() == [0, 0, 1, 0, 1]
