"""Parquet files of the common image layout, whole and in shards, and what is wrong with others."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from raysearch.data import Dataset, StreamSplit, load_dataset
from raysearch.data import _parquet as parquet_module
from raysearch.errors import RaysearchError

CPU = torch.device("cpu")
NAMES = ["ant", "bee"]
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 6), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write(
    path: Path,
    count: int = 20,
    *,
    start: int = 0,
    names: list[str] | None = NAMES,
    labels: list[Any] | None = None,
    images: list[Any] | None = None,
    columns: tuple[str, str] = ("image", "label"),
    rows_per_group: int = 4,
) -> None:
    """`count` images whose shade is their number from `start`, with labels 0, 1, 0, 1, ..."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if images is None:
        images = [{"bytes": png(start + i), "path": f"{i}.png"} for i in range(count)]
    if labels is None:
        labels = [i % 2 for i in range(count)]
    data = {columns[0]: pa.array(images, IMAGE), columns[1]: pa.array(labels, pa.int64())}
    table = pa.table(data)
    if names is not None:
        features = {columns[1]: {"names": names, "_type": "ClassLabel"}}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(metadata)
    pq.write_table(table, path, row_group_size=rows_per_group)


def load(root: Path, **options: Any) -> Dataset:
    return load_dataset({"name": "parquet", "root": str(root), "workers": 0, **options})


def refusal(root: Path, **options: Any) -> str:
    with pytest.raises(RaysearchError) as caught:
        load(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def shades(split: Any, seed: int | None = None) -> list[int]:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    batches = split.batches(7, device=CPU, generator=generator)
    return torch.cat([images for images, _, _ in batches])[:, 0, 0, 0].tolist()


def test_whole_files(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet")
    write(tmp_path / "val.parquet", 6, start=100)
    write(tmp_path / "test.parquet", 4, start=200)
    data = load(tmp_path)
    assert data.classes == ("ant", "bee")
    assert shades(data.train) == list(range(20))
    assert data.train.targets.tolist() == [0, 1] * 10
    assert data.val is not None
    assert shades(data.val) == list(range(100, 106))
    assert shades(data.test) == [200, 201, 202, 203]
    assert shades(data.full_train()) == [*range(20), *range(100, 106)]


@pytest.mark.parametrize("limit_mb", [4096, 0], ids=["resident", "stream"])
def test_shards(tmp_path: Path, limit_mb: int) -> None:
    for number in range(3):
        name = f"train-{number:05}-of-00003.parquet"
        write(tmp_path / name, 10, start=10 * number)
    data = load(tmp_path, memory_limit_mb=limit_mb, test_fraction=0.2)
    assert len(data.test) == 6
    assert sorted(shades(data.train) + shades(data.test)) == list(range(30))
    assert shades(data.train) == sorted(shades(data.train))
    assert sorted(shades(data.train, seed=0)) == shades(data.train)


def test_stream_windows_cover_every_image_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "train.parquet", 100)
    write(tmp_path / "val.parquet", 10, start=150)
    write(tmp_path / "test.parquet", 4)
    data = load(tmp_path, memory_limit_mb=0)
    split = data.full_train()
    assert isinstance(split, StreamSplit)
    everything = [*range(100), *range(150, 160)]
    monkeypatch.setattr(parquet_module, "WINDOW_BYTES", 1500)  # a few row groups of 4 images
    assert len(list(split.source.windows(None))) > 5
    assert shades(split) == everything
    shuffled = shades(split, seed=1)
    assert shuffled != everything
    assert sorted(shuffled) == everything
    assert shades(split, seed=1) == shuffled
    assert shades(split, seed=2) != shuffled
    backwards = split.subset(torch.arange(109, -1, -1))
    assert shades(backwards) == everything[::-1]
    monkeypatch.setattr(split, "workers", 2)
    assert shades(split, seed=1) == shuffled


def test_stream_reads_images_and_labels_together(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", 40)
    write(tmp_path / "test.parquet", 4)
    stream = load(tmp_path, memory_limit_mb=0).search_splits(0, 0.5)[0]
    for images, labels, _ in stream.batches(8, device=CPU, generator=torch.Generator()):
        assert torch.equal(images[:, 0, 0, 0] % 2, labels)


def test_without_class_names_labels_are_the_names(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", names=None)
    assert load(tmp_path).classes == ("0", "1")
    for wrong in (-1, 3, 10**15):
        write(tmp_path / "train.parquet", names=None, labels=[0, 1] * 9 + [wrong] * 2)
        assert f"the label {wrong} is out of range" in refusal(tmp_path)


def test_other_column_names(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", columns=("img", "label"))
    assert len(load(tmp_path).train) == 16
    write(tmp_path / "train.parquet", columns=("photo", "fine_label"))
    assert "data.image_column" in refusal(tmp_path, image_column="picture")
    assert "data.label_column" in refusal(tmp_path)
    for column in ("photo", None):
        data = load(tmp_path, image_column=column, label_column="fine_label")
        assert data.classes == ("ant", "bee")
    images = pa.array([{"bytes": png(i), "path": None} for i in range(2)], IMAGE)
    two = pa.table({"photo": images, "mask": images, "label": [0, 1]})
    pq.write_table(two, tmp_path / "train.parquet")
    assert "data.image_column" in refusal(tmp_path)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
@pytest.mark.parametrize("name", ["image", "photo"])
@pytest.mark.parametrize("limit_mb", [4096, 0], ids=["resident", "stream"])
def test_images_that_are_plain_bytes(
    tmp_path: Path, name: str, kind: pa.DataType, limit_mb: int
) -> None:
    images: list[bytes | None] = [png(i) for i in range(20)]
    for part in ("train", "test"):
        images[3] = None if part == "test" else images[3]
        table = pa.table({name: pa.array(images, kind), "label": [0, 1] * 10})
        pq.write_table(table, tmp_path / f"{part}.parquet", row_group_size=7)
    data = load(tmp_path, on_error="skip", memory_limit_mb=limit_mb)
    assert shades(data.train) == list(range(20))
    assert data.skipped == 1
    (tmp_path / "test.parquet").unlink()
    assert len(load(tmp_path).train) == 16


@pytest.mark.parametrize("kind", [pa.string(), pa.string_view(), pa.dictionary(pa.int32(), "str")])
@pytest.mark.parametrize("form", ["{}.png", "images/{}.png", "images\\{}.png", "set/images/{}.png"])
@pytest.mark.parametrize("struct", [False, True], ids=["text", "struct"])
def test_paths_beside_the_file(tmp_path: Path, form: str, kind: pa.DataType, struct: bool) -> None:
    folder = tmp_path / "set" / ("images" if "images" in form else "")
    folder.mkdir(parents=True)
    for number in range(20):
        (folder / f"{number}.png").write_bytes(png(number))
    paths = pa.array([form.format(number) for number in range(20)], kind)
    column: Any = paths
    if struct:
        column = [{"bytes": None, "path": path} for path in paths.to_pylist()]
        column = pa.array(column, IMAGE)
    table = pa.table({"image": column, "label": [0, 1] * 10})
    pq.write_table(table, tmp_path / "set" / "train.parquet")
    data = load(tmp_path, groups=r"\d+\.", duplicates="error")
    assert sorted(shades(data.train) + shades(data.test)) == list(range(20))
    outside = pa.table({"file_name": ["../../secret.png"] * 8, "label": [0, 1] * 4})
    (tmp_path.parent / "secret.png").write_bytes(png(1))
    pq.write_table(outside, tmp_path / "set" / "train.parquet")
    assert "leads out of this folder" in refusal(tmp_path)


def test_images_by_path(tmp_path: Path) -> None:
    root = tmp_path / "root"
    images = []
    for number in range(6):
        (root / "files").mkdir(parents=True, exist_ok=True)
        (root / "files" / f"{number}.png").write_bytes(png(number))
        images.append({"bytes": None, "path": f"files/{number}.png"})
    write(root / "train.parquet", 6, images=images)
    write(root / "test.parquet", 4)
    assert shades(load(root).train) == list(range(6))
    (tmp_path / "secret.png").write_bytes(png(1))
    for path in ("../secret.png", str(tmp_path / "secret.png")):
        images[3] = {"bytes": None, "path": path}
        write(root / "train.parquet", 6, images=images)
        assert "leads out of this folder" in refusal(root)
        assert "leads out of this folder" in refusal(root, on_error="skip")


def test_limit_takes_a_stratified_part(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", 20)
    write(tmp_path / "test.parquet", 20)
    data = load(tmp_path, limit=10, test_limit=4)
    assert data.train.targets.bincount().tolist() == [5, 5]
    assert data.test.targets.bincount().tolist() == [2, 2]


@pytest.mark.parametrize("wrong", [-2, 2])
@pytest.mark.parametrize("part", ["train", "test"])
def test_label_out_of_range(tmp_path: Path, part: str, wrong: int) -> None:
    write(tmp_path / "train.parquet")
    write(tmp_path / "test.parquet")
    write(tmp_path / f"{part}.parquet", labels=[0, 1] * 9 + [wrong, 1])
    message = refusal(tmp_path)
    assert f"{part}.parquet, row 18: the label {wrong} is out of range" in message
    assert "labels 0 to 1" in message


def test_nulls(tmp_path: Path) -> None:
    write(tmp_path / "test.parquet")
    write(tmp_path / "train.parquet", labels=[0, 1] * 9 + [None, 1])
    data = load(tmp_path)
    assert shades(data.train) == [*range(18), 19]
    assert "1 row of train is set aside, unlabelled: the label is -1 or null" in data.notes
    images: list[Any] = [{"bytes": png(i), "path": None} for i in range(20)]
    images[3], images[4] = None, {"bytes": None, "path": None}
    write(tmp_path / "train.parquet", images=images)
    assert "train.parquet, row 3: there is no image (null)" in refusal(tmp_path)
    assert load(tmp_path, on_error="skip").skipped == 2


def test_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    images = [{"bytes": png(i), "path": None} for i in range(20)]
    images[13] = {"bytes": png(13)[:48], "path": None}
    write(tmp_path / "test.parquet")
    write(tmp_path / "train.parquet", images=images)
    assert "train.parquet, row 13: " in refusal(tmp_path)
    data = load(tmp_path, on_error="skip")
    assert data.skipped == 1
    assert 13 not in shades(data.train)
    stream = load(tmp_path, on_error="skip", memory_limit_mb=0)
    assert shades(stream.train) == shades(data.train)


def test_a_class_without_images(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", names=["cow", "ant", "bee"], labels=[1, 2] * 10)
    write(tmp_path / "test.parquet", 4, names=["cow", "ant", "bee"], labels=[1, 2] * 2)
    data = load(tmp_path)
    assert data.classes == ("ant", "bee")
    assert data.train.targets.tolist() == [0, 1] * 10
    assert "1 class that no image has is left out: 'cow'" in data.notes
    write(tmp_path / "test.parquet", 4, names=["cow", "ant", "bee"], labels=[1, 0, 1, 2])
    assert "class 'cow' has no images in train" in refusal(tmp_path)


@pytest.mark.parametrize("limit_mb", [4096, 0], ids=["resident", "stream"])
def test_rows_without_a_label_are_set_aside(tmp_path: Path, limit_mb: int) -> None:
    write(tmp_path / "train.parquet", labels=[0, 1, -1, 1] * 5)
    write(tmp_path / "test.parquet", 8, start=100, labels=[0, 1, 0, -1] * 2)
    data = load(tmp_path, memory_limit_mb=limit_mb)
    assert data.train.targets.tolist() == [0, 1, 1] * 5
    assert shades(data.train) == [i for i in range(20) if i % 4 != 2]
    assert "5 rows of train are set aside, unlabelled: the label is -1 or null" in data.notes
    assert "2 rows of test are set aside, unlabelled: the label is -1 or null" in data.notes
    write(tmp_path / "test.parquet", 8, start=100, labels=[-1] * 8)
    data = load(tmp_path, memory_limit_mb=limit_mb)
    assert "8 rows of test are set aside, unlabelled: the label is -1 or null" in data.notes
    assert (len(data.train), len(data.test)) == (12, 3)  # split off train
    write(tmp_path / "train.parquet", labels=[-1] * 20)
    assert "train.parquet has no row with a label" in refusal(tmp_path)


def test_what_minus_one_means_without_names(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", names=None)
    write(tmp_path / "test.parquet", 4, start=100, names=None, labels=[0, 1, -1, 0])
    assert load(tmp_path).test.targets.tolist() == [0, 1, 0]  # no class of train's
    write(tmp_path / "train.parquet", names=None, labels=[0, 1, -1, 1] * 5)  # it may be one
    assert "row 2: the label -1 is out of range" in refusal(tmp_path)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), "str")])
def test_labels_that_are_names(tmp_path: Path, kind: pa.DataType) -> None:
    for part, names in (("train", ["cow", "ant", "Käfer"]), ("test", ["cow"])):
        images = [{"bytes": png(i + len(part)), "path": None} for i in range(6)]
        labels = pa.array(names * (6 // len(names)), kind)
        pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / f"{part}.parquet")
    data = load(tmp_path)
    assert data.classes == ("Käfer", "ant", "cow")
    assert data.train.targets.tolist() == [2, 1, 0] * 2
    assert data.test.targets.tolist() == [2] * 6


def test_parts_with_their_classes_in_other_orders(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", names=["ant", "bee"])
    write(tmp_path / "test.parquet", 4, names=["bee", "ant"], labels=[0, 0, 0, 1])
    assert load(tmp_path).test.targets.tolist() == [1, 1, 1, 0]
    write(tmp_path / "test.parquet", 4, names=["bee", "cow"])
    assert "test.parquet: there is no class 'cow' in train" in refusal(tmp_path)
    write(tmp_path / "test.parquet", 4, names=["Bee", "ant"])
    assert "there is no class 'Bee' in train, but there is 'bee'" in refusal(tmp_path)
    write(tmp_path / "test.parquet", 0, images=[], labels=[])
    data = load(tmp_path)
    assert data.given == ("train",)
    assert "test has no row with a label and is not read" in data.notes


def test_class_names_and_columns_in_two_forms_of_unicode(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Käfer") for form in ("NFC", "NFD"))
    write(tmp_path / "train.parquet", names=["ant", decomposed], columns=("image", decomposed))
    write(tmp_path / "test.parquet", 4, names=["ant", composed], columns=("image", composed))
    assert load(tmp_path, label_column=composed).classes == ("ant", composed)
    names = ["ant", decomposed, composed]
    write(tmp_path / "train.parquet", names=names, labels=[0, 1, 2, 1] * 5)
    (tmp_path / "test.parquet").unlink()
    data = load(tmp_path)
    assert data.classes == ("ant", composed)
    assert len(data.train) == 16


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures as Linux does")
def test_a_row_group_larger_than_memory(tmp_path: Path) -> None:
    """A group of 108 MB, in windows of 8 MB: what is held stays below it."""
    big = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(big).save(buffer, "BMP")
    images = [{"bytes": buffer.getvalue() + n.to_bytes(2, "big"), "path": None} for n in range(100)]
    schema = pa.schema([("image", IMAGE), ("label", pa.int64())])
    for name, count in (("small", 20), ("large", 100)):
        columns = {"image": pa.array(images[:count], IMAGE), "label": [0, 1] * (count // 2)}
        write(tmp_path / name / "test.parquet", 4)
        # A page has to be read as a whole; `write_batch_size` makes small ones of large images.
        path = tmp_path / name / "train.parquet"
        pq.write_table(pa.table(columns, schema), path, row_group_size=100, write_batch_size=4)
    del images, columns
    program = f"""
import torch
from raysearch.data import _parquet, load_dataset
_parquet.WINDOW_BYTES, _parquet._BATCH_BYTES = 8 << 20, 1 << 20
peaks = []
for name, count in (("small", 20), ("large", 100)):
    for limit in (4096, 0):
        root = {str(tmp_path)!r} + "/" + name
        data = load_dataset(
            dict(name="parquet", root=root, size=8, workers=0, memory_limit_mb=limit)
        )
        g = torch.Generator().manual_seed(0)
        batches = data.train.batches(8, device=torch.device("cpu"), generator=g)
        assert sorted(int(i) for batch in batches for i in batch[2]) == list(range(count))
    lines = open("/proc/self/status").read().splitlines()
    peaks += [int(line.split()[1]) >> 10 for line in lines if line.startswith("VmHWM")]
print(peaks[1] - peaks[0])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 65


def test_files_that_are_wrong(tmp_path: Path) -> None:
    assert "there is no such folder" in refusal(tmp_path / "absent")
    assert "expected train.parquet or train-*.parquet" in refusal(tmp_path)
    write(tmp_path / "data_v1.parquet")
    write(tmp_path / "data_v2.parquet")
    assert "found data_v1.parquet, data_v2.parquet" in refusal(tmp_path)
    write(tmp_path / "train.parquet", 0, images=[], labels=[])
    assert "train.parquet has no row with a label" in refusal(tmp_path)
    whole = tmp_path / "train.parquet"
    write(whole)
    content = whole.read_bytes()
    for broken in (content[:-10], content[: len(content) // 2], b"", b"text"):
        whole.write_bytes(broken)
        assert "train.parquet is not a readable Parquet file" in refusal(tmp_path)
    write(tmp_path / "train-00000-of-00002.parquet")
    assert "keep one" in refusal(tmp_path)
    whole.unlink()
    assert "of the 2 shards like train-00000-of-00002.parquet, number 1 is missing" in refusal(
        tmp_path
    )


def test_damage_within_a_file(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet")
    write(tmp_path / "test.parquet")
    whole = tmp_path / "train.parquet"
    content = bytearray(whole.read_bytes())
    content[4:40] = os.urandom(36)  # the first page's header
    whole.write_bytes(bytes(content))
    assert "train.parquet is not a readable Parquet file" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ({"pixels": [1, 2], "label": [0, 1]}, "pixels: int64"),
        ({"image": [[1], [2]], "label": [0, 1]}, "its column 'image' is list"),
        ({"image": [{"data": b"x"}] * 2, "label": [0, 1]}, "its column 'image' is struct"),
        ({"image": [{"bytes": b"x", "path": ""}] * 2, "label": [0.5, 1.0]}, "'label' is double"),
        ({"image": [{"bytes": b"x", "path": ""}] * 2}, "data.label_column"),
    ],
)
def test_other_layouts(tmp_path: Path, table: dict[str, Any], found: str) -> None:
    pq.write_table(pa.table(table), tmp_path / "train.parquet")
    message = refusal(tmp_path)
    assert "train.parquet has another layout" in message
    assert found in message
    assert "expected a column `image`: struct<bytes: binary, path: string>, binary or" in message


def cifar10() -> Path:
    folder = Path(os.environ.get("RAYSEARCH_DATA") or Path.cwd().parent / "shared" / "data")
    if not (folder / "cifar10" / "train.parquet").exists():
        pytest.skip(f"needs cifar10/train.parquet in RAYSEARCH_DATA or {folder}")
    return folder / "cifar10"


def test_cifar10() -> None:
    root = cifar10()
    start = time.perf_counter()
    data = load(root, limit=4000, test_limit=1000)
    assert time.perf_counter() - start < 30
    assert data.classes[3] == "cat"
    assert data.train.targets.bincount().tolist() == [400] * 10
    assert (data.channels, data.size) == (3, (32, 32))
    # The mean and deviation known of CIFAR-10, up to the re-encoding and the part taken.
    assert data.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.01)
    assert data.std == pytest.approx((0.247, 0.2435, 0.2616), abs=0.01)
    stream = load(root, limit=4000, test_limit=1000, memory_limit_mb=1)
    assert isinstance(stream.train, StreamSplit)
    resident = [images for images, _, _ in data.train.batches(500, device=CPU, generator=None)]
    streamed = [images for images, _, _ in stream.train.batches(500, device=CPU, generator=None)]
    assert np.array_equal(torch.cat(resident).numpy(), torch.cat(streamed).numpy())
