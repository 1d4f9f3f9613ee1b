"""The predefined augmentation: random flip, random crop, Cutout-16."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from raysearch import ops

Augment = Callable[[Tensor, torch.Generator | None], Tensor]
AUGMENTATIONS: dict[str, Augment] = {
    "flip": lambda images, generator: ops.random_flip(images, generator),
    "crop": lambda images, generator: ops.random_crop(images, 4, generator),
    "cutout": lambda images, generator: ops.cutout(images, 16, generator),
}


def numbered(batch: int, channels: int, height: int, width: int) -> Tensor:
    """Images whose pixels all differ from 0 and, within a row or column, from each other."""
    pixels = torch.arange(1, height * width + 1).view(height, width) % 255 + 1
    return pixels.to(torch.uint8).expand(batch, channels, -1, -1)


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_draws_come_from_the_generator(name: str, dtype: torch.dtype) -> None:
    images = numbered(64, 3, 32, 32).to(dtype)
    before = images.clone()
    augment = AUGMENTATIONS[name]
    first = augment(images, torch.Generator().manual_seed(1))
    state = torch.get_rng_state()
    again = augment(images, torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    other = augment(images, torch.Generator().manual_seed(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.manual_seed(3)
    from_global = augment(images, None)
    torch.manual_seed(3)
    assert torch.equal(from_global, augment(images, None))
    assert first.dtype == dtype
    assert first.shape == images.shape
    assert torch.equal(images, before), "the input was written to"


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_image_has_its_own_draw(name: str) -> None:
    results = AUGMENTATIONS[name](numbered(64, 1, 32, 32), torch.Generator().manual_seed(0))
    assert len({tuple(image.flatten().tolist()) for image in results}) > 1


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_empty_batch(name: str) -> None:
    images = torch.zeros(0, 3, 32, 32, dtype=torch.uint8)
    assert AUGMENTATIONS[name](images, None).shape == images.shape


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_images_without_a_batch_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="images"):
        AUGMENTATIONS[name](torch.zeros(3, 32, 32, dtype=torch.uint8), None)


def test_flip_mirrors_half_of_the_images() -> None:
    images = numbered(2000, 1, 3, 5)
    flipped = ops.random_flip(images, torch.Generator().manual_seed(0))
    mirrored = (flipped == images.flip(3)).all(dim=(1, 2, 3))
    kept = (flipped == images).all(dim=(1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 900 < int(mirrored.sum()) < 1100


def test_vertical_flip_mirrors_the_other_way() -> None:
    images = numbered(200, 1, 3, 5)
    flipped = ops.random_flip(images, torch.Generator().manual_seed(0), vertical=True)
    mirrored = (flipped == images.flip(2)).all(dim=(1, 2, 3))
    kept = (flipped == images).all(dim=(1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 60 < int(mirrored.sum()) < 140


def test_crop_shifts_by_up_to_the_padding_and_every_shift_is_as_likely() -> None:
    images = numbered(4000, 2, 9, 11)
    crops = ops.random_crop(images, 1, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(images[:1], (1, 1, 1, 1))
    counts = []
    for top in range(3):
        for left in range(3):
            window = padded[..., top : top + 9, left : left + 11]
            counts.append(int((crops == window).all(dim=(1, 2, 3)).sum()))
    assert sum(counts) == 4000
    assert min(counts) > 350


def test_crop_without_padding_is_a_copy() -> None:
    images = numbered(2, 3, 4, 4)
    result = ops.random_crop(images, 0)
    assert torch.equal(result, images)
    assert result.data_ptr() != images.data_ptr()


def test_cutout_fills_a_clipped_square_about_any_pixel() -> None:
    images = numbered(3000, 3, 32, 32)
    results = ops.cutout(images, 16, torch.Generator().manual_seed(0))
    hole = (results == 0).all(dim=1)
    assert torch.equal(results, images * ~hole[:, None])
    rows, columns = hole.any(dim=2), hole.any(dim=1)
    assert torch.equal(hole, rows[:, :, None] & columns[:, None, :]), "not a rectangle"
    # The centre is anywhere, so a side is 8 at a corner (the centre in row 0) and 16 inside.
    heights = rows.sum(dim=1)
    assert (int(heights.min()), int(heights.max())) == (8, 16)
    assert hole.float().mean(dim=0).min() > 0.05, "some pixel is never cut out"


def test_cutout_takes_a_colour() -> None:
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    results = ops.cutout(images, 4, fill=(10, 20, 30))
    assert sorted(results.flatten(2).amax(dim=2).unique().tolist()) == [10, 20, 30]
    assert ops.cutout(images.float(), 4, fill=0.5).max() == 0.5
    with pytest.raises(ValueError, match="fill"):
        ops.cutout(images, 4, fill=(1, 2))


def test_negative_sizes_are_refused() -> None:
    images = numbered(1, 1, 4, 4)
    with pytest.raises(ValueError, match="padding"):
        ops.random_crop(images, -1)
    with pytest.raises(ValueError, match="side"):
        ops.cutout(images, -1)
