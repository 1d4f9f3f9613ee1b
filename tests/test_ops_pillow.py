"""Every operation gives what Pillow gives, through torchvision's AutoAugment."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import _apply_op

from raysearch import ops

SIZES = [(8, 8), (32, 32), (33, 47), (96, 64), (224, 224)]
GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "FlipLR", "FlipUD")
FACTORS = ("Contrast", "Color", "Brightness", "Sharpness")
MAGNITUDES = (0.0, 0.13, 0.5, 0.77, 1.0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def sample_images(channels: int, size: tuple[int, int]) -> Tensor:
    """Noise, a smooth image, the same in a narrow range, two levels, and a constant one."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (channels, *size), dtype=torch.uint8, generator=generator)
    coarse = torch.rand(1, channels, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bilinear")[0].mul(255)
    smooth = smooth.to(torch.uint8)
    return torch.stack(
        (noise, smooth, smooth // 3 + 40, (noise > 250) * noise, torch.full_like(noise, 77))
    )


def to_pil(image: Tensor) -> Image.Image:
    array = image.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def from_pil(picture: Image.Image) -> Tensor:
    array = np.array(picture)
    return torch.from_numpy(array.reshape(*array.shape[:2], -1).transpose(2, 0, 1).copy())


def pillow(image: Tensor, name: str, value: float) -> Tensor:
    """The operation through torchvision's PIL path, or Pillow itself where it has no such one."""
    picture = to_pil(image)
    if name == "FlipLR":
        return from_pil(ImageOps.mirror(picture))
    if name == "FlipUD":
        return from_pil(ImageOps.flip(picture))
    if name == "Blur":
        return from_pil(picture.filter(ImageFilter.BLUR))
    if name == "Smooth":
        return from_pil(picture.filter(ImageFilter.SMOOTH))
    magnitude = value
    if name in FACTORS:
        magnitude = value - 1.0
    elif name == "TranslateX":
        magnitude = round(value * picture.width, 4)
    elif name == "TranslateY":
        magnitude = round(value * picture.height, 4)
    return from_pil(_apply_op(picture, name, magnitude, InterpolationMode.NEAREST, None))


def values_of(name: str, size: tuple[int, int]) -> list[float]:
    """Values over both ranges, both signs and both ends."""
    values = []
    for ranges in (ops.AUTOAUGMENT_RANGES, ops.wide_ranges(size)):
        if name not in ranges:
            return [0.0]
        low, high, signed = ranges[name]
        for sign in (1.0, -1.0) if signed else (1.0,):
            values += [low + sign * magnitude * (high - low) for magnitude in MAGNITUDES]
    return [float(np.float32(round(v) if name == "Posterize" else v)) for v in sorted(set(values))]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("name", [name for name in ops.OPERATIONS if name != "Cutout"])
def test_equals_pillow(name: str, size: tuple[int, int], channels: int) -> None:
    images = sample_images(channels, size)
    for value in values_of(name, size):
        result = ops.apply(
            images,
            torch.full((len(images),), ops.operation_id(name)),
            torch.full((len(images),), value),
        )
        expected = torch.stack([pillow(image, name, value) for image in images])
        difference = (result.int() - expected.int()).abs()
        if name in GEOMETRIC:
            equal = (difference == 0).float().mean(dim=(1, 2, 3))
            assert equal.min() >= 0.995, f"value {value}: {equal.tolist()} of the pixels are equal"
        else:
            assert difference.max() <= 1, f"value {value}: off by {difference.max()} grey levels"
        # More than was asked for: today nothing differs at all.
        assert not difference.any(), f"value {value}: {int(difference.any(1).sum())} pixels differ"


@pytest.mark.parametrize("name", [n for n in ops.OPERATIONS if n not in ("Cutout", "Identity")])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (4, 4), (5, 3)])
def test_equals_pillow_on_tiny_images(name: str, size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(256, (3, *size), dtype=torch.uint8, generator=generator)
    value = {"Rotate": 30.0, "Solarize": 100.0, "Posterize": 4.0}.get(name, 0.4)
    result = ops.apply(image[None], torch.tensor([ops.operation_id(name)]), torch.tensor([value]))
    assert torch.equal(result[0], pillow(image, name, value))


@pytest.mark.parametrize("degrees", [45.0, 90.0, -90.0, 180.0, 270.0, 360.0, 720.5])
@pytest.mark.parametrize("size", [(32, 32), (20, 31)])
def test_rotation_by_any_angle_equals_pillow(degrees: float, size: tuple[int, int]) -> None:
    image = sample_images(3, size)[0]
    rotate = torch.tensor([ops.operation_id("Rotate")])
    result = ops.apply(image[None], rotate, torch.tensor([degrees]))[0]
    assert (result == pillow(image, "Rotate", degrees)).float().mean() >= 0.995


@pytest.mark.parametrize("factor", [-0.98, -0.26, -0.01, 2.26, 2.98])
@pytest.mark.parametrize("name", FACTORS)
@pytest.mark.parametrize("channels", [1, 3])
def test_factors_of_magnitudes_beyond_one_equal_pillow(
    name: str, factor: float, channels: int
) -> None:
    for image in sample_images(channels, (33, 47)):
        operation = torch.tensor([ops.operation_id(name)])
        result = ops.apply(image[None], operation, torch.tensor([factor]))[0]
        assert torch.equal(result, pillow(image, name, factor))


def test_large_image_whose_positions_leave_32_bits() -> None:
    image = torch.randint(256, (1, 4, 40_000), dtype=torch.uint8)
    flip = torch.tensor([ops.operation_id("TranslateX")])
    result = ops.apply(image[None], flip, torch.tensor([0.5]))[0]
    assert torch.equal(result[..., 20_000:], image[..., :20_000])
    assert not result[..., :20_000].any()


def test_translation_by_whole_pixels_is_exact_for_every_shift() -> None:
    for side in (8, 28, 32, 33, 224):
        image = torch.arange(side).repeat(3, 1, 1).to(torch.uint8) + 1
        for pixels in range(-min(side, 40), min(side, 40) + 1):
            value = torch.tensor([pixels / side])
            shift = torch.tensor([ops.operation_id("TranslateX")])
            result = ops.apply(image[None], shift, value)[0]
            assert torch.equal(result, pillow(image, "TranslateX", pixels / side)), (side, pixels)
