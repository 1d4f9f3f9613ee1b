"""What a person should have seen first: a data set's parts, classes and images, as a table."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from raysearch.data import Dataset, Split

_WIDTH = 100  # columns of a terminal
_NAME = 18  # columns of a class's name


def data_lines(dataset: Dataset, val_fraction: float) -> list[str]:
    """The parts with their images and classes, what the images are, and what was set aside.

    Args:
        dataset: the splits.
        val_fraction: the share of train that a search holds out, where there is no val.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for title, right in (("part", False), ("images", True), ("classes", True)):
        table.add_column(title, justify="right" if right else "left", no_wrap=True)
    for title in ("rarest", "most frequent"):  # which a narrow table divides into lines
        table.add_column(title, overflow="fold")
    table.add_column("origin", no_wrap=True)
    splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    for name, split in splits.items():
        if split is None:
            held_out = f"{val_fraction:.0%} of train, held out"
            table.add_row(name, "", "", "", "", held_out)
        else:
            origin = "read" if name in dataset.given else "split off"
            table.add_row(name, f"{len(split):,}", *_classes(split, dataset.classes), origin)
    page = io.StringIO()
    Console(file=page, width=_WIDTH, color_system=None).print(table)
    rows = [line.rstrip() for line in page.getvalue().splitlines() if line.strip()]
    return [*rows, _images(dataset), *dataset.notes]


def _classes(split: Split, names: tuple[str, ...]) -> list[str | Text]:
    """How many classes have images, and which has the fewest and the most."""
    targets = split.targets
    counts = targets.sum(0).int() if targets.ndim == 2 else targets.bincount(minlength=len(names))
    least, most = int(counts.argmin()), int(counts.argmax())
    ends = [
        _named(names[place], int(counts[place])) if counts[least] < counts[most] else each
        for place, each in ((least, f"each {int(counts[least]):,}"), (most, ""))
    ]
    present = int((counts > 0).sum())
    return [f"{present:,}" if present == len(names) else f"{present:,} of {len(names):,}", *ends]


def _named(name: str, count: int) -> Text:
    text = Text(name)
    text.truncate(_NAME, overflow="ellipsis")
    return text.append(f" ({count:,})")


def _images(dataset: Dataset) -> str:
    height, width = dataset.size
    channels = "1 channel" if dataset.channels == 1 else f"{dataset.channels} channels"
    used = f"used as {height}x{width} pixels, {channels} of 8 bits"
    stored = dataset.stored
    if stored is None:
        return used
    low, high = ("x".join(map(str, size)) for size in (stored.smallest, stored.largest))
    sizes = low if low == high else f"{low} to {high}"
    several = len(stored.kinds) > 1
    kinds = [f"{kind} ({count:,})" if several else kind for kind, count in stored.kinds.items()]
    return f"stored: {sizes} pixels; {'; '.join(kinds)}; {used}"
