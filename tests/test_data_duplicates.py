"""The same image twice: in two parts, in one, under two labels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_data_folder import load, refusal
from test_data_parquet import load as load_parquet
from test_data_parquet import png
from test_data_parquet import write as write_parquet

from raysearch.data import Dataset, load_dataset

BOTH = pytest.mark.parametrize("limit_mb", [4096, 0], ids=["resident", "stream"])


def fill(root: Path) -> None:
    """Noise: 6 images of each of two classes in train, 3 each in val and in test, no two alike."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 3), ("test", 3)):
        for name in ("ant", "bee"):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")


def copy(root: Path, one: str, other: str) -> None:
    shutil.copy(root / one, root / other)


def sizes(data: Dataset) -> tuple[int, int, int]:
    return len(data.train), 0 if data.val is None else len(data.val), len(data.test)


@BOTH
def test_nothing_is_said_of_different_images(tmp_path: Path, limit_mb: int) -> None:
    fill(tmp_path)
    data = load(tmp_path, memory_limit_mb=limit_mb, duplicates="error")
    assert data.notes == ()
    assert sizes(data) == (12, 6, 6)


@BOTH
@pytest.mark.parametrize(
    ("copies", "said", "left"),
    [
        ({"train/ant/0.png": "test/ant/9.png"}, "1 image of train is in test", (11, 6, 7)),
        ({"test/bee/1.png": "train/bee/8.png"}, "1 image of train is in test", (12, 6, 6)),
        ({"train/ant/0.png": "val/bee/9.png"}, "1 image of train is in val", (11, 7, 6)),
        ({"val/ant/0.png": "test/bee/9.png"}, "1 image of val is in test", (12, 5, 7)),
    ],
)
def test_images_in_two_parts(
    tmp_path: Path, copies: dict[str, str], said: str, left: tuple[int, int, int], limit_mb: int
) -> None:
    fill(tmp_path)
    for one, other in copies.items():
        copy(tmp_path, one, other)
    data = load(tmp_path, memory_limit_mb=limit_mb)
    assert said in data.notes[0]
    assert all(name in data.notes[0] for name in (*copies, *copies.values()))
    assert sum(sizes(data)) == 25
    message = refusal(tmp_path, memory_limit_mb=limit_mb, duplicates="error")
    assert "1 images of" in message
    assert "data.duplicates=drop" in message
    dropped = load(tmp_path, memory_limit_mb=limit_mb, duplicates="drop")
    assert sizes(dropped) == left
    assert "was left out of" in dropped.notes[0]


@BOTH
def test_an_image_in_all_parts_stays_in_test(tmp_path: Path, limit_mb: int) -> None:
    fill(tmp_path)
    copy(tmp_path, "train/ant/0.png", "val/ant/9.png")
    copy(tmp_path, "train/ant/0.png", "test/ant/9.png")
    assert sizes(load(tmp_path, duplicates="drop", memory_limit_mb=limit_mb)) == (11, 6, 7)


@BOTH
@pytest.mark.parametrize("part", ["train", "val"])
def test_a_part_that_is_all_in_others(tmp_path: Path, part: str, limit_mb: int) -> None:
    fill(tmp_path)
    shutil.copytree(tmp_path / part / "ant", tmp_path / "test" / "ant", dirs_exist_ok=True)
    said = " in train that is in no other part (data.duplicates=drop)"
    message = (
        refusal(tmp_path, memory_limit_mb=limit_mb, duplicates="drop") if part != "val" else ""
    )
    assert message.endswith(said) == (part == "train")
    for image in (tmp_path / part / "bee").iterdir():
        shutil.copy(image, tmp_path / "test" / "bee" / f"again {image.name}")
    message = refusal(tmp_path, memory_limit_mb=limit_mb, duplicates="drop")
    count = 12 if part == "train" else 6
    assert f"all {count} images of {part} are in another part, too, as {part}" in (
        message.replace(f"{tmp_path}/", "")
    )
    assert f"data.duplicates=drop leaves none of {part}" in message


@BOTH
def test_images_twice_in_one_part(tmp_path: Path, limit_mb: int) -> None:
    fill(tmp_path)
    copy(tmp_path, "train/ant/0.png", "train/ant/8.png")
    copy(tmp_path, "train/ant/0.png", "train/ant/9.png")
    data = load(tmp_path, memory_limit_mb=limit_mb, duplicates="drop")
    assert len(data.train) == 14
    assert data.notes[0].startswith("2 images of train are there more than once: ")
    copy(tmp_path, "train/bee/0.png", "train/ant/7.png")
    data = load(tmp_path, memory_limit_mb=limit_mb, duplicates="error")
    assert data.notes[1].startswith("2 images of train are there under another label, too: ")
    assert "train/bee/0.png" in data.notes[1]


def test_copies_of_another_format_are_found(tmp_path: Path) -> None:
    fill(tmp_path)
    Image.open(tmp_path / "train/ant/0.png").save(tmp_path / "test/ant/9.bmp")
    assert "1 image of train is in test" in load(tmp_path).notes[0]


def test_copies_that_a_split_tears_apart(tmp_path: Path) -> None:
    fill(tmp_path)
    for part in ("val", "test"):
        shutil.rmtree(tmp_path / part)
    for name in ("ant", "bee"):
        for number in range(6):
            copy(tmp_path, f"train/{name}/{number}.png", f"train/{name}/{number} (1).png")
    data = load(tmp_path, duplicates="drop", test_fraction=0.4)
    assert "were left out of train" in data.notes[0]
    train, test = (
        {bytes(image) for image in split.images.flatten(1).numpy()}
        for split in (data.train, data.test)
    )
    assert not train & test


@BOTH
def test_rows_of_parquet_files(tmp_path: Path, limit_mb: int) -> None:
    write_parquet(tmp_path / "train.parquet", 20)
    write_parquet(tmp_path / "test.parquet", 6, start=17)
    data = load_parquet(tmp_path, memory_limit_mb=limit_mb, duplicates="drop")
    assert (len(data.train), len(data.test)) == (17, 6)
    assert "3 images of train are in test, too" in data.notes[0]
    assert "train.parquet, row 17 = test.parquet, row 0" in data.notes[0]
    images = [
        {"bytes": None, "path": "a.png"},
        *({"bytes": png(i), "path": None} for i in (1, 2, 3)),
    ]
    (tmp_path / "a.png").write_bytes(png(18))
    write_parquet(tmp_path / "test.parquet", 4, images=images)
    data = load_parquet(tmp_path, memory_limit_mb=limit_mb)
    assert "4 images of train are in test, too" in data.notes[0]


def test_objects(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
    labels = np.arange(20) % 2
    assert Dataset.of((images, labels)).notes == ()
    data = Dataset.of((images, labels), (images[:3], labels[:3]), (images[5:7], labels[5:7]))
    assert "3 images of train are in test, too" in data.notes[0]
    assert "train, image 0 = test, image 0" in data.notes[0]
    assert "train, image 5 = val, image 0" in data.notes[1]


def test_digits_have_none() -> None:
    assert load_dataset({"name": "digits", "duplicates": "error"}).notes == ()
