"""States, tensors and numbers, in files that appear whole or not at all.

Apart from `raysearch.files`, because the command line needs that at its start, without PyTorch.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from raysearch.errors import RaysearchError, one_line
from raysearch.files import check_regular, write_whole


def save_whole(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors, numbers and words, for `load`; see `write_whole`."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_whole(path, buffer.getvalue())


def load(path: Path) -> dict[str, Any]:
    """What `save_whole` wrote, on the CPU; nothing in the file is executed.

    Raises:
        OSError: the file cannot be read.
        RaysearchError: it is no such file, or it holds anything but tensors, numbers and words.
    """
    check_regular(path)
    try:
        _refuse_inflated(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # whatever a file may hold
        raise RaysearchError(f"{path}: not a checkpoint of raysearch ({_reason(error)})") from None
    if not isinstance(state, dict):
        raise RaysearchError(f"{path}: not a checkpoint of raysearch (a {type(state).__name__})")
    return state


def _refuse_inflated(path: Path) -> None:
    """PyTorch stores its tensors as they are, but would inflate compressed ones without limit."""
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("its content is compressed")


def _reason(error: Exception) -> str:
    """An exception in a few words, without PyTorch's advice to load the file all the same."""
    code = re.search(r"(?:unsupported )?GLOBAL (\S+)", str(error))
    if code:
        return f"it wants to call {code[1]}, and nothing in a checkpoint is executed"
    return one_line(error)
