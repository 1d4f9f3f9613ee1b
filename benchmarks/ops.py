"""Images per second of random two-operation policies, a different one for every image.

    python -m benchmarks.ops [device=cpu|cuda] [batch=N] [rounds=N] [seconds=S]

Beside `raysearch.ops` run torchvision's v2 RandAugment on one image at a time (PIL images, and
tensors), Albumentations on one image at a time (skipped where it is not installed), and Kornia's
RandAugment (skipped likewise), which gives a whole batch the same two operations. All of them are
measured in turn within every round, and the median over the rounds is printed, so that what else
the machine does meets all alike. Needs torch, torchvision and rich.

The last line is one JSON object. `ratio_32` is ours over the fastest per-image contestant at 32x32,
`ratio_224` ours over torchvision on tensors, per image, at 224x224 (with all threads or one, the
faster of the two), and `ratio_224_fastest` ours over the fastest per-image contestant there. These
run in one process; `ratio_32_scaled` and `ratio_224_scaled` are ours over the fastest one times the
number of CPU threads, as if it scaled perfectly over as many worker processes.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchvision.transforms import v2

from raysearch import ops

OURS = "raysearch.ops"
TORCHVISION_PIL = "torchvision v2, PIL"
TORCHVISION_TENSOR = "torchvision v2, tensor"
TORCHVISION_SERIAL = "torchvision v2, tensor, 1 thread"
ALBUMENTATIONS = "Albumentations"
KORNIA = "Kornia"
PER_IMAGE = (TORCHVISION_PIL, TORCHVISION_TENSOR, TORCHVISION_SERIAL, ALBUMENTATIONS)
CAPTION = (
    "Two random operations for every image, but with Kornia the same two for a whole batch. "
    "torchvision and Albumentations go image by image, in one process."
)
BATCHES = {32: 512, 224: 64}  # side in pixels: images in a batch


@dataclass(frozen=True)
class Settings:
    """What the command line can change."""

    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    batch: int = 0  # images in a batch; 0: BATCHES
    rounds: int = 7
    seconds: float = 0.4  # each contestant's share of a round

    @classmethod
    def parse(cls, arguments: list[str]) -> Settings:
        """From `key=value` arguments.

        Raises:
            SystemExit: an unknown key, or a value of the wrong kind.
        """
        kinds: dict[str, Callable[[str], str | int | float]] = {
            "device": str,
            "batch": int,
            "rounds": int,
            "seconds": float,
        }
        values: dict[str, str | int | float] = {}
        for argument in arguments:
            key, _, text = argument.partition("=")
            try:
                values[key] = kinds[key](text)
            except (KeyError, ValueError):
                known = ", ".join(f"{name}=" for name in kinds)
                raise SystemExit(
                    f"benchmarks.ops: cannot use {argument!r} (known: {known})"
                ) from None
        return cls(**values)  # type: ignore[arg-type]


def sample_images(count: int, side: int) -> Tensor:
    """uint8 [count,3,side,side]: smooth shapes with some noise, as photographs have."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    noise = torch.randn(smooth.shape, generator=generator) * 0.04
    return ((smooth + noise).clamp(0, 1) * 255).to(torch.uint8)


def ours(images: Tensor) -> Callable[[], int]:
    """Draw two of DADA's 15 operations per image and apply them; the draws are timed, too."""
    batch = images.shape[0]
    names = torch.tensor([ops.operation_id(name) for name in ops.DADA_OPERATIONS])

    def step() -> int:
        operation = names[torch.randint(len(names), (batch, 2))]
        sign = torch.randint(2, (batch, 2)) * 2.0 - 1.0
        value = ops.to_values(operation, torch.rand(batch, 2), sign)
        ops.apply_sequence(images, operation, value, torch.rand(batch, 2, 2))
        return batch

    return step


def torchvision_pil(images: Tensor) -> Callable[[], int]:
    """RandAugment(num_ops=2) on PIL images, one at a time."""
    transform = v2.RandAugment(num_ops=2)
    pictures = [v2.functional.to_pil_image(image) for image in images.cpu()]

    def step() -> int:
        for picture in pictures:
            transform(picture)
        return len(pictures)

    return step


def torchvision_tensor(images: Tensor) -> Callable[[], int]:
    """RandAugment(num_ops=2) on uint8 tensors, one image at a time."""
    transform = v2.RandAugment(num_ops=2)

    def step() -> int:
        for image in images:
            transform(image)
        return len(images)

    return step


def on_one_thread(step: Callable[[], int]) -> Callable[[], int]:
    """The same with PyTorch's parallelism off, which is faster where images are small or the
    machine is busy."""
    threads = torch.get_num_threads()

    def serial() -> int:
        torch.set_num_threads(1)
        try:
            return step()
        finally:
            torch.set_num_threads(threads)

    return serial


def albumentations(images: Tensor) -> Callable[[], int]:
    """Two of AutoAugment's operations as Albumentations has them, one NumPy image at a time.

    Raises:
        ImportError: Albumentations is not installed.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations as album

    shear, shift = (-16.7, 16.7), (-0.45, 0.45)
    choices = [
        album.Affine(shear={"x": shear, "y": (0, 0)}, interpolation=0, p=1),
        album.Affine(shear={"x": (0, 0), "y": shear}, interpolation=0, p=1),
        album.Affine(translate_percent={"x": shift, "y": (0, 0)}, interpolation=0, p=1),
        album.Affine(translate_percent={"x": (0, 0), "y": shift}, interpolation=0, p=1),
        album.Affine(rotate=(-30, 30), interpolation=0, p=1),
        album.AutoContrast(p=1),
        album.InvertImg(p=1),
        album.Equalize(p=1),
        album.Solarize(p=1),
        album.Posterize(num_bits=(4, 8), p=1),
        album.RandomBrightnessContrast(brightness_limit=0, contrast_limit=0.9, p=1),
        album.ColorJitter(brightness=0, contrast=0, saturation=(0.1, 1.9), hue=0, p=1),
        album.RandomBrightnessContrast(brightness_limit=0.9, contrast_limit=0, p=1),
        album.Sharpen(p=1),
        album.CoarseDropout(
            num_holes_range=(1, 1), hole_height_range=(0.01, 0.2), hole_width_range=(0.01, 0.2), p=1
        ),
    ]
    transform = album.SomeOf(choices, n=2, replace=True, p=1)
    arrays = [image.permute(1, 2, 0).contiguous().numpy() for image in images.cpu()]

    def step() -> int:
        for array in arrays:
            transform(image=array)
        return len(arrays)

    return step


def kornia(images: Tensor) -> Callable[[], int]:
    """RandAugment(n=2) on float batches: the same two operations for all images of a batch.

    Raises:
        ImportError: Kornia is not installed.
    """
    from kornia.augmentation.auto import RandAugment

    transform = RandAugment(n=2, m=10)
    floats = images.to(torch.float32) / 255.0

    def step() -> int:
        transform(floats)
        return len(floats)

    return step


def throughput(step: Callable[[], int], seconds: float, device: str) -> float:
    """Images per second of whole steps for about so many seconds."""
    done, begin = 0, time.perf_counter()
    while True:
        done += step()
        if device == "cuda":
            torch.cuda.synchronize()
        elapsed = time.perf_counter() - begin
        if elapsed >= seconds:
            return done / elapsed


def measure(side: int, settings: Settings, console: Console) -> dict[str, float]:
    """Median images per second of every contestant at one size."""
    images = sample_images(settings.batch or BATCHES[side], side)
    resident = images.to(settings.device)
    few = slice(0, 64)  # enough for those that go image by image
    makers: dict[str, Callable[[], Callable[[], int]]] = {
        OURS: lambda: ours(resident),
        TORCHVISION_PIL: lambda: torchvision_pil(images[few]),
        TORCHVISION_TENSOR: lambda: torchvision_tensor(resident[few]),
        TORCHVISION_SERIAL: lambda: on_one_thread(torchvision_tensor(resident[few])),
        ALBUMENTATIONS: lambda: albumentations(images[few]),
        KORNIA: lambda: kornia(resident),
    }
    steps: dict[str, Callable[[], int]] = {}
    for name, make in makers.items():
        try:
            steps[name] = make()
        except ImportError as error:
            console.print(f"{side}x{side}: {name} skipped: {error}", highlight=False)
            continue
        for _ in range(2):
            steps[name]()
    figures: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(settings.rounds):
        for name, step in steps.items():
            figures[name].append(throughput(step, settings.seconds, settings.device))
    return {name: statistics.median(values) for name, values in figures.items()}


def table(results: dict[int, dict[str, float]], settings: Settings) -> Table:
    """The figures for people."""
    threads = torch.get_num_threads()
    title = f"images per second on {settings.device}, {threads} CPU threads"
    view = Table("", title=title, caption=CAPTION)
    for side in results:
        view.add_column(f"{side}x{side}", justify="right")
        view.add_column("ours", justify="right")
    for name in (OURS, *PER_IMAGE, KORNIA):
        row = [name]
        for figures in results.values():
            if name in figures:
                ratio = f"{figures[OURS] / figures[name]:.1f}x" if name != OURS else ""
                row += [f"{figures[name]:,.0f}", ratio]
            else:
                row += ["-", ""]
        view.add_row(*row)
    return view


def summary(results: dict[int, dict[str, float]], settings: Settings) -> dict[str, object]:
    """The figures for programs."""
    threads = torch.get_num_threads()
    ratio_32, ratio_224_fastest = (
        results[side][OURS] / max(results[side].get(name, 0.0) for name in PER_IMAGE)
        for side in (32, 224)
    )
    tensors = max(results[224][TORCHVISION_TENSOR], results[224][TORCHVISION_SERIAL])
    ratio_224 = results[224][OURS] / tensors
    return {
        "benchmark": "ops",
        "ratio_32": round(ratio_32, 2),
        "ratio_224": round(ratio_224, 2),
        "ratio_224_fastest": round(ratio_224_fastest, 2),
        "ratio_32_scaled": round(ratio_32 / threads, 2),
        "ratio_224_scaled": round(ratio_224_fastest / threads, 2),
        "device": torch.cuda.get_device_name() if settings.device == "cuda" else "cpu",
        "threads": threads,
        "torch": torch.__version__,
        "batch": {str(side): settings.batch or BATCHES[side] for side in results},
        "images_per_second": {
            str(side): {name: round(value, 1) for name, value in figures.items()}
            for side, figures in results.items()
        },
    }


def main() -> None:
    """Measure, print the table and the JSON line."""
    settings = Settings.parse(sys.argv[1:])
    console = Console()
    torch.manual_seed(0)
    with torch.no_grad():
        results = {side: measure(side, settings, console) for side in BATCHES}
    console.print(table(results, settings))
    print(json.dumps(summary(results, settings)))


if __name__ == "__main__":
    main()
