"""Images in folders: layouts that work, and one clear line for each that does not."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from raysearch.data import Dataset, StreamSplit, TensorSplit, load_dataset
from raysearch.errors import RaysearchError

CPU = torch.device("cpu")


def write(path: Path, shade: int = 100, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    color = shade if mode == "L" else (shade,) * len(mode)
    Image.new(mode, size, color).save(path)


def fill(folder: Path, counts: dict[str, int], **options: Any) -> None:
    """`counts[name]` images in `folder/name`, the shade of each its number."""
    for name, count in counts.items():
        for number in range(count):
            write(folder / name / f"{number:03}.png", number, **options)


def load(root: Path, **options: Any) -> Dataset:
    return load_dataset({"name": "folder", "root": str(root), "workers": 0, **options})


def refusal(root: Path, **options: Any) -> str:
    with pytest.raises(RaysearchError) as caught:
        load(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def shades(split: Any) -> list[int]:
    images = [batch for batch, _, _ in split.batches(64, device=CPU, generator=None)]
    return sorted(torch.cat(images)[:, 0, 0, 0].tolist())


def test_given_parts(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"cat": 3, "ant": 2})
    fill(tmp_path / "val", {"cat": 1, "ant": 1})
    fill(tmp_path / "test", {"cat": 2})
    data = load(tmp_path)
    assert data.classes == ("ant", "cat")
    assert data.val is not None
    assert (len(data.train), len(data.val), len(data.test)) == (5, 2, 2)
    assert data.train.targets.tolist() == [0, 0, 1, 1, 1]
    assert data.test.targets.tolist() == [1, 1]
    assert data.search_splits(0, 0.5) == (data.train, data.val)
    assert data.full_train().indices.tolist() == list(range(7))  # train and val have one base
    assert data.val.indices.tolist() == [5, 6]
    assert (data.channels, data.size, data.skipped) == (3, (8, 8), 0)
    assert data.mean == pytest.approx((0.8 / 255,) * 3)


@pytest.mark.parametrize("layout", ["train", ""])
def test_test_is_split_off_where_there_is_none(tmp_path: Path, layout: str) -> None:
    fill(tmp_path / layout, {"a": 20, "b": 10})
    data = load(tmp_path, test_fraction=0.2)
    assert data.val is None
    assert data.test.targets.bincount().tolist() == [4, 2]
    assert data.train.targets.bincount().tolist() == [16, 8]
    assert sorted(shades(data.train) + shades(data.test)) == sorted([*range(20), *range(10)])
    again, other = load(tmp_path), load(tmp_path, split_seed=1)
    assert shades(again.test) == shades(data.test)
    assert shades(other.test) != shades(data.test)
    train, val = data.search_splits(0, 0.25)
    assert (len(train), len(val)) == (18, 6)


def test_nested_and_hidden_files(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 3, "b": 3})
    write(tmp_path / "a" / "deep" / "er" / "x.png")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "a" / ".hidden").mkdir()
    (tmp_path / "a" / ".hidden" / "y.png").write_bytes(b"")
    (tmp_path / "a" / ".DS_Store").write_bytes(b"junk")
    (tmp_path / "a" / "Thumbs.db").write_bytes(b"junk")
    (tmp_path / "README.txt").write_text("beside the classes, not in one")
    data = load(tmp_path)
    assert data.classes == ("a", "b")
    assert len(data.train) + len(data.test) == 7


def test_odd_names(tmp_path: Path) -> None:
    root = tmp_path / "2024"
    fill(root, {"a b": 3, "naïve": 3})
    odd = os.fsencode(root / "a b") + b"/\xff.png"  # no UTF-8, but a file name all the same
    with open(odd, "wb") as file:
        file.write((root / "a b" / "000.png").read_bytes())
    data = load(root)
    assert data.classes == ("a b", "naïve")
    assert len(data.train) + len(data.test) == 7
    with open(odd, "wb") as file:
        file.write(b"no image")
    assert "\N{REPLACEMENT CHARACTER}.png: not an image" in refusal(root)


def test_relative_root_holds_in_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "2024", {"a": 3, "b": 3})
    monkeypatch.chdir(tmp_path)
    # Hydra reads data.root=2024 as a number; Ray runs trials in directories of their own.
    data = load_dataset({"name": "folder", "root": 2024, "memory_limit_mb": 0, "workers": 0})
    monkeypatch.chdir("/")
    assert len(shades(data.train)) == 4


def test_kinds_of_images_mix(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 4, "b": 4})
    write(tmp_path / "a" / "grey.png", mode="L")
    write(tmp_path / "a" / "alpha.png", mode="RGBA")
    write(tmp_path / "b" / "cmyk.jpg", mode="CMYK")
    data = load(tmp_path)
    assert (data.channels, data.size) == (3, (8, 8))


def test_all_grey_is_one_channel(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 4, "b": 4}, mode="L")
    data = load(tmp_path)
    assert data.channels == len(data.mean) == len(data.std) == 1


def test_sizes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path, {"a": 4, "b": 4}, size=(20, 12))
    assert load(tmp_path).size == (12, 20)
    assert load(tmp_path, size=16).size == (16, 16)
    assert load(tmp_path, size=[10, 14]).size == (10, 14)
    assert "resized" not in caplog.text
    write(tmp_path / "a" / "other.png", size=(30, 31))
    assert load(tmp_path).size == (12, 12)
    assert "different sizes" in caplog.text
    assert "data.size=" in caplog.text


def test_large_images_are_reduced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path, {"a": 3, "b": 3}, size=(400, 300))
    assert load(tmp_path).size == (224, 224)
    assert "large (300x400)" in caplog.text


def test_limits(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"a": 20, "b": 10})
    fill(tmp_path / "val", {"a": 6, "b": 6})
    fill(tmp_path / "test", {"a": 10, "b": 10})
    data = load(tmp_path, limit=12, val_limit=4, test_limit=2)
    assert data.val is not None
    assert data.train.targets.bincount().tolist() == [8, 4]
    assert data.val.targets.bincount().tolist() == [2, 2]
    assert data.test.targets.bincount().tolist() == [1, 1]
    assert "data.limit=31, but train has 30 images" in refusal(tmp_path, limit=31)
    assert "data.test_limit: cannot take 1 of 20" in refusal(tmp_path, test_limit=1)


def test_stream_beyond_the_memory_limit_equals_resident(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"a": 20, "b": 10})
    fill(tmp_path / "test", {"a": 2, "b": 2})
    resident, stream = load(tmp_path), load(tmp_path, memory_limit_mb=0)
    assert isinstance(resident.train, TensorSplit)
    assert isinstance(stream.train, StreamSplit)
    assert (stream.mean, stream.std) == (resident.mean, resident.std)
    for seed in (0, 1):
        passes = []
        for data in (resident, stream):
            train, _ = data.search_splits(seed, 0.3)
            generator = torch.Generator().manual_seed(seed)
            passes.append(list(train.batches(4, device=CPU, generator=generator)))
        for (images, labels, _), (images_, labels_, _) in zip(*passes, strict=True):
            assert torch.equal(images, images_)
            assert torch.equal(labels, labels_)


@pytest.mark.parametrize("limit_mb", [4096, 0], ids=["resident", "stream"])
def test_broken_files_are_named_or_skipped(
    tmp_path: Path, limit_mb: int, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path / "train", {"a": 5, "b": 5})
    fill(tmp_path / "test", {"a": 2, "b": 2})
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    broken = tmp_path / "train" / "a" / "broken.png"
    Image.fromarray(noise).save(broken)
    broken.write_bytes(broken.read_bytes()[:-100])
    if limit_mb:  # a stream finds the middle of a file damaged when it comes to it
        message = refusal(tmp_path)
        assert str(broken) in message
        assert "truncated" in message
        assert "data.on_error=skip" in message
    (tmp_path / "test" / "b" / "text.png").write_text("no image")
    assert "text.png: not an image" in refusal(tmp_path, memory_limit_mb=limit_mb)
    (tmp_path / "train" / "b" / "notes.txt").write_text("no image")
    assert "notes.txt is not an image by its name" in refusal(tmp_path, memory_limit_mb=limit_mb)
    with caplog.at_level(logging.WARNING):
        data = load(tmp_path, on_error="skip", memory_limit_mb=limit_mb)
    assert data.skipped == 3
    assert "3 files or rows were skipped" in caplog.text
    assert len(data.train) == 10
    assert len(data.test) == 4
    assert sum(len(x) for x, _, _ in data.train.batches(4, device=CPU, generator=None)) == 10


def test_damage_met_in_a_stream_names_the_file(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"a": 5, "b": 5})
    fill(tmp_path / "test", {"a": 2, "b": 2})
    data = load(tmp_path, memory_limit_mb=0)
    (tmp_path / "train" / "b" / "003.png").write_bytes(b"overwritten since")
    with pytest.raises(RaysearchError, match=r"b.003\.png: not an image"):
        list(data.train.batches(4, device=CPU, generator=None))


def test_all_of_a_class_skipped(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"a": 4, "b": 4})
    fill(tmp_path / "test", {"a": 2, "b": 2})
    for path in (tmp_path / "train" / "b").iterdir():
        path.write_bytes(b"nothing")
    assert "class 'b' has no readable image in train" in refusal(tmp_path, on_error="skip")


def test_missing_things(tmp_path: Path) -> None:
    assert "there is no such folder" in refusal(tmp_path / "absent")
    assert "has no folders; at least two classes" in refusal(tmp_path)
    fill(tmp_path, {"a": 3})
    assert "only the folder 'a'" in refusal(tmp_path)
    (tmp_path / "b").mkdir()
    assert "class 'b': there is no image in" in refusal(tmp_path)
    with pytest.raises(RaysearchError, match=r"needs data\.root=DIR"):
        load_dataset({"name": "folder"})


def test_layouts_that_are_nearly_right(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"a": 3, "b": 3})
    fill(tmp_path / "test", {"a": 3, "b": 3})
    fill(tmp_path / "val", {"c": 1})
    assert "there is no such class in" in refusal(tmp_path)
    (tmp_path / "train").rename(tmp_path / "elsewhere")
    assert "has no folder 'train'" in refusal(tmp_path)


def test_class_too_small_for_the_splits(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"a": 9, "b": 2})
    message = refusal(tmp_path)
    assert "class 'b' has 2 images, the splits need at least 3" in message
    assert str(tmp_path) in message
    fill(tmp_path / "test", {"a": 2, "b": 2})
    assert len(load(tmp_path).train) == 11
    (tmp_path / "train" / "b" / "000.png").unlink()
    assert "class 'b' has 1 image, the splits need at least 2" in refusal(tmp_path)
    fill(tmp_path / "val", {"a": 2, "b": 2})
    assert len(load(tmp_path).train) == 10


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 10, "b": 10})
    calls: list[tuple[int, int]] = []
    load_dataset(
        {"name": "folder", "root": str(tmp_path)}, lambda done, total: calls.append((done, total))
    )
    assert calls[-1] == (20, 20)
    assert calls == sorted(calls)
