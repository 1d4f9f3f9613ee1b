"""Trials of many epochs: a search, what a search begins with, and a policy's evaluation."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from ray import tune

from raysearch.errors import RaysearchError
from raysearch.methods import SearchMethod
from raysearch.training import keep_freed_memory
from raysearch.tune._checkpoints import Progress, read_progress, read_state, write_checkpoint


class Work(Protocol):
    """What a trial does, an epoch at a time: a `SearchMethod` or a `Training`."""

    @property
    def epochs(self) -> int: ...
    @property
    def epoch(self) -> int: ...

    def step(self) -> dict[str, float]:
        """One epoch."""

    def test(self) -> dict[str, float]:
        """`test_error` and `test_loss` of a network that is a result, else nothing."""

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on after the last finished epoch."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""


@dataclass(frozen=True)
class Share:
    """What one trial holds of its node.

    Attributes:
        cpus: CPU cores.
        gpus: GPUs, in [0, 1]; fractions share one.
        device: "cpu" or "cuda": what it computes on.
    """

    cpus: float
    gpus: float
    device: str

    @property
    def of_device(self) -> float:
        """The share of the device that the trial computes on, for the cost account."""
        return self.gpus if self.device == "cuda" else self.cpus

    @property
    def threads(self) -> int:
        """Threads that PyTorch may use on the CPU."""
        return max(1, int(self.cpus))


@dataclass(frozen=True)
class Job:
    """What like trials have in common; sent once to each node.

    Attributes:
        build: makes a trial's work from the trial's policy name (None in a search) and seed.
        share: what each trial holds.
    """

    build: Callable[[str | None, int], Work]
    share: Share


class SharesJob(Protocol):
    """What the trials of a stage have in common; says what each holds."""

    @property
    def share(self) -> Share: ...


def ready_worker(share: Share) -> None:
    """Let this process use what its trials hold, and no more."""
    torch.set_num_threads(share.threads)
    keep_freed_memory()
    if share.device == "cuda" and share.gpus < 1:
        torch.cuda.set_per_process_memory_fraction(share.gpus)


class WorkTrainable(tune.Trainable):
    """An epoch per `step`, a whole checkpoint per `save`.

    Its configuration is `{"trial": {id, name, policy, seed, checkpoint}}`, where `checkpoint` is
    the folder that a continued run goes on from, or None.
    """

    def setup(self, config: dict[str, Any], jobs: Mapping[str, Job]) -> None:  # type: ignore[override]
        self._jobs = jobs
        ready_worker(jobs[config["trial"]["id"]].share)  # all that a process is kept for hold alike
        self._begin(config["trial"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Let the next trial use this process, which has PyTorch and the data already."""
        self._begin(new_config["trial"])
        return True

    def _begin(self, trial: Mapping[str, Any]) -> None:
        """Start a trial; an error waits for `step`, where Tune tells the driver about it whole."""
        self._failure: Exception | None = None
        self._work: Work | None = None
        self._job = self._jobs[trial["id"]]
        try:
            self._work = self._job.build(trial["policy"], trial["seed"])
            self._progress = Progress(epochs=self._work.epochs)
            if trial["checkpoint"]:
                self.load_checkpoint(trial["checkpoint"])
        except Exception as error:
            self._failure = error

    def step(self) -> dict[str, Any]:
        if self._failure is not None:
            raise self._failure
        assert self._work is not None
        progress, start = self._progress, time.perf_counter()
        if not progress.finished:
            with said_when_out_of_memory(self._job.share):
                metrics = self._work.step()
                progress.epoch = self._work.epoch
                progress.final = self._final() if progress.finished else {}
            seconds = time.perf_counter() - start
            progress.history.append({"epoch": progress.epoch, **metrics})
            progress.wall_seconds += seconds
            progress.device_seconds += seconds * self._job.share.of_device
        return {
            "epoch": progress.epoch,
            "metrics": progress.metrics,
            "wall_seconds": progress.wall_seconds,
            "device_seconds": progress.device_seconds,
            "done": progress.finished,
        }

    def save(self, checkpoint_dir: str | None = None) -> Any:
        """Tune's own leaves its temporary folder behind where the disk is full."""
        with tempfile.TemporaryDirectory() as temporary:
            return super().save(checkpoint_dir or temporary)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        assert self._work is not None
        finished = self._progress.finished
        state = None if finished else self._work.state_dict()
        network = self._network() if finished else None
        write_checkpoint(Path(checkpoint_dir), self._progress, state, self._policy(), network)

    def load_checkpoint(self, checkpoint: str) -> None:  # type: ignore[override]
        if self._work is None:
            return
        progress = read_progress(Path(checkpoint))
        if progress is None:
            raise RuntimeError(f"{checkpoint} is not a whole checkpoint")
        if not progress.finished:
            self._work.load_state_dict(read_state(Path(checkpoint)))
        self._progress = progress

    def cleanup(self) -> None:
        self._work = None

    def _final(self) -> dict[str, float]:
        """The test set is looked at once, at the end, where the trial's network is a result."""
        assert self._work is not None
        return self._work.test()

    def _policy(self) -> dict[str, Any] | None:
        """The policy to keep with a checkpoint; an evaluation has none."""
        return self._work.policy().to_json() if isinstance(self._work, SearchMethod) else None

    def _network(self) -> dict[str, Any] | None:
        """The network to keep when the trial has finished, where it is a result."""
        return self._work.trained() if isinstance(self._work, SearchMethod) else None


@contextmanager
def said_when_out_of_memory(share: Share) -> Iterator[None]:
    """A GPU without memory is something that the user can mend."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RaysearchError(_out_of_memory(share)) from error


def _out_of_memory(share: Share) -> str:
    held = f"{share.gpus:g} of a GPU" if share.device == "cuda" else "the CPU's memory"
    return f"out of memory with {held}: use a smaller batch_size" + (
        " or a larger gpus_per_trial" if share.device == "cuda" else ""
    )
