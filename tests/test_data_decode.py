"""Decoding: every kind of image comes out upright, of the wanted size and channels."""

from __future__ import annotations

import contextlib
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from raysearch.data._decode import Decoder
from raysearch.data._image import DecodeError, formats, ignored_warnings, read_header


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def solid(mode: str, color: Any, size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new(mode, size, color)


def gradient(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack((x * 255 // width, y * 255 // height, (x + y) % 256), -1).astype(np.uint8)


def test_rgb_png_is_exact() -> None:
    array = gradient(9, 7)
    decoded = Decoder(3, (9, 7))(encode(Image.fromarray(array)))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, array.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("image", "kind", "expected"),
    [
        (solid("L", 90), "PNG", (90, 90, 90)),
        (solid("1", 1), "PNG", (255, 255, 255)),
        (solid("RGBA", (200, 100, 0, 255)), "PNG", (200, 100, 0)),
        (solid("RGBA", (200, 100, 0, 0)), "PNG", (255, 255, 255)),
        (solid("LA", (40, 0)), "PNG", (255, 255, 255)),
        (solid("I;16", 0x8034), "PNG", (128, 128, 128)),
        (solid("I", 0x8034), "TIFF", (128, 128, 128)),
        (solid("P", 0), "PNG", (0, 0, 0)),
        (solid("CMYK", (0, 255, 255, 0)), "TIFF", (255, 0, 0)),
        (solid("RGB", (10, 20, 30)), "BMP", (10, 20, 30)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else None,
)
def test_modes(image: Image.Image, kind: str, expected: tuple[int, int, int]) -> None:
    decoded = Decoder(3, (8, 8))(encode(image, kind))
    assert decoded.shape == (3, 8, 8)
    assert decoded.reshape(3, -1).T.tolist() == [list(expected)] * 64


def test_cmyk_jpeg() -> None:
    decoded = Decoder(3, (8, 8))(encode(solid("CMYK", (0, 255, 255, 0)), "JPEG", quality=95))
    assert np.abs(decoded.astype(int) - np.array([255, 0, 0])[:, None, None]).max() <= 4


def test_palette_with_a_transparent_colour() -> None:
    image = solid("P", 0)
    image.putpalette([9, 9, 9, 200, 0, 0])
    image.putpixel((0, 0), 1)
    decoded = Decoder(3, (8, 8))(encode(image, transparency=0))
    assert decoded[:, 0, 0].tolist() == [200, 0, 0]
    assert decoded[:, 1, 1].tolist() == [255, 255, 255]


def test_grey_channel() -> None:
    decoded = Decoder(1, (8, 8))(encode(solid("L", 77)))
    assert decoded.shape == (1, 8, 8)
    assert (decoded == 77).all()


XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF \
xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description \
xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{}"/></rdf:RDF></x:xmpmeta>"""


def turned(upright: np.ndarray, orientation: int) -> Image.Image:
    """What a camera that is held so stores, for the picture to be upright after all."""
    quarter = {5: 0, 6: 1, 7: 2, 8: -1}
    if orientation in quarter:
        array = np.rot90(upright, quarter[orientation])
        array = array.swapaxes(0, 1) if orientation in (5, 7) else array
    else:
        down, across = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1)}[orientation]
        array = upright[::down, ::across]
    return Image.fromarray(np.ascontiguousarray(array))


def behind_the_pixels(data: bytes, name: bytes, content: bytes) -> bytes:
    """A PNG with a chunk before its end."""
    check = zlib.crc32(name + content).to_bytes(4, "big")
    return data[:-12] + len(content).to_bytes(4, "big") + name + content + check + data[-12:]


def stored(kind: str, image: Image.Image, orientation: int) -> bytes:
    """An image in a format, with its orientation in one of the places where that can stand."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    xmp = XMP.format(orientation)
    form, _, place = kind.partition(" ")
    options: dict[str, Any] = {"quality": 97, "subsampling": 0} if form in ("JPEG", "MPO") else {}
    options |= {"WEBP": {"lossless": True}, "AVIF": {"quality": 100}}.get(form, {})
    if place == "late":
        return behind_the_pixels(encode(image), b"eXIf", exif.tobytes()[6:])
    if place == "late XMP":
        text = b"XML:com.adobe.xmp" + bytes(5) + xmp.encode()
        return behind_the_pixels(encode(image), b"iTXt", text)
    if place == "XMP":
        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp)
        own = {"PNG": {"pnginfo": text}, "TIFF": {"tiffinfo": {700: xmp.encode()}}}
        return encode(image, form, **options, **own.get(form, {"xmp": xmp.encode()}))
    if place == "frames":
        options |= {
            "save_all": True,
            "append_images": [image.transpose(Image.Transpose.ROTATE_180)],
        }
    elif place:
        options["compression"] = place
    return encode(image, form, exif=exif, **options)


@pytest.mark.parametrize(
    "kind",
    [
        *["JPEG", "JPEG XMP", "MPO frames"],
        *["PNG", "PNG late", "PNG XMP", "PNG late XMP", "PNG frames"],
        *["TIFF", "TIFF tiff_lzw", "TIFF jpeg", "TIFF XMP", "TIFF frames"],
        *["WEBP", "WEBP XMP", "WEBP frames", "AVIF", "AVIF XMP", "GIF", "BMP", "JPEG2000", "TGA"],
    ],
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_format_is_upright_at_every_orientation(kind: str, orientation: int) -> None:
    if kind.partition(" ")[0] not in (*formats(), "MPO"):
        pytest.skip("this Pillow is without it")
    upright = gradient(24, 40)
    tells = kind not in ("GIF", "BMP", "JPEG2000", "TGA")  # the others have no place for it
    data = stored(kind, turned(upright, orientation if tells else 1), orientation)
    header = read_header(data)
    assert (header.height, header.width) == (24, 40)
    assert header.frames == kind.endswith("frames")
    decoded = Decoder(3, (24, 40))(data).transpose(1, 2, 0)
    lossless = kind.partition(" ")[0] not in ("JPEG", "MPO", "AVIF", "GIF") and "jpeg" not in kind
    assert np.abs(decoded.astype(int) - upright).mean() <= (0 if lossless else 4)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_images_are_upright(kind: str, orientation: int) -> None:
    upright = (np.arange(24 * 40, dtype=np.uint16) * 60).reshape(24, 40)
    data = stored(kind, turned(upright, orientation), orientation)
    header = read_header(data)
    assert (header.height, header.width, header.bits, header.deep) == (24, 40, 16, True)
    decoded = Decoder(1, (24, 40))(data)[0]
    np.testing.assert_array_equal(decoded, np.rint(upright / 257).astype(np.uint8))


def test_resizing_crops_the_centre() -> None:
    array = np.zeros((10, 30, 3), np.uint8)
    array[:, 10:20] = 255  # the middle third, which a square crop keeps
    assert (Decoder(3, (10, 10))(encode(Image.fromarray(array))) == 255).all()
    assert Decoder(3, (5, 12))(encode(Image.fromarray(array))).shape == (3, 5, 12)


def test_large_jpeg_is_reduced_on_decoding_without_harm() -> None:
    image = Image.fromarray(gradient(256, 512)).resize((2000, 1000))
    decoded = Decoder(3, (64, 128))(encode(image, "JPEG", quality=95)).astype(int)
    expected = np.asarray(image.resize((128, 64), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.abs(decoded[:2] - expected[:2]).mean() < 2


KINDS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_files_are_refused(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), kind)
    for length in (0, 3, 30, len(data) // 2):
        with ignored_warnings(), pytest.raises(DecodeError):
            Decoder(3, (32, 32))(data[:length])


def test_random_damage_raises_nothing_but_decode_errors() -> None:
    rng = np.random.default_rng(0)
    deep = Image.fromarray(np.arange(144, dtype=np.uint16).reshape(12, 12))
    images = [(Image.fromarray(gradient(12, 12)), kind) for kind in KINDS]
    for image, kind in [*images, (deep, "PNG"), (deep, "TIFF")]:
        whole = np.frombuffer(encode(image, kind), np.uint8)
        for _ in range(60):
            broken = whole.copy()
            places = rng.integers(0, len(broken), 4)
            broken[places] = rng.integers(0, 256, 4)
            with ignored_warnings(), contextlib.suppress(DecodeError):
                read_header(broken.tobytes())
                assert Decoder(3, (12, 12))(broken.tobytes()).shape == (3, 12, 12)


def test_not_an_image() -> None:
    with pytest.raises(DecodeError, match="not an image"):
        Decoder(3, (8, 8))(b"hello, this is text")
    with pytest.raises(DecodeError, match="null"):
        Decoder(3, (8, 8))(None)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match="No such file"):
        read_header(str(tmp_path / "absent.png"))


def test_floating_point_is_refused() -> None:
    with pytest.raises(DecodeError, match="floating-point"):
        Decoder(1, (8, 8))(encode(solid("F", 0.5), "TIFF"))


def test_decompression_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DecodeError, match="decompression bomb"):
        Decoder(3, (8, 8))(encode(solid("RGB", 0)))
