"""The state of a search as the driver keeps it, and the one before it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raysearch.errors import RaysearchError
from raysearch.files import write_whole
from raysearch.states import load, save_whole
from raysearch.tune._checkpoints import STATE
from raysearch.tune._observe import Watcher, say_damaged

BEFORE = "before.pt"


def keep(folder: Path, state: Mapping[str, Any]) -> None:
    """Write a search's state; the one before it is kept, should the disk lose this one."""
    path = folder / STATE
    if path.exists():
        write_whole(folder / BEFORE, path.read_bytes())
    save_whole(path, state)


def kept(
    folder: Path, name: str, before: str, watchers: Sequence[Watcher[Any]]
) -> tuple[dict[str, Any], bool] | None:
    """A search's state, or the one before it where that is damaged; None where there is none.

    In that case `go_back` has to follow, before the next `keep`.

    Args:
        folder: the search's.
        name: the search's, for people.
        before: what the state before the newest one is, for people.
        watchers: told when that is used.

    Returns:
        The state, and whether it is the newest.

    Raises:
        RaysearchError: neither can be read.
    """
    path = folder / STATE
    if not path.exists():
        return None
    if (state := _readable(path)) is not None:
        return state, True
    if (state := _readable(folder / BEFORE)) is None:
        raise RaysearchError(
            f"{name}: {path} is damaged, and there is none before it; "
            f"remove {folder} to begin this search again"
        )
    say_damaged(name, path, before, watchers)
    return state, False


def go_back(folder: Path) -> None:
    """Let the state before the newest one, which is damaged, be the newest."""
    os.replace(folder / BEFORE, folder / STATE)


def _readable(path: Path) -> dict[str, Any] | None:
    """A state, or None where there is no file or it is not whole."""
    try:
        path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return load(path)
    except Exception:  # of any kind, by what is left of it
        return None
