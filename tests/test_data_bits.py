"""Images of more than 8 bits and with transparency: what 8 bits keep of them, and what is said."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, TiffImagePlugin

from raysearch.data import Dataset, StreamSplit, TensorSplit, load_dataset
from raysearch.errors import RaysearchError

SIDE = 12


def noise(top: float, seed: int, low: float = 0) -> np.ndarray:
    """Values [12, 12] from low to top, both of which occur."""
    values = np.random.default_rng(seed).uniform(low, top, (SIDE, SIDE))
    values[0, :2] = low, top
    return values


def folder(root: Path, images: Sequence[Any], kind: str = "png", part: str = "") -> Path:
    """Images, of Pillow or encoded, in two classes."""
    for number, image in enumerate(images):
        place = root / part / "ab"[number % 2] / f"{number:03}.{kind}"
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(image, bytes):
            place.write_bytes(image)
        else:
            image.save(place)
    return root


def load(root: Path, **settings: Any) -> Dataset:
    return load_dataset({"name": "folder", "root": str(root), **settings})


def pixels(data: Dataset) -> np.ndarray:
    """All of train and test, in the order of their pixels' sums."""
    assert isinstance(data.train, TensorSplit)
    assert isinstance(data.test, TensorSplit)
    found = np.concatenate((data.train.images.numpy(), data.test.images.numpy()))
    return found[np.argsort(found.reshape(len(found), -1).sum(1, dtype=int), kind="stable")]


def expected(values: Sequence[np.ndarray], low: float, high: float) -> np.ndarray:
    scaled = np.stack(values).astype(float) - low
    found = np.clip(np.rint(scaled * 255 / (high - low)), 0, 255).astype(np.uint8)[:, None]
    return found[np.argsort(found.reshape(len(found), -1).sum(1, dtype=int), kind="stable")]


def png(values: np.ndarray) -> bytes:
    """A PNG of 16 bits, of values [H, W, C] of 1 to 4 channels, which Pillow does not write."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def tiff(
    values: np.ndarray, extra: Sequence[int] = (), photometric: int = 2, signed: bool = False
) -> bytes:
    """An uncompressed TIFF of interleaved values [H, W, C], uint8 or uint16."""
    height, width, channels = values.shape
    order = values.astype(values.dtype.newbyteorder("<")).tobytes()
    body, places = b"", {}
    for tag, numbers in ((258, [values.dtype.itemsize * 8] * channels), (338, list(extra))):
        packed = struct.pack(f"<{len(numbers)}H", *numbers)
        inline = len(packed) <= 4  # where it fits, it stands in its entry itself
        places[tag] = int.from_bytes(packed, "little") if inline else 8 + len(order) + len(body)
        body += packed
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, channels, places[258]),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, 1, 8),
        (277, 3, 1, channels),
        (278, 4, 1, height),
        (279, 4, 1, len(order)),
    ]
    if extra:
        entries.append((338, 3, len(extra), places[338]))
    if signed:
        entries.append((339, 3, 1, 2))
    table = struct.pack("<H", len(entries))
    table += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(order) + len(body)) + order + body + table


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize(
    ("top", "high"),
    [
        *[(1, 255), (200, 255), (255, 255), (256, 511), (1000, 1023), (1023, 1023)],
        *[(4095, 4095), (5000, 8191), (40_000, 65_535), (65_535, 65_535)],
    ],
)
def test_grey_of_16_bits(tmp_path: Path, top: int, high: int, kind: str) -> None:
    values = [np.rint(noise(top, seed)).astype(np.uint16) for seed in range(10)]
    data = load(folder(tmp_path, [Image.fromarray(each) for each in values], kind))
    assert data.channels == 1
    np.testing.assert_array_equal(pixels(data), expected(values, 0, high))
    (said,) = [note for note in data.notes if "more than 8 bits" in note]
    assert said.startswith(f"10 of 10 images have more than 8 bits, values from 0 to {top}")
    assert ("used as they are" in said) == (high == 255)
    assert "data.range=[LOW,HIGH]" in said


@pytest.mark.parametrize(
    ("kind", "dtype", "low", "top", "black", "white"),
    [
        ("tif", np.int32, 0, 200, 0, 255),
        ("tif", np.int32, 0, 1000, 0, 1023),
        ("tif", np.int32, -1024, 3071, -1024, 3071),
        ("tif", np.int32, 0, 1_000_000, 0, 1_000_000),
        ("tif", np.float32, 0, 1, 0, 1),
        ("tif", np.float32, 0, 0.5, 0, 1),
        ("tif", np.float32, 0, 254.5, 0, 255),
        ("tif", np.float32, -1, 1, -1, 1),
        ("tif", np.float32, 0, 7.5, 0, 7.5),
        ("tif", np.float32, 10.5, 4000.5, 10.5, 4000.5),
        ("pfm", np.float32, 0, 1, 0, 1),
    ],
)
def test_whole_numbers_and_fractions(
    tmp_path: Path, kind: str, dtype: Any, low: float, top: float, black: float, white: float
) -> None:
    values = [noise(top, seed, low).astype(dtype) for seed in range(10)]
    data = load(folder(tmp_path, [Image.fromarray(each) for each in values], kind))
    np.testing.assert_array_equal(pixels(data), expected(values, black, white))


def test_32_bits_without_a_sign(tmp_path: Path) -> None:
    top = (1 << 32) - 1
    values = [noise(top, seed).astype(np.uint32) for seed in range(10)]
    images = [tiff(each[..., None], photometric=1) for each in values]
    np.testing.assert_array_equal(
        pixels(load(folder(tmp_path, images, "tif"))), expected(values, 0, top)
    )


@pytest.mark.parametrize("top", [255, 1000, 65_535])
def test_16_bits_whose_zero_is_white(tmp_path: Path, top: int) -> None:
    values = [np.rint(noise(top, seed)).astype(np.uint16) for seed in range(10)]
    images = [tiff(65_535 - each[..., None], photometric=0) for each in values]
    high = (1 << top.bit_length()) - 1
    np.testing.assert_array_equal(
        pixels(load(folder(tmp_path, images, "tif"))), expected(values, 0, high)
    )


def test_fractions_whose_zero_is_white(tmp_path: Path) -> None:
    values = [noise(1, seed).astype(np.float32) for seed in range(10)]
    made = tmp_path / "made.tif"
    images = []
    for each in values:
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = 0
        Image.fromarray(-each).save(made, tiffinfo=tags)
        images.append(made.read_bytes())
        with Image.open(made) as image:
            assert image.tag_v2[262] == 0
    made.unlink()
    np.testing.assert_array_equal(
        pixels(load(folder(tmp_path, images, "tif"))), expected(values, 0, 1)
    )


def test_8_bits_with_a_sign_are_refused(tmp_path: Path) -> None:
    values = np.arange(144, dtype=np.uint8).reshape(SIDE, SIDE, 1)
    images = [tiff(values, photometric=1, signed=True)] * 10
    with pytest.raises(RaysearchError, match=r"000\.tif: a TIFF of 8 bits with a sign, which"):
        load(folder(tmp_path, images, "tif"))


def test_whole_numbers_as_fractions_are_whole(tmp_path: Path) -> None:
    values = [np.rint(noise(4000, seed)).astype(np.float32) for seed in range(10)]
    data = load(folder(tmp_path, [Image.fromarray(each) for each in values], "tif"))
    np.testing.assert_array_equal(pixels(data), expected(values, 0, 4095))


def test_the_range_is_that_of_train_and_the_same_in_memory_and_as_a_stream(tmp_path: Path) -> None:
    for part, top in (("train", 1000), ("val", 3000), ("test", 90)):
        images = [Image.fromarray(np.rint(noise(top, n)).astype(np.uint16)) for n in range(8)]
        folder(tmp_path, images, part=part)
    data = load(tmp_path)
    values = np.rint(noise(90, 0)).astype(np.uint16)
    assert isinstance(data.test, TensorSplit)
    np.testing.assert_array_equal(data.test.images[0].numpy(), expected([values], 0, 1023)[0])
    (said,) = [note for note in data.notes if "cut off" in note]
    assert said.startswith("8 of 24 images with values beyond 0 to 1023, which are cut off: ")
    assert "val" in said
    stream = load(tmp_path, memory_limit_mb=0, workers=2)
    assert isinstance(stream.test, StreamSplit)
    assert isinstance(stream.train, StreamSplit)
    assert stream.test.decoder == stream.train.decoder
    assert str(stream.test.decoder.conversion.range) == "0 to 1023"
    batch = next(stream.test.batches(8, device=torch.device("cpu"), generator=None))
    np.testing.assert_array_equal(batch.images.numpy(), data.test.images.numpy())


def test_a_range_that_is_asked_for(tmp_path: Path) -> None:
    values = [np.rint(noise(1000, seed)).astype(np.uint16) for seed in range(10)]
    root = folder(tmp_path / "deep", [Image.fromarray(each) for each in values])
    data = load(root, range=(100, 600))
    np.testing.assert_array_equal(pixels(data), expected(values, 100, 600))
    assert any("beyond 100 to 600, which are cut off" in note for note in data.notes)
    shallow = [np.rint(noise(15, seed)).astype(np.uint8) for seed in range(10)]
    root = folder(tmp_path / "shallow", [Image.fromarray(each) for each in shallow])
    np.testing.assert_array_equal(pixels(load(root, range=(0, 15))), expected(shallow, 0, 15))
    np.testing.assert_array_equal(pixels(load(root)), expected(shallow, 0, 255))
    for wrong in ((5, 5), (1,), "all", (0, float("nan"))):
        with pytest.raises(RaysearchError, match=r"data\.range"):
            load(root, range=wrong)


def test_images_of_8_bits_stay_beside_deep_ones(tmp_path: Path) -> None:
    deep = [Image.fromarray(np.rint(noise(1023, n)).astype(np.uint16)) for n in range(5)]
    shallow = [Image.fromarray(np.rint(noise(200, n)).astype(np.uint8)) for n in range(5)]
    data = load(folder(tmp_path, [*deep, *shallow]))
    found = {row.tobytes() for row in pixels(data)}
    assert all(np.asarray(image).tobytes() in found for image in shallow)
    assert any(note.startswith("5 of 10 images have more than 8 bits") for note in data.notes)


def test_a_bright_spot_that_takes_most_of_the_range_is_told(tmp_path: Path) -> None:
    values = [np.rint(noise(900, n)).astype(np.uint16) for n in range(10)]
    values[3][5, 5] = 65535
    data = load(folder(tmp_path, [Image.fromarray(each) for each in values]))
    assert any("half of the images reach no more than 900" in note for note in data.notes)


def test_what_is_no_number_is_black_and_told(tmp_path: Path) -> None:
    values = [noise(1, n).astype(np.float32) for n in range(10)]
    values[2][4, 4] = np.nan
    data = load(folder(tmp_path, [Image.fromarray(each) for each in values], "tif"))
    assert any(
        n.startswith("1 of 10 images with pixels that are no numbers, read as black")
        for n in data.notes
    )


@pytest.mark.parametrize("encode", [png, tiff], ids=["png", "tiff"])
@pytest.mark.parametrize(("top", "high"), [(200, 255), (1000, 1023), (65_535, 65_535)])
def test_colours_of_16_bits(tmp_path: Path, encode: Any, top: int, high: int) -> None:
    rng = np.random.default_rng(0)
    values = [rng.integers(0, top + 1, (SIDE, SIDE, 3)).astype(np.uint16) for _ in range(10)]
    for each in values:
        each[0, 0] = top
    data = load(folder(tmp_path, [encode(each) for each in values], encode.__name__))
    found = {row.transpose(1, 2, 0).tobytes() for row in pixels(data)}
    assert {np.rint(each * (255 / high)).astype(np.uint8).tobytes() for each in values} == found


@pytest.mark.parametrize("channels", [2, 4])
def test_transparency_of_16_bits(tmp_path: Path, channels: int) -> None:
    rng = np.random.default_rng(0)
    values = [rng.integers(0, 1001, (SIDE, SIDE, channels)).astype(np.uint16) for _ in range(10)]
    for each in values:
        each[0, 0], each[..., -1] = 1000, 65_535
    data = load(folder(tmp_path, [png(each) for each in values]))
    assert data.channels == (1 if channels == 2 else 3)
    found = {row.transpose(1, 2, 0).tobytes() for row in pixels(data)}
    colours = [each[..., :-1] for each in values]
    assert {np.rint(each * (255 / 1023)).astype(np.uint8).tobytes() for each in colours} == found


def test_in_parquet_files(tmp_path: Path) -> None:
    values = [np.rint(noise(1000, seed)).astype(np.uint16) for seed in range(10)]
    rows = []
    for number, each in enumerate(values):
        buffer = io.BytesIO()
        Image.fromarray(each).save(buffer, "PNG")
        rows.append({"image": {"bytes": buffer.getvalue(), "path": None}, "label": number % 2})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    data = load_dataset({"name": "parquet", "root": str(tmp_path)})
    np.testing.assert_array_equal(pixels(data), expected(values, 0, 1023))


def drawing(colour: Sequence[int], ground: Sequence[int], seed: int) -> Image.Image:
    """A square of a colour, at a place of its own, on a ground; RGBA, or LA where there are two."""
    array = np.empty((SIDE, SIDE, len(colour)), np.uint8)
    array[:] = ground
    y, x = np.random.default_rng(seed).integers(0, 6, 2)
    array[y : y + 5, x : x + 5] = colour
    return Image.fromarray(array, "RGBA" if len(colour) == 4 else "LA")


def as_palette(image: Image.Image) -> Image.Image:
    """The same as a palette with transparency for each of its colours."""
    pixels = [tuple(pixel) for pixel in np.asarray(image.convert("RGBA")).reshape(-1, 4).tolist()]
    colours = sorted(set(pixels))
    palette = Image.new("P", image.size)
    palette.putpalette([level for colour in colours for level in colour[:3]])
    palette.putdata([colours.index(pixel) for pixel in pixels])
    palette.info["transparency"] = bytes(colour[3] for colour in colours)
    return palette


@pytest.mark.parametrize("made", [lambda image: image, as_palette], ids=["alpha", "palette"])
@pytest.mark.parametrize(
    ("colour", "ground", "below"),
    [
        ((255, 255, 255, 255), (255, 255, 255, 0), 0),  # white, and not to be seen on white
        ((255, 255, 255, 255), (0, 0, 0, 0), 0),
        ((0, 0, 0, 255), (0, 0, 0, 0), 255),
        ((0, 0, 0, 255), (255, 255, 255, 0), 255),
        ((200, 10, 10, 255), (0, 0, 0, 0), 255),
        ((250, 250, 240, 120), (250, 250, 240, 0), 0),  # its most opaque pixel counts as opaque
        ((255, 255), (255, 0), 0),
        ((0, 255), (0, 0), 255),
    ],
)
def test_a_drawing_on_transparent_ground_is_seen(
    tmp_path: Path, colour: Sequence[int], ground: Sequence[int], below: int, made: Any
) -> None:
    data = load(folder(tmp_path, [made(drawing(colour, ground, n)) for n in range(10)]))
    found = pixels(data)
    shown = np.array(colour[:-1])[:, None]
    for image in found:
        flat = image.reshape(len(image), -1)
        assert set(map(tuple, flat.T.tolist())) >= {(below,) * len(flat)}
        assert (flat == shown[: len(flat)]).all(0).sum() == 25
    name = "black" if below == 0 else "white"
    assert any(
        f"10 of 10 images with transparency are laid over {name}" in note for note in data.notes
    )


def test_white_and_black_drawings_are_both_seen(tmp_path: Path) -> None:
    colours = [(255, 255, 255, 255), (0, 0, 0, 255)]
    images = [drawing(colours[n % 2], (*colours[n % 2][:3], 0), n) for n in range(10)]
    data = load(folder(tmp_path, images))
    assert (np.ptp(pixels(data).reshape(10, -1).astype(int), axis=1) > 100).all()
    assert any("laid over grey (128 of 255), as some" in note for note in data.notes)


@pytest.mark.parametrize("alpha", [5, 0, 254])
def test_a_red_image_of_little_opacity_stays_red(tmp_path: Path, alpha: int) -> None:
    images = []
    for seed in range(10):
        array = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 4), np.uint8)
        array[3, 3], array[..., 3] = 255, alpha
        array[2:8, 2:8, :3] = (255, 0, 0)
        images.append(Image.fromarray(array))
    data = load(folder(tmp_path, images))
    assert (pixels(data)[:, :, 4, 4] == (255, 0, 0)).all()
    assert any("images with transparency are read by colours alone" in note for note in data.notes)


def test_a_red_pixel_of_little_opacity_stays_red(tmp_path: Path) -> None:
    images = []
    for seed in range(10):
        array = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 4), np.uint8)
        array[..., 3] = 255
        array[4, 4] = (255, 0, 0, 5)
        images.append(Image.fromarray(array))
    assert (pixels(load(folder(tmp_path, images)))[:, :, 4, 4] == (255, 0, 0)).all()


def test_a_fourth_channel_of_data_is_no_mask(tmp_path: Path) -> None:
    arrays = [
        np.random.default_rng(n).integers(0, 256, (SIDE, SIDE, 4), np.uint8) for n in range(9)
    ]
    data = load(folder(tmp_path, [Image.fromarray(each) for each in arrays]))
    found = {row.transpose(1, 2, 0).tobytes() for row in pixels(data)}
    assert found == {np.ascontiguousarray(each[..., :3]).tobytes() for each in arrays}
    assert any(
        "are read by colours alone, as it is a further channel" in note for note in data.notes
    )


def test_opaque_images_say_nothing(tmp_path: Path) -> None:
    images = [Image.effect_noise((SIDE, SIDE), 60).convert("RGBA") for _ in range(10)]
    assert load(folder(tmp_path, images)).notes == ()


@pytest.mark.parametrize("extra", [1, 2, 3])
def test_channels_beyond_the_third_are_named(tmp_path: Path, extra: int) -> None:
    rng = np.random.default_rng(0)
    values = [rng.integers(0, 256, (SIDE, SIDE, 3 + extra), np.uint8) for _ in range(10)]
    data = load(folder(tmp_path, [tiff(each, [0] * extra) for each in values], "tif"))
    found = {row.transpose(1, 2, 0).tobytes() for row in pixels(data)}
    assert found == {np.ascontiguousarray(each[..., :3]).tobytes() for each in values}
    assert any("with channels beyond colour and transparency" in note for note in data.notes)


@pytest.mark.parametrize("kind", ["tif", "gif", "webp", "png"])
def test_frames_beyond_the_first_are_named(tmp_path: Path, kind: str) -> None:
    for number in range(10):
        frames = [Image.effect_noise((SIDE, SIDE), 60) for _ in range(3)]
        place = tmp_path / "ab"[number % 2] / f"{number}.{kind}"
        place.parent.mkdir(exist_ok=True)
        frames[0].save(place, save_all=number > 3, append_images=frames[1:] if number > 3 else [])
    notes = load(tmp_path).notes
    (said,) = [note for note in notes if "pages or frames beyond the first" in note]
    assert said.startswith("6 of 10 images with pages")


def test_images_that_are_constant_or_equal_once_decoded_are_named(tmp_path: Path) -> None:
    images = [Image.effect_noise((SIDE, SIDE), 60) for _ in range(8)]
    images += [Image.new("L", (SIDE, SIDE), 40), images[0].copy()]
    notes = load(folder(tmp_path, images)).notes
    two, one = notes
    assert one == "1 of 10 images is of one colour, or nearly, once decoded: a/008.png"
    assert two.startswith("1 image of train is in test, too (")


def test_objects_of_pillow_follow_the_same_rules() -> None:
    values = [np.rint(noise(1000, seed)).astype(np.uint16) for seed in range(10)]
    pairs = [(Image.fromarray(each), n % 2) for n, each in enumerate(values)]
    data = Dataset.of(pairs)
    np.testing.assert_array_equal(pixels(data), expected(values, 0, 1023))
    assert data.notes[0].startswith("10 of 10 images have more than 8 bits, values from 0 to 1000")
    white = [(drawing((255, 255, 255, 255), (255, 255, 255, 0), n), n % 2) for n in range(10)]
    data = Dataset.of(white)
    assert (np.ptp(pixels(data).reshape(10, -1), axis=1) == 255).all()
