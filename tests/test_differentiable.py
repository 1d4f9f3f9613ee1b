"""Differentiable transformations: identities, directions, and derivatives."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from raysearch import ops
from raysearch.ops import differentiable
from raysearch.ops.differentiable import AFFINE, COLOUR, PARAMETERS, rotation, transform


def photographs(n: int = 6, channels: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    """Smooth random images in [0, 1], [n, channels, 12, 16]."""
    coarse = torch.rand(n, channels, 3, 4, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(coarse, (12, 16), mode="bilinear")
    return images.to(dtype).clamp(0, 1)


def rotated(degrees: Tensor) -> dict[str, Tensor]:
    angle = degrees * math.pi / 180
    return {"a11": angle.cos() - 1, "a12": -angle.sin(), "a21": angle.sin(), "a22": angle.cos() - 1}


@pytest.mark.parametrize("channels", [1, 3])
def test_zero_changes_nothing(channels: int) -> None:
    images = photographs(channels=channels)
    zero = torch.zeros(len(images), dtype=images.dtype)
    same = transform(images, dict.fromkeys(PARAMETERS, zero))
    torch.testing.assert_close(same, images, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_derivative_is_that_of_the_transformation(name: str) -> None:
    images = photographs(3) * 0.5 + 0.25
    value = torch.tensor([0.07, -0.11, 0.05], dtype=images.dtype, requires_grad=True)
    weights = torch.rand(images.shape, dtype=images.dtype)

    def total(parameter: Tensor) -> Tensor:
        return (weights * transform(images, {name: parameter})).sum((1, 2, 3))

    assert torch.autograd.gradcheck(total, value, eps=1e-7, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_derivatives_are_finite_on_black_grey_and_white(level: float) -> None:
    images = torch.full((4, 3, 8, 8), level)
    parameters = {name: torch.full((4,), 0.1, requires_grad=True) for name in PARAMETERS}
    result = transform(images, parameters)
    for gradient in torch.autograd.grad(result.square().sum(), list(parameters.values())):
        assert gradient.isfinite().all()


def test_rotation_turns_as_the_operation_does() -> None:
    image = torch.zeros(1, 1, 33, 33)
    image[..., 4:29, 15:18] = 1
    image[..., 4:10, 10:16] = 1
    degrees = torch.tensor([20.0])
    turned = transform(image, rotated(degrees))
    torch.testing.assert_close(rotation(rotated(degrees)), degrees)
    whole = image.mul(255).to(torch.uint8)
    operation = torch.tensor([ops.operation_id("Rotate")])
    same, other = (ops.apply(whole, operation, sign * degrees) / 255 for sign in (1, -1))
    assert (turned - same).abs().mean() < 0.2 * (turned - other).abs().mean()


def test_translation_is_in_half_sides() -> None:
    images = photographs(2)
    quarter = torch.full((2,), 0.5, dtype=images.dtype)  # of the side
    moved = transform(images, {"tx": quarter})
    torch.testing.assert_close(moved[..., :12], images[..., 4:], rtol=0, atol=1e-9)
    assert moved[..., 13:].abs().max() == 0


def test_colours_are_what_they_say() -> None:
    images = photographs(4) * 0.5 + 0.25
    value = torch.full((4,), 0.1, dtype=images.dtype)
    torch.testing.assert_close(transform(images, {"brightness": value}), images + 0.1)
    torch.testing.assert_close(transform(images, {"contrast": value}), images * 1.1)
    grey = transform(images, {"saturation": torch.full_like(value, -1)})
    torch.testing.assert_close(
        grey, images.amax(1, keepdim=True).expand_as(images), atol=1e-5, rtol=0
    )
    half = transform(images, {"hue": torch.ones_like(value)})
    back = transform(half, {"hue": torch.ones_like(value)})
    torch.testing.assert_close(back, images, atol=1e-5, rtol=0)
    assert (half - images).abs().max() > 0.1


def test_order_is_the_one_given() -> None:
    images = photographs(2)
    value = torch.full((2,), 0.4, dtype=images.dtype)
    parameters = {"brightness": value, "contrast": value}
    brighter_first = transform(images, parameters, ["brightness", "contrast"])
    assert not torch.equal(
        brighter_first, transform(images, parameters, ["contrast", "brightness"])
    )
    assert torch.equal(brighter_first, transform(images, parameters))


def test_every_image_has_its_own_parameters() -> None:
    images = photographs()
    generator = torch.Generator().manual_seed(1)
    parameters = {
        name: 0.2 * torch.randn(len(images), dtype=images.dtype, generator=generator)
        for name in (*AFFINE, *COLOUR)
    }
    together = transform(images, parameters)
    for i in range(len(images)):
        alone = transform(images[i : i + 1], {n: v[i : i + 1] for n, v in parameters.items()})
        torch.testing.assert_close(alone, together[i : i + 1])


def test_hue_does_nothing_to_grey_images() -> None:
    images = photographs(channels=1)
    value = torch.full((len(images),), 0.5, dtype=images.dtype)
    assert torch.equal(transform(images, {"hue": value, "saturation": value}), images)
    assert set(differentiable.NEEDS_COLOUR) == {"hue", "saturation"}
