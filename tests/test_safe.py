"""Files from others: refused in one line, without waiting, executing or allocating anything."""

from __future__ import annotations

import base64
import contextlib
import http.server
import io
import json
import os
import pickle
import re
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import raysearch
from raysearch import states
from raysearch.cli._main import main
from raysearch.data import Dataset, load_dataset
from raysearch.data._decode import Decoder
from raysearch.data._image import DecodeError, ignored_warnings, read_header
from raysearch.engine._files import Progress, ProposalFolder
from raysearch.errors import RaysearchError, unknown
from raysearch.experiment._compose import to_yaml
from raysearch.experiment._experiment import compose_run
from raysearch.experiment._folder import create
from raysearch.policy import read_policy, trivial_augment
from raysearch.results import Tracker
from tests.conftest import CommandLine, dark_and_light

SECONDS = 5.0  # more than any refusal takes


def refusal(action: Callable[..., object], *arguments: Any, **options: Any) -> str:
    start = time.monotonic()
    with pytest.raises(RaysearchError) as caught:
        action(*arguments, **options)
    assert time.monotonic() - start < SECONDS
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1000
    return message


@pytest.fixture
def quiet_main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory for `main`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return tmp_path


# Checkpoints.


class Payload:
    """Creates a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def poisoned(folder: Path, name: str) -> Path:
    path = folder / name
    torch.save({"format": 1, "model": Payload(folder / "executed")}, path)
    return path


def given_file(path: Path) -> object:
    """What a proposal left for others, read as a worker does."""
    place = path.parent / "answer" / "file.pt"
    place.parent.mkdir(exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(path)
    return ProposalFolder(path.parent).read_file()


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "state": ("state.pt", states.load),
    "a trial's": ("file.pt", lambda path: given_file(path)),
    "network": ("network.pt", raysearch.load_network),
}


@pytest.mark.parametrize("case", READERS)
def test_nothing_in_a_checkpoint_is_executed(case: str, tmp_path: Path) -> None:
    name, read = READERS[case]
    path = poisoned(tmp_path, name)
    message = refusal(read, path)
    assert path.name in message
    assert "it wants to call posix.mkdir" in message
    path.write_bytes(pickle.dumps({"model": Payload(tmp_path / "executed")}))
    assert "not a checkpoint" in refusal(read, path)
    assert not (tmp_path / "executed").exists()


def test_nothing_in_a_shared_checkpoint_is_executed(
    quiet_main: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poisoned(quiet_main, "seed-0.pt")
    assert main(["method=aws", "tracking=none", "method.shared_checkpoint=."]) == 2
    said = capsys.readouterr().err
    assert "seed-0.pt: not a checkpoint" in said
    assert said.count("\n") == 1
    torch.save({"format": "raysearch-shared-checkpoint", "made": 3}, "seed-0.pt")
    assert main(["method=aws", "tracking=none", "method.shared_checkpoint=."]) == 2
    assert "not a shared checkpoint of raysearch (no 'made')" in capsys.readouterr().err
    assert [path.name for path in quiet_main.iterdir()] == ["seed-0.pt"]


def test_checkpoints_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    states.save_whole(path, {"weights": torch.zeros(1000)})
    whole = path.read_bytes()
    for content in (b"", b"PK\x03\x04", whole[:-30], whole[: len(whole) // 2], os.urandom(500)):
        path.write_bytes(content)
        assert str(path) in refusal(states.load, path)
    torch.save([1, 2], path)
    assert "(a list)" in refusal(states.load, path)
    stored = zipfile.ZipFile(io.BytesIO(whole))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in stored.namelist():
            packed.writestr(entry, stored.read(entry))
    assert "compressed" in refusal(states.load, path)
    with pytest.raises(FileNotFoundError):
        states.load(tmp_path / "missing.pt")


def test_a_network_of_impossible_sizes_is_not_built(tmp_path: Path) -> None:
    path = tmp_path / "network.pt"
    good = {
        "model": "small_cnn",
        "classes": ["a", "b"],
        "channels": 1,
        "size": [8, 8],
        "mean": [0.5],
        "std": [0.5],
        "weights": dark_and_light().build_model().state_dict(),
    }
    states.save_whole(path, good)
    assert raysearch.load_network(path).classes == ("a", "b")
    for change in (
        {"channels": 10**9},
        {"channels": torch.ones(2)},
        {"size": [10**9, 10**9]},
        {"size": 8},
        {"size": [8.0, 8.0]},
        {"classes": 10**12},
        {"classes": [1, 2]},
        {"classes": ["a"]},
        {"mean": [float("nan")]},
        {"std": []},
        {"model": "../small_cnn"},
        {"model": ["small_cnn"]},
        {"weights": {}},
        {"weights": 3},
        {"weights": {"features.0.weight": torch.ones(1)}},
    ):
        states.save_whole(path, {**good, **change})
        assert str(path) in refusal(raysearch.load_network, path)


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "\x00",
        "[" * 100_000,
        '{"epochs": "many"}',
        '{"epochs": NaN}',
        '{"epochs": 3, "epoch": [1]}',
        '{"epochs": 3, "history": [1]}',
        '{"epochs": 3, "rounds": 1}',
    ],
)
def test_a_checkpoint_that_says_nonsense_does_not_count(content: str, tmp_path: Path) -> None:
    folder = ProposalFolder(tmp_path)
    folder.write_checkpoint({}, Progress(epoch=1, history=[{"epoch": 1.0}]))
    newest = folder.newest()
    assert newest is not None
    (newest / "progress.json").write_text(content)
    assert folder.newest() is None
    assert folder.read_checkpoint() is None


# Policy files.


def document(**changes: Any) -> dict[str, Any]:
    return {**trivial_augment().to_json(), **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 10**30},
        {"count": 2.0},
        {"count": True},
        {"magnitude": {"low": 0, "high": 1, "levels": 10**30}},
        {"magnitude": {"low": 0, "high": 10**400, "levels": 1}},
        {"magnitude": {"low": -1e308, "high": 1e308, "levels": 1}},
        {"operations": ["../ShearX"]},
        {"operations": ["\ud800"]},
        {"operations": ["Rotate\x1b[2J"]},
        {"operations": [["Rotate"]]},
        {"kind": "sub_policies" * 100_000},
        {"kind": {"kind": "mixture"}},
        {"version": [1] * 100_000},
        {"version": 1e999},
        {"format": ["raysearch-policy"]},
    ],
)
def test_numbers_and_names_that_no_policy_has(changes: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(document(**changes)))
    assert str(path) in refusal(read_policy, path)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "1" * 400])
def test_numbers_that_are_none(word: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(document(count="?")).replace('"?"', word))
    assert str(path) in refusal(read_policy, path)


def test_large_files_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    with path.open("wb") as file:
        file.truncate(65 << 20)  # which takes no place on the disk
    assert "larger than 64 MiB" in refusal(read_policy, path)
    for part in ("[],", '{"a":1},', "0,"):
        path.write_text("[" + part * 9_000_000 + "0]")
        assert "not a policy" in refusal(read_policy, path)


def test_many_numbers_are_checked_in_seconds(tmp_path: Path) -> None:
    """Each of a million numbers is, which a plain validator takes half a minute for."""
    path = tmp_path / "policy.json"
    row = {"kind": "pairs", "ranges": "wide", "operations": ["Invert"] * 200}
    row |= {"magnitudes": [0] * 200, "probabilities": [[1] * 200] * 200}
    whole = {"format": "raysearch-policy", "version": 1, "kind": "schedule", "phases": [row] * 25}
    whole["phases"] = [*whole["phases"][:-1], {**row, "magnitudes": [0] * 199 + [2]}]
    path.write_text(json.dumps(whole))
    message = refusal(read_policy, path)
    assert "phases[24]: magnitudes[199]: 2 is greater than the maximum of 1" in message


def test_what_never_ends_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", Path("/dev/zero"), tmp_path):
        assert str(path) in refusal(read_policy, path)
        assert str(path) in refusal(raysearch.load_network, path)
        with pytest.raises(OSError, match=r"pipe|directory"):
            states.load(path)


def test_policy_files_of_a_run_are_read_before_anything_is_computed(
    quiet_main: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (quiet_main / "evil.json").write_text("[" * 100_000)
    assert main(["evaluation.policies=[evil.json]"]) == 2
    said = capsys.readouterr().err
    assert "evil.json: not valid JSON" in said
    assert said.count("\n") == 1
    assert len(list(quiet_main.iterdir())) == 1


# Images.


def png(width: int, height: int) -> bytes:
    """A file of a few bytes that says it is of such a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(12_000, 12_000), (60_000, 60_000), (2**31 - 1, 9)])
def test_decompression_bombs_are_refused_by_their_header(width: int, height: int) -> None:
    for read in (Decoder(3, (8, 8)), read_header):
        with ignored_warnings(), pytest.raises(DecodeError, match="decompression bomb"):
            read(png(width, height))


def test_a_large_photograph_is_no_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    """JPEG can be decoded at an eighth of its size, so that its own does not matter."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6000)
    photo = Image.new("RGB", (100, 100), (200, 100, 0))
    encoded: dict[str, bytes] = {}
    for kind in ("PNG", "JPEG"):
        buffer = io.BytesIO()
        photo.save(buffer, kind)
        encoded[kind] = buffer.getvalue()
    with ignored_warnings():
        assert read_header(encoded["JPEG"]).width == 100
        assert Decoder(3, (8, 8))(encoded["JPEG"]).shape == (3, 8, 8)
        with pytest.raises(DecodeError, match="100x100 are more pixels than the 6,000"):
            read_header(encoded["PNG"])
        with pytest.raises(DecodeError, match="save it smaller"):
            Decoder(3, (100, 100))(encoded["JPEG"])


def test_postscript_is_not_run() -> None:
    """Pillow would start Ghostscript, whatever the file's name."""
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    assert Image.open(io.BytesIO(program)).format == "EPS"
    with pytest.raises(DecodeError, match="not an image"):
        read_header(program)


# Folders.


def load(kind: str, root: Path, **options: Any) -> Dataset:
    return load_dataset({"name": kind, "root": str(root), "workers": 0, **options})


def pictures(folder: Path, count: int = 4, start: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        Image.new("L", (8, 8), number).save(folder / f"{number}.png")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("ant", "bee"):
        pictures(tmp_path / "photos" / name)
    return tmp_path / "photos"


def shades(data: Dataset) -> list[int]:
    found = []
    for split in (data.train, data.test):
        for images, _, _ in split.batches(64, device=torch.device("cpu"), generator=None):
            found += images[:, 0, 0, 0].tolist()
    return sorted(found)


@pytest.mark.parametrize("limit_mb", [4096, 0], ids=["resident", "stream"])
def test_images_that_cannot_be_read_are_named_or_skipped(photos: Path, limit_mb: int) -> None:
    (photos / "ant" / "bomb.png").write_bytes(png(12_000, 12_000))
    message = refusal(load, "folder", photos, memory_limit_mb=limit_mb)
    assert str(photos / "ant" / "bomb.png") in message
    assert "data.on_error=skip" in message
    os.mkfifo(photos / "bee" / "pipe.png")
    (photos / "bee" / "zero.png").symlink_to("/dev/zero")
    data = load("folder", photos, memory_limit_mb=limit_mb, on_error="skip")
    assert data.skipped == 3
    assert len(shades(data)) == 8
    (photos / "ant" / "bomb.png").unlink()
    assert "pipe.png" in refusal(load, "folder", photos, links="anywhere")


def test_links_to_images(photos: Path, tmp_path: Path) -> None:
    pictures(tmp_path / "private", 1, start=99)
    (photos / "ant" / "again.png").symlink_to("0.png")
    (photos / "ant" / "other.png").symlink_to(photos / "bee" / "1.png")
    assert shades(load("folder", photos)) == sorted([*range(4), *range(4), 0, 1])
    link = photos / "ant" / "out.png"
    for target in (tmp_path / "private" / "99.png", "../../private/99.png", "/etc/passwd"):
        link.symlink_to(target)
        message = refusal(load, "folder", photos)
        assert f"{link} is a symbolic link out of data.root" in message
        assert "data.links=anywhere" in message
        data = load("folder", photos, on_error="skip")
        assert data.skipped == 1
        assert 99 not in shades(data)
        link.unlink()
    link.symlink_to(tmp_path / "private" / "99.png")
    assert 99 in shades(load("folder", photos, links="anywhere"))
    link.unlink()
    link.symlink_to("out.png")
    assert "out.png: Too many levels" in refusal(load, "folder", photos)
    assert "data.links" in refusal(load, "folder", photos, links="outside")


def test_links_to_folders(photos: Path, tmp_path: Path) -> None:
    pictures(tmp_path / "private", 4, start=99)
    (tmp_path / "link").symlink_to(photos)
    assert len(shades(load("folder", tmp_path / "link"))) == 8  # the root is the user's choice
    (photos / "ant" / "up").symlink_to(photos / "ant")  # in a circle
    (photos / "ant" / "across").symlink_to("../bee")
    (photos / "cow").symlink_to("bee")
    assert len(shades(load("folder", photos))) == 16
    for link in (photos / "ant" / "out", photos / "dog"):
        link.symlink_to(tmp_path / "private")
        for choice in ("error", "skip"):
            message = refusal(load, "folder", photos, on_error=choice)
            assert f"{link} is a symbolic link out of data.root" in message
        assert 99 in shades(load("folder", photos, links="anywhere"))
        link.unlink()


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2Jb", "a\x7fb", b"a\xffb", "a\u2028b"])
def test_class_folders_whose_names_are_no_text(name: str | bytes, photos: Path) -> None:
    pictures(photos / os.fsdecode(name))
    message = refusal(load, "folder", photos)
    assert str(photos) in message
    assert "rename it" in message


@pytest.mark.parametrize(
    "name",
    ["..x", "...", "-rf", "~", "$HOME", "a'b", 'a"b', "<b>", "%s", "a\\b", "é", "猫", "n" * 255],
)
def test_class_folders_whose_names_are_merely_odd(name: str, photos: Path) -> None:
    if name.startswith("."):
        pictures(photos / name)
        assert name not in load("folder", photos).classes  # hidden
        return
    pictures(photos / name)
    assert name in load("folder", photos).classes


# Parquet files.


def table(
    path: Path, count: int = 77, *, names: Any = None, paths: list[str] | None = None
) -> None:
    """One row group of images, or paths of such."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.new("L", (6, 6), 9).save(buffer, "PNG")
    values = [{"bytes": buffer.getvalue() + b" " * i, "path": None} for i in range(count)]
    if paths is not None:
        values = [{"bytes": None, "path": paths[i % len(paths)]} for i in range(count)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"image": pa.array(values, kind), "label": pa.array([i % 2 for i in range(count)])}
    metadata = None
    if names is not None:
        info = {"info": {"features": {"label": {"names": names}}}}
        metadata = {"huggingface": json.dumps(info)}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)


def varint(number: int) -> bytes:
    """As in a footer: a signed number in Thrift's compact protocol."""
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def lie(path: Path, truth: int, told: int, which: slice = slice(None)) -> None:
    """Replace a 64-bit number in the footer, where it occurs."""
    content = path.read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    start = len(content) - 8 - length
    # a field of 64 bits, some numbers after the last one
    field = rb"([\x16\x26\x36])" + re.escape(varint(truth))
    places = list(re.finditer(field, content[start:-8]))[which]
    assert places
    footer, end = b"", start
    for place in places:
        footer += content[end : start + place.start()] + place[1] + varint(told)
        end = start + place.end()
    footer += content[end:-8]
    path.write_bytes(content[:start] + footer + len(footer).to_bytes(4, "little") + b"PAR1")


@pytest.mark.parametrize("told", [-1, 0, 76, 78, 10**6, 2**40, 2**62])
@pytest.mark.parametrize("which", [slice(None), slice(0, 1), slice(-1, None), slice(0, -2)])
def test_a_footer_that_lies_about_rows(told: int, which: slice, tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    table(path)
    lie(path, 77, told, which)
    pool = pa.default_memory_pool()
    most = max(pool.max_memory(), 1 << 26)
    if told == 76 and which == slice(None):  # then it is a file of 76 rows
        assert len(shades(load("parquet", tmp_path))) == 76
        return
    assert "train.parquet" in refusal(load, "parquet", tmp_path)
    assert pool.max_memory() <= most


@pytest.mark.parametrize("told", [-(2**62), -1, 0, 7, 2**40, 2**62])
@pytest.mark.parametrize(
    "field",
    [
        "total_byte_size",
        "total_compressed_size",
        "total_uncompressed_size",
        "data_page_offset",
        "dictionary_page_offset",
    ],
)
def test_a_footer_that_lies_about_places_and_sizes(field: str, told: int, tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    table(path)
    group = pq.ParquetFile(path).metadata.row_group(0)
    place = group if field == "total_byte_size" else group.column(0)
    lie(path, getattr(place, field), told)
    pool = pa.default_memory_pool()
    most = max(pool.max_memory(), 1 << 26)
    with contextlib.suppress(RaysearchError):  # what is not needed is not looked at
        load("parquet", tmp_path)
    assert pool.max_memory() <= most


def test_shards_of_any_number(tmp_path: Path) -> None:
    table(tmp_path / "train-00000-of-99999999999999.parquet")
    assert "number 1 is missing" in refusal(load, "parquet", tmp_path)


def test_what_only_looks_like_a_parquet_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train.parquet")
    assert "a pipe or a device" in refusal(load, "parquet", tmp_path)
    (tmp_path / "train.parquet").unlink()
    (tmp_path / "train.parquet").mkdir()  # as Dask and Spark write one, but with nothing in it
    assert "found no Parquet file" in refusal(load, "parquet", tmp_path)


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png",
        "a/../../secret.png",
        "/etc/passwd",
        "link.png",
        "a\x00b",
        "circle",
        "x" * 9999,
    ],
)
def test_image_paths_that_lead_out(path: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    pictures(root, 3)
    Image.new("L", (8, 8)).save(tmp_path / "secret.png")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "circle").symlink_to("circle")
    table(root / "train.parquet", paths=["0.png", "1.png", path])
    assert str(root) in refusal(load, "parquet", root)
    table(root / "train.parquet", paths=["0.png", "1.png", "2.png"])
    assert set(shades(load("parquet", root))) == {0, 1, 2}


def test_class_names_in_a_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "root" / "train.parquet"
    table(path, names=["../x", "/etc"])  # names, which are no paths
    assert load("parquet", path.parent).classes == ("../x", "/etc")
    assert [p.name for p in tmp_path.rglob("*")] == ["root", "train.parquet"]
    for names, said in (
        (["a\x1b[2J", "b"], "no text"),
        (["a\ud800", "b"], "no text"),
        (["n" * 10**6, "b"], "has 1000000 characters"),
        ("ab", "not a list of strings"),
        ([["a"], "b"], "not a list of strings"),
    ):
        table(path, names=names)
        assert said in refusal(load, "parquet", path.parent)
    deep = json.dumps({"info": {"features": {"label": {"names": "?"}}}})
    values = pq.read_table(path)
    metadata = {"huggingface": deep.replace('"?"', "[" * 100_000)}
    pq.write_table(values.replace_schema_metadata(metadata), path)
    assert load("parquet", path.parent).classes == ("0", "1")


# Messages.


def test_messages_are_one_line_that_a_terminal_only_shows() -> None:
    error = RaysearchError("a\x1b[2Jb\nc\u202ed é猫")
    assert str(error) == "a\\x1b[2Jb c\\u202ed é猫"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert len(str(unknown("kind", "x" * 10**7, ["a", "b"]))) < 200
    shade = np.uint8(3)
    assert str(RaysearchError(f"{shade}")) == "3"


# Secrets.

SECRET = "s3cret-0f1e2d"
WITH_SECRETS = [
    f"http://ann:{SECRET}@localhost:1",
    f"https://{SECRET}@host/mlflow",
    f"http://ann:{SECRET}/with?all#signs@localhost:1",
    f"postgresql://ann:{SECRET}@localhost/runs",
    f"postgresql://localhost/runs?user=ann&password={SECRET}",
    f"s3://host/runs?X-Amz-Security-Token={SECRET}",
]


@pytest.mark.parametrize("url", WITH_SECRETS)
@pytest.mark.parametrize(
    "setting",
    ["tracking.uri", "runs_dir", "data.root", "evaluation.policies", "name", "model.name"],
)
def test_a_setting_with_a_password_is_refused_and_not_repeated(
    setting: str, url: str, quiet_main: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    groups = ["data=folder"] if setting == "data.root" else []
    value = f"[none,'{url}']" if setting == "evaluation.policies" else f"'{url}'"
    assert main([*groups, f"{setting}={value}"]) == 2
    said = capfd.readouterr().err
    assert SECRET not in said
    assert said.count("\n") == 1
    assert setting in said
    assert "MLFLOW_TRACKING_PASSWORD" in said
    assert not list(quiet_main.iterdir())


def test_a_password_is_not_repeated_where_something_else_is_wrong(
    quiet_main: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    url = WITH_SECRETS[0]
    for arguments in (
        [f"tracking.url={url}"],
        [f"tracking.uri={url} x"],
        [f"{url}"],
        ["--address", url],
        ["--resume", url],
    ):
        assert main(arguments) == 2
        assert SECRET not in capfd.readouterr().err
    assert not list(quiet_main.iterdir())
    with pytest.raises(RaysearchError, match=r"http://\*\*\*@localhost:1"):
        Tracker(url, "raysearch", "demo", {})


def test_a_run_whose_configuration_has_a_password_is_not_continued(
    quiet_main: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = create(compose_run(["name=old"]))
    folder.release()
    kept = folder.path / "config.yaml"
    kept.write_text(kept.read_text().replace("uri: null", f"uri: {WITH_SECRETS[0]}"))
    assert main(["--resume", "old"]) == 2
    said = capfd.readouterr().err
    assert "tracking.uri=http://***@localhost:1" in said
    assert SECRET not in said
    for content in ("a: [", "- 1", "&a [*a, *a]", "\x00", "[" * 5000):
        kept.write_text(content)
        assert main(["--resume", "old"]) == 2
        assert capfd.readouterr().err.count("\n") == 1
    kept.write_text(to_yaml(folder.experiment.document()))
    for content in ("[" * 100_000, "[]", "{}", "x"):
        (folder.path / "run.json").write_text(content)
        assert main(["--resume", "old"]) == 2
        assert "run.json" in capfd.readouterr().err


@pytest.fixture
def guarded() -> Iterator[tuple[str, list[str | None]]]:
    """A server, and what requests to it said about who is asking."""
    asked: list[str | None] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Authorization"))
            self.send_error(403)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_passwords_come_from_the_environment(
    guarded: tuple[str, list[str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    server, asked = guarded
    with pytest.raises(RaysearchError) as caught:
        Tracker(server, "raysearch", "demo", {})
    assert asked[0] == "Basic " + base64.b64encode(f"ann:{SECRET}".encode()).decode()
    assert SECRET not in str(caught.value)


def test_no_secret_is_in_what_a_run_writes_or_says(cli: CommandLine) -> None:
    names = ("RAY_AUTH_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PGPASSWORD")
    cli.environment |= dict.fromkeys(names, SECRET)
    result = cli.run(
        "method=none",
        "name=mine",
        "evaluation.policies=[none]",
        "evaluation.seeds=1",
        "evaluation.epochs=1",
        "data.limit=100",
        *("--num-cpus", "1"),
    )
    assert result.returncode == 0, result.stderr
    assert SECRET not in result.stdout + result.stderr
    written = [path for path in cli.folder.rglob("*") if path.is_file()]
    assert {"mlflow.db", "raysearch.log", "config.yaml", "summary.json", "report.html"} <= {
        path.name for path in written
    }
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
