"""What is on disk of a proposal: folders that appear whole, and say themselves how far they are.

    <experiment>/trials/<entry>/<proposal>/checkpoint_000003/   while its work goes on
        progress.json   epochs done, the history so far, seconds, the sizes of the other files
        state.pt        what is needed to go on
    <experiment>/trials/<entry>/<proposal>/answer/              once it is done
        progress.json
        answer.pt       what the search is told, or why the work failed
        file.pt         what later proposals go on from, where there is such
        network.pt      the trained network, where that is a result

A worker writes them, and finds them again whoever worked before it, so that a worker or the driver
may be killed at any moment. The search's own state is `state.pt` beside its proposals.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic.dataclasses import dataclass

from raysearch.errors import RaysearchError
from raysearch.files import write_whole
from raysearch.policy import from_json
from raysearch.protocol import Answer, Failed, Values
from raysearch.states import load, save_whole

PROGRESS, STATE, ANSWER, FILE, NETWORK = (
    "progress.json",
    "state.pt",
    "answer.pt",
    "file.pt",
    "network.pt",
)
BEFORE = "before.pt"  # the search's state before the newest one
DONE = "answer"  # folder
KEPT = 2  # checkpoints of work that goes on: the newest, and one in case that is damaged


def has_work(trials: Path) -> bool:
    """Whether anything of any proposal is on disk.

    Args:
        trials: the experiment's folder of trials.
    """
    return next(trials.glob(f"*/*/*/{PROGRESS}"), None) is not None


@dataclass(config={"extra": "forbid"})
class Progress:
    """How far work is; checked for its types, whoever wrote the file.

    Attributes:
        epoch: finished epochs.
        history: a dictionary for each finished epoch; the key "epoch" counts from 1.
        wall_seconds: spent in them.
        device_seconds: the same times the share of the device held.
        sizes: of the other files of the folder, in bytes.
    """

    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    wall_seconds: float = 0.0
    device_seconds: float = 0.0
    sizes: dict[str, int] = field(default_factory=dict)


class ProposalFolder:
    """The files of one proposal.

    Args:
        path: its folder, which need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def answered(self) -> bool:
        """Whether there is a whole answer."""
        return _read_progress(self.path / DONE) is not None

    @property
    def network(self) -> Path | None:
        """The trained network, where that is a result."""
        path = self.path / DONE / NETWORK
        return path if path.exists() else None

    def read_answer(self) -> tuple[Answer | Failed, Progress]:
        """What the work answered, without its file and network; and its history.

        Raises:
            RaysearchError: it cannot be read.
        """
        progress = _read_progress(self.path / DONE)
        if progress is None:
            raise RaysearchError(f"{self.path / DONE} is damaged; remove it to do that work again")
        kept = load(self.path / DONE / ANSWER)
        if kept["failed"] is not None:
            return Failed(kept["failed"]), progress
        policy = from_json(json.loads(kept["policy"])) if kept["policy"] else None
        return Answer(kept["values"], policy), progress

    def read_file(self) -> dict[str, Any]:
        """What later proposals go on from.

        Raises:
            RaysearchError: it is not there.
        """
        path = self.path / DONE / FILE
        try:
            return load(path)
        except OSError:
            raise RaysearchError(
                f"{path} is gone, which the search goes on from; begin it anew, under another name"
            ) from None

    def write_answer(self, answer: Answer | Failed, progress: Progress) -> None:
        """Keep an answer, and forget the checkpoints on the way to it."""
        failed = answer.reason if isinstance(answer, Failed) else None
        files: dict[str, Values] = {}
        values: Values = {}
        policy = None
        if isinstance(answer, Answer):
            values = {key: _storable(value) for key, value in answer.values.items()}
            policy = json.dumps(answer.policy.to_json()) if answer.policy is not None else None
            named = {FILE: answer.file, NETWORK: answer.network}
            files = {name: each for name, each in named.items() if each is not None}
        files[ANSWER] = {"failed": failed, "values": values, "policy": policy}
        self._write(DONE, files, progress)
        for checkpoint in self._checkpoints():
            shutil.rmtree(checkpoint, ignore_errors=True)

    def write_checkpoint(self, state: Values, progress: Progress) -> None:
        """Keep how far the work is; the checkpoint before it stays, all earlier ones go."""
        earlier = self._checkpoints()
        number = 1 + (_number(earlier[-1]) if earlier else -1)
        self._write(f"checkpoint_{number:06d}", {STATE: state}, progress)
        for checkpoint in earlier[: 1 - KEPT]:
            shutil.rmtree(checkpoint, ignore_errors=True)

    def read_checkpoint(self) -> tuple[dict[str, Any], Progress] | None:
        """The newest state that is whole, and how far it is; None at the work's start."""
        newest = self.newest()
        if newest is None:
            return None
        progress = _read_progress(newest)
        assert progress is not None
        return load(newest / STATE), progress

    def newest(self) -> Path | None:
        """The newest whole checkpoint."""
        whole = (one for one in reversed(self._checkpoints()) if _read_progress(one) is not None)
        return next(whole, None)

    def damaged(self) -> list[Path]:
        """Checkpoints newer than the newest whole one; a lost disk or power may leave such."""
        newest = self.newest()
        since = _number(newest) if newest is not None else -1
        return [one for one in self._checkpoints() if _number(one) > since]

    def _checkpoints(self) -> list[Path]:
        return sorted(self.path.glob("checkpoint_*"), key=_number)

    def _write(self, name: str, files: Mapping[str, Values], progress: Progress) -> None:
        """Fill a folder, which appears whole."""
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".", dir=self.path))
        try:
            for file, content in files.items():
                save_whole(temporary / file, content)
            progress.sizes = {file: (temporary / file).stat().st_size for file in files}
            (temporary / PROGRESS).write_text(json.dumps(asdict(progress)))
            with contextlib.suppress(OSError):  # a file system without modes
                os.chmod(temporary, 0o755)  # mkdtemp makes it private
            shutil.rmtree(self.path / name, ignore_errors=True)
            os.replace(temporary, self.path / name)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _number(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("_")[2])


def _storable(value: Any) -> Any:
    """Arrays as tensors, numbers as Python's own: what may be read back without executing code."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    return value.item() if isinstance(value, np.generic) else value


def _read_progress(folder: Path) -> Progress | None:
    """How far the work was, or None where the folder is not whole."""
    try:
        progress = Progress(**json.loads((folder / PROGRESS).read_text()))
        whole = all(_is_whole(folder / name, size) for name, size in progress.sizes.items())
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return progress if whole else None


def _is_whole(path: Path, size: int) -> bool:
    """Whether all of a file is there: its size, and what PyTorch writes at the end."""
    return path.stat().st_size == size and zipfile.is_zipfile(path)


def keep_state(folder: Path, state: Values) -> None:
    """Write a search's state; the one before it is kept, should the disk lose this one."""
    path = folder / STATE
    if path.exists():
        write_whole(folder / BEFORE, path.read_bytes())
    save_whole(path, state)


def read_state(folder: Path) -> tuple[dict[str, Any] | None, Path | None]:
    """The newest of a search's states that is whole, and the newest one where that is damaged."""
    damaged: Path | None = None
    for path in (folder / STATE, folder / BEFORE):
        if not path.exists():
            continue
        try:
            state = load(path)
        except Exception:  # of any kind, by what is left of it
            damaged = damaged or path
            continue
        if damaged is not None:
            path.replace(damaged)
        return state, damaged
    return None, damaged
