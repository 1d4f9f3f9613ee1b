"""What the benchmark programs share: arguments, workers, comparisons, the closing JSON line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from raysearch.errors import RaysearchError, unknown
from raysearch.results import paired_difference
from raysearch.training import keep_freed_memory

console = Console()
_KINDS = {int: "a whole number", float: "a number", str: "a word"}


def arguments(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`key=value` arguments of the command line over their defaults, typed like these.

    `method.KEY=VALUE` arguments pass through as text, for `benchmarks._search.groups_of`. An
    unknown key or a value of the wrong type ends the program with one line.
    """
    values = dict(defaults)
    for argument in sys.argv[1:]:
        key, found, text = argument.partition("=")
        if not found or (key not in defaults and not key.startswith("method.")):
            raise SystemExit(f"error: {unknown('argument', key, [f'{k}=' for k in defaults])}")
        default = defaults.get(key, "")
        parsed = text if isinstance(default, str) else yaml.safe_load(text)
        accepted = (float, int) if isinstance(default, float) else type(default)
        if not isinstance(parsed, accepted):
            raise SystemExit(f"error: {key}={text}: expected {_KINDS[type(default)]}")
        values[key] = parsed
    return values


def workers(count: int) -> Executor:
    """So many processes, each of which computes on one core."""
    return ProcessPoolExecutor(count, initializer=_ready_worker)


def _ready_worker() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()


def compared(values: Sequence[float], baseline: Sequence[float]) -> tuple[list[float], str]:
    """Mean of `values - baseline`, paired by seed, and its 95 % interval: as numbers, as text.

    Args:
        values, baseline: one number a seed, in the same order; two at least.
    """
    found = paired_difference(dict(enumerate(values)), dict(enumerate(baseline))) or {}
    numbers = [round(found[key], 3) for key in ("mean", "low", "high")]
    return numbers, "{:+.2f} [{:+.2f}, {:+.2f}]".format(*numbers)


def plot_path(text: str) -> Path | None:
    """Where to draw, None for nowhere; looked at before anything is measured.

    Raises:
        RaysearchError: there is no such folder, or the ending is none that can be drawn.
    """
    if not text:
        return None
    path = Path(text)
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise RaysearchError(f"plot={text}: expected a name that ends in .png, .svg or .pdf")
    if not path.parent.is_dir():
        raise RaysearchError(f"plot={text}: there is no folder {path.parent}")
    return path


def finish(result: Mapping[str, Any]) -> None:
    """Print the result as the program's last line, for machines."""
    print(json.dumps(result), flush=True)


def run(main: Callable[[], None]) -> None:
    """Call `main`; what the user can mend ends the program with one line."""
    try:
        main()
    except RaysearchError as error:
        raise SystemExit(f"error: {error}") from None
