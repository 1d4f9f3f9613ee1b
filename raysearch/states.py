"""States, tensors and numbers, in files that appear whole or not at all.

Apart from `raysearch.files`, because the command line needs that at its start, without PyTorch.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from raysearch.files import write_whole


def save_whole(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors, numbers and words, for `load`; see `write_whole`."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_whole(path, buffer.getvalue())


def load(path: Path) -> dict[str, Any]:
    """What `save_whole` wrote, on the CPU; nothing in the file is executed."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
