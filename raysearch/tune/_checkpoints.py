"""A trial's checkpoint: a folder that says by itself how far the trial is and whether it is whole.

    progress.json   epochs done, the history so far, seconds, the sizes of the others
    state.pt        what is needed to go on (absent once the trial has finished)
    policy.json     the policy so far (search trials)
    network.pt      the trained network (searches that have finished and train one that counts)

The newest whole checkpoint of each trial is all that a continued run needs; no other state is
kept, so a driver may be killed at any moment.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from raysearch.states import load

PROGRESS, STATE, POLICY, NETWORK = "progress.json", "state.pt", "policy.json", "network.pt"


@dataclass
class Progress:
    """How far a trial is.

    Attributes:
        epoch: finished epochs.
        epochs: epochs that the trial has in all.
        history: one dictionary per finished epoch; the key "epoch" counts from 1.
        final: what is known only at the end, e.g. `test_error`.
        wall_seconds: time spent in the epochs of the history.
        device_seconds: the same times the share of the device held.
        state_bytes: size of state.pt; 0 when the trial has finished and there is none.
        policy_bytes: size of policy.json; 0 in an evaluation, which has none.
        network_bytes: size of network.pt; 0 where there is none.
    """

    epochs: int
    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    final: dict[str, float] = field(default_factory=dict)
    wall_seconds: float = 0.0
    device_seconds: float = 0.0
    state_bytes: int = 0
    policy_bytes: int = 0
    network_bytes: int = 0

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.epoch >= self.epochs

    @property
    def metrics(self) -> dict[str, float]:
        """The last epoch's values, and the final ones."""
        last = self.history[-1] if self.history else {}
        return {**last, **self.final}


def write_checkpoint(
    folder: Path,
    progress: Progress,
    state: Mapping[str, Any] | None,
    policy: Mapping[str, Any] | None,
    network: Mapping[str, Any] | None = None,
) -> None:
    """Fill an empty folder; `state` is None when the trial has finished."""
    progress.state_bytes = progress.policy_bytes = progress.network_bytes = 0
    if state is not None:
        torch.save(dict(state), folder / STATE)
        progress.state_bytes = (folder / STATE).stat().st_size
    if network is not None:
        torch.save(dict(network), folder / NETWORK)
        progress.network_bytes = (folder / NETWORK).stat().st_size
    if policy is not None:
        progress.policy_bytes = (folder / POLICY).write_bytes(json.dumps(policy).encode())
    (folder / PROGRESS).write_text(json.dumps(asdict(progress)))


def read_progress(folder: Path) -> Progress | None:
    """How far the trial was, or None when the checkpoint is not whole."""
    try:
        progress = Progress(**json.loads((folder / PROGRESS).read_text()))
        whole = _has_its_types(progress) and all(
            not size or _is_whole(folder / name, size)
            for name, size in (
                (STATE, progress.state_bytes),
                (POLICY, progress.policy_bytes),
                (NETWORK, progress.network_bytes),
            )
        )
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return progress if whole else None


def _is_whole(path: Path, size: int) -> bool:
    """Whether all of a file is there: its size, and what PyTorch writes at the end."""
    return path.stat().st_size == size and (path.suffix != ".pt" or zipfile.is_zipfile(path))


def _has_its_types(progress: Progress) -> bool:
    """Whether it holds numbers and lists where there should be some, whoever wrote the file."""
    wanted = asdict(Progress(epochs=0))
    return all(
        isinstance(value, int | float if isinstance(wanted[name], float) else type(wanted[name]))
        for name, value in vars(progress).items()
    ) and all(isinstance(row, dict) for row in progress.history)


def read_state(folder: Path) -> dict[str, Any]:
    """The state in a whole checkpoint of what has not finished, on the CPU; see `states.load`."""
    return load(folder / STATE)


def newest_checkpoint(trials: Path, stage: str, trial_id: str) -> tuple[Path, Progress] | None:
    """A trial's whole checkpoint of the latest epoch, over all attempts at the stage."""
    best: tuple[Path, Progress] | None = None
    for folder in _checkpoints(trials, stage, trial_id):
        progress = read_progress(folder)
        if progress and (best is None or progress.epoch > best[1].epoch):
            best = folder, progress
    return best


def damaged_checkpoints(trials: Path, stage: str, trial_id: str, newest: Path | None) -> list[Path]:
    """What was written after a trial's newest whole checkpoint, if there is one, and is not whole.

    A disk that was full or a machine that lost power may leave such.
    """
    since = _order(newest) if newest is not None else (0, 0)
    found = sorted(_checkpoints(trials, stage, trial_id), key=_order)
    return [one for one in found if _order(one) > since and read_progress(one) is None]


def _checkpoints(trials: Path, stage: str, trial_id: str) -> Iterator[Path]:
    return trials.glob(f"{stage}-*/{trial_id}/checkpoint_*")


def _order(checkpoint: Path) -> tuple[int, int]:
    """Attempt at the stage and number in it."""
    attempt, number = checkpoint.parent.parent.name, checkpoint.name
    return int(attempt.rpartition("-")[2]), int(number.rpartition("_")[2])
