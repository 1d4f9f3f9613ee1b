"""What finished policies apply is what searches apply through Kornia, to the bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from raysearch.ops import _continuous, differentiable
from raysearch.ops._continuous import COLOUR, PARAMETERS


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def all_colours(levels: int) -> Tensor:
    """An image of every colour of so many levels from 0 to 1, [1, 3, levels², levels]."""
    axis = torch.arange(levels) * (255 // (levels - 1))
    colours = torch.cartesian_prod(axis, axis, axis).T.reshape(1, 3, levels**2, levels)
    return colours.float() / 255


def images(channels: int, dtype: torch.dtype) -> Tensor:
    """Noise of 8 bits, noise of the full precision, and black, grey and white."""
    shape = (4, channels, 13, 9)
    whole = torch.randint(256, shape, generator=seeded(0)).to(dtype) / 255
    fine = torch.rand(shape, dtype=dtype, generator=seeded(1))
    flat = torch.tensor([0, 1e-9, 0.5, 1], dtype=dtype)[:, None, None, None].expand(shape)
    return torch.cat([whole, fine, flat])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("std", [0.0, 0.1, 1.0, 30.0])
def test_all_transformations_together(channels: int, dtype: torch.dtype, std: float) -> None:
    source = images(channels, dtype)
    for seed in range(20):
        drawn = torch.randn(len(PARAMETERS), len(source), dtype=dtype, generator=seeded(seed)) * std
        parameters = dict(zip(PARAMETERS, drawn, strict=True))
        order = [COLOUR[i] for i in torch.randperm(len(COLOUR), generator=seeded(seed))]
        expected = differentiable.transform(source, parameters, order)
        assert torch.equal(_continuous.transform(source, parameters, order), expected)


@pytest.mark.parametrize("name", COLOUR)
def test_each_colour_operation_on_all_colours(name: str) -> None:
    source = all_colours(52)
    for value in (-1.0, -0.5, -1 / 3, -1e-8, 0.0, 1e-8, 0.1, 1 / 3, 2 / 3, 1.0, 2.0, -7.0, 1e6):
        parameters = {name: torch.tensor([value])}
        expected = differentiable.transform(source, parameters)
        assert torch.equal(_continuous.transform(source, parameters), expected), value


def test_each_affine_parameter() -> None:
    source = images(3, torch.float32)
    for name in _continuous.AFFINE:
        for value in (-2.0, -0.3, 0.0, 1e-6, 0.5, 1e6):
            parameters = {name: torch.full((len(source),), value)}
            expected = differentiable.transform(source, parameters)
            assert torch.equal(_continuous.transform(source, parameters), expected)


def test_the_images_given_stay_as_they_are() -> None:
    source = images(3, torch.float32)
    before = source.clone()
    for name in PARAMETERS:
        _continuous.transform(source, {name: torch.full((len(source),), 0.3)})
    assert torch.equal(source, before)
