"""Which Parquet files are read as which part, and which are no single export."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_data_parquet import load, refusal, shades, write

HUB = "data/{}-00000-of-00001.parquet"
HASH = "0a1b2c3d4e5f6071"


def sizes(root: Path) -> tuple[int, int, int]:
    data = load(root)
    return len(data.train), 0 if data.val is None else len(data.val), len(data.test)


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train.parquet", "val.parquet", "test.parquet"),
        ("Train.parquet", "VALID.parquet", "Test.parquet"),
        ("train.parquet", "validation.parquet", "test.parquet"),
        ("training.parquet", "dev.parquet", "holdout.parquet"),
        ("train.pq", "eval.pq", "testing.parq"),
        (HUB.format("train"), HUB.format("validation"), HUB.format("test")),
        (f"train-00000-of-00001-{HASH}.parquet", f"validation-00000-of-00001-{HASH[::-1]}.parquet",
         f"test-00000-of-00001-{HASH}.parquet"),
        ("default/train/0000.parquet", "default/validation/0000.parquet",
         "default/test/0000.parquet"),
        ("data/default/train-0.parquet", "data/default/valid-0.parquet",
         "data/default/test-0.parquet"),
        ("plain_text/train-00000-of-00001.parquet", "plain_text/dev-00000-of-00001.parquet",
         "plain_text/test-00000-of-00001.parquet"),
        ("cifar-train.parquet", "cifar-val.parquet", "cifar-test.parquet"),
        ("split=train/part.0.parquet", "split=val/part.0.parquet", "split=test/part.0.parquet"),
        ("train.parquet/part-0.parquet", "val.parquet/part-0.parquet",
         "test.parquet/part-0.parquet"),
        ("train/train.parquet", "val/val.parquet", "test/test.parquet"),
        ("snapshots/0123abcd/data/train-00000-of-00001.parquet",
         "snapshots/0123abcd/data/validation-00000-of-00001.parquet",
         "snapshots/0123abcd/data/test-00000-of-00001.parquet"),
    ],
)  # fmt: skip
def test_parts_by_their_usual_names(tmp_path: Path, train: str, val: str, test: str) -> None:
    for number, name in enumerate((train, val, test)):
        write(tmp_path / name, 12 - 4 * number, start=50 * number)
    assert sizes(tmp_path) == (12, 8, 4)
    said = "; ".join(load(tmp_path).notes)
    assert ("is read from" in said) == (not val.startswith("val.parquet"))


@pytest.mark.parametrize(
    "names",
    [
        "train-00000-of-00003 train-00001-of-00003 train-00002-of-00003",
        f"train-00000-of-00002-{HASH} train-00001-of-00002-{HASH[::-1]}",
        "train-1-of-2 train-2-of-2",
        "train_0 train_1 train_2",
        "train-000 train-001",
        "train/part-00000-ab-c000.snappy train/part-00002-ab-c000.snappy",
        "train/part.0 train/part.1",
        "default/train/0000 default/train/0001",
        "Train-00000-of-00002 train-00001-of-00002",
    ],
)
def test_shards_of_one_export(tmp_path: Path, names: str) -> None:
    every = names.split()
    for number, name in enumerate(every):
        write(tmp_path / f"{name}.parquet", 10, start=10 * number)
    data = load(tmp_path)
    assert sorted(shades(data.train) + shades(data.test)) == list(range(10 * len(every)))


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        ("train-00000-of-00001 train-00000-of-00002 train-00001-of-00002", "train-00000-of-00001"),
        (f"train-00000-of-00001 train-00000-of-00001-{HASH}", "train-00000-of-00001"),
        (f"train-00000-of-00001-{HASH} train-00000-of-00001-{HASH[::-1]}", HASH),
        ("train train-0", "train-0"),
        ("train training", "train.parquet and training.parquet"),
        ("train-00000-of-00001 Training", "Training.parquet and train-00000-of-00001.parquet"),
        ("train/part-00000-ab-c000 train/part-00000-cd-c000", "part-00000-cd-c000"),
        ("train/old train/new", "new.parquet and old.parquet"),
        ("train/a_0 train/b_1", "a_0.parquet"),
        ("train.2 train/part.1", "train"),
        (
            "train validation-00000-of-00001 dev",
            "dev.parquet and validation-00000-of-00001.parquet",
        ),
        ("train data/train-00000-of-00001", "several data sets"),
        ("plain/train-0 default/train-0", "several data sets"),
        ("a_train a_test b_train b_test", "several data sets"),
    ],
)
def test_two_exports_are_refused_with_their_names(tmp_path: Path, names: str, shown: str) -> None:
    for number, name in enumerate(names.split()):
        write(tmp_path / f"{name}.parquet", 10, start=10 * number)
    message = refusal(tmp_path)
    assert shown in message


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        ("train-00000-of-00002", 1),
        ("train-00001-of-00002", 0),
        ("train-1-of-3 train-3-of-3", 2),
        ("train-0 train-2", 1),
        ("train/0000 train/0003", 1),
    ],
)
def test_an_export_with_a_shard_missing(tmp_path: Path, names: str, missing: int) -> None:
    for name in names.split():
        write(tmp_path / f"{name}.parquet", 10)
    assert f"number {missing} is missing" in refusal(tmp_path)


@pytest.mark.parametrize("names", ["data", "0000", "data-00000-of-00002 data-00001-of-00002"])
def test_one_export_that_names_no_part_is_train(tmp_path: Path, names: str) -> None:
    for number, name in enumerate(names.split()):
        write(tmp_path / f"{name}.parquet", 10, start=10 * number)
    assert load(tmp_path).given == ("train",)


def test_what_lies_beside_is_named(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train.parquet", 20)
    write(tmp_path / "data" / "extra.parquet", 4)
    write(tmp_path / "data" / "test_unseen.parquet", 4)
    (tmp_path / "data" / "valid.csv").write_text("image,label")
    (tmp_path / "data" / "README.md").write_text("words")
    (tmp_path / "data" / "._train.parquet").write_bytes(b"debris")
    data = load(tmp_path)
    assert "3 files or folders beside what is read are not read: data/extra.parquet, " in " ".join(
        data.notes
    )
    assert "systems and programs is passed over: data/._train.parquet" in " ".join(data.notes)
