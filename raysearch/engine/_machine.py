"""Where Ray keeps its files on this machine, and whether there is memory for what it holds."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from raysearch.errors import RaysearchError
from raysearch.machine import SOCKET_BYTES, can_hold_files, memory_limit, temporary_folders

# What Ray adds to its folder for the longest of its sockets.
SOCKET = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
LONGEST = SOCKET_BYTES - len(SOCKET)  # bytes
ROOM = 100 * 2**20  # bytes that Ray's logs may take
MOST_OF_MEMORY = 0.8  # that the object store may take


def ray_folder() -> str:
    """A folder for Ray's own files that this process can use: Ray's default, where that will do.

    The default may belong to another user, or be on a full disk; its path may be too long for
    sockets, or be missing.

    Raises:
        RaysearchError: there is none.
    """
    folders = temporary_folders()
    user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
    for base in folders:
        for folder in dict.fromkeys((base / "ray", base / f"ray{user}")):
            if _usable(folder):
                return str(folder)
    raise RaysearchError(
        f"Ray has no folder for its files ({', '.join(map(str, folders))} cannot be written, are "
        f"full, or have paths of more than {LONGEST - len('/ray')} bytes): set RAY_TMPDIR to a "
        "folder of yours with a short path"
    )


def _usable(folder: Path) -> bool:
    """Whether Ray can make its folders there; what is made to find out is removed."""
    made = not folder.exists()
    try:
        if not folder.parent.is_dir():
            return False
        folder.mkdir(exist_ok=True)
        return can_hold_files(folder, LONGEST) and shutil.disk_usage(folder).free >= ROOM
    except OSError:
        return False
    finally:
        if made and folder.is_dir():
            with contextlib.suppress(OSError):  # another process has begun to use it
                folder.rmdir()


def check_memory(store_bytes: int) -> None:
    """The container has memory for the object store.

    Raises:
        RaysearchError: it has not.
    """
    limit = memory_limit()
    if limit is not None and store_bytes > MOST_OF_MEMORY * limit:
        raise RaysearchError(
            f"the images and what is kept with them take {_mebibytes(store_bytes)}, and the "
            f"container may use {_mebibytes(limit)} of memory: give it more, or use data.limit= or "
            "a smaller data.size="
        )


def _mebibytes(count: float) -> str:
    return f"{count / 2**20:,.0f} MiB"
