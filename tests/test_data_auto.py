"""The size that is chosen for the images and the machine."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from PIL import Image

from raysearch.data import load_dataset
from raysearch.data._auto import choose_size
from raysearch.data._format import Shapes


def shapes(*sizes: tuple[int, int], shorter: int | None = None) -> Shapes:
    found = {size: f"{number}.png" for number, size in enumerate(sizes)}
    return Shapes(False, found, shorter if shorter is not None else min(sizes[0]))


@pytest.mark.parametrize(
    ("found", "images", "device", "cores", "size"),
    [
        # a GPU: as null, up to 224
        (shapes((32, 32)), 50_000, "cuda", 2, (32, 32)),
        (shapes((100, 100)), 2_000, "cuda", 2, (100, 100)),
        (shapes((200, 160)), 2_000, "cuda", 2, (200, 160)),
        (shapes((256, 256)), 2_000, "cuda", 2, (224, 224)),
        (shapes((256, 100)), 2_000, "cuda", 2, (100, 100)),
        (shapes((500, 400), (300, 300), shorter=350), 10**6, "cuda", 2, (224, 224)),
        (shapes((90, 80), (70, 75), shorter=72), 100, "cuda", 2, (72, 72)),
        # a CPU: by the pixels of a pass
        (shapes((100, 100)), 2_062, "cpu", 2, (32, 32)),
        (shapes((100, 100)), 50_000, "cpu", 2, (32, 32)),
        (shapes((100, 100)), 800, "cpu", 2, (48, 48)),
        (shapes((100, 100)), 400, "cpu", 2, (64, 64)),
        (shapes((100, 100)), 10, "cpu", 2, (64, 64)),
        (shapes((100, 100)), 400, "cpu", 1, (48, 48)),
        (shapes((100, 100)), 2_062, "cpu", 16, (64, 64)),
        (shapes((500, 400), (300, 300), shorter=350), 2_000, "cpu", 2, (32, 32)),
        (shapes((28, 28)), 60_000, "cpu", 2, (28, 28)),
        (shapes((20, 30)), 60_000, "cpu", 2, (20, 30)),
        (shapes((100, 20)), 60_000, "cpu", 2, (20, 20)),
    ],
)
def test_table(found: Shapes, images: int, device: str, cores: int, size: tuple[int, int]) -> None:
    chosen, reason = choose_size(found, images, device, cores)
    assert chosen == size
    assert bool(reason) == (chosen != found.common)


def test_it_says_what_was_chosen_and_how_to_choose_otherwise(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(5):
            Image.effect_noise((100, 100), 50).save(tmp_path / name / f"{number}.png")
    settings = {"name": "folder", "root": str(tmp_path), "size": "auto"}
    with caplog.at_level(logging.WARNING):
        data = load_dataset(settings)
    assert data.size == (64, 64)
    (note,) = data.notes
    assert "there are 10 images, no GPU and" in note
    assert "64x64; data.size= chooses another size" in note
    assert note in caplog.text
    on_gpu = load_dataset(settings, device="cuda")
    assert (on_gpu.size, on_gpu.notes) == ((100, 100), ())
    assert load_dataset({**settings, "size": None}).size == (100, 100)
