"""A worker: a process that carries out one proposal after another, and keeps the data for them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from raysearch.engine._entries import Share
from raysearch.engine._files import Progress, ProposalFolder
from raysearch.errors import DivergedError, RaysearchError
from raysearch.protocol import Build, Failed, Proposal, Values, Work
from raysearch.training import keep_freed_memory

REPORT_SECONDS = 1.0  # between two reports, each with a checkpoint; an epoch may take longer
ON_THE_WAY_SECONDS = 60.0  # between two checkpoints within an epoch
REPORT_VARIABLE = "RAYSEARCH_REPORT_SECONDS"  # of the environment: another time between two reports
READY_SECONDS = 0.1  # between signs of a process that waits for the others


class WorkerTrainable(tune.Trainable):
    """A proposal's work; each step is what is done of it until a report is due.

    Its configuration is `{"trial": {id, share, entry, folder, proposal, build}}`: `folder` is the
    entry's, `proposal` and `build`, which makes the work, are references to Ray's object store,
    because Tune keeps every trial's configuration. Of a trial that only starts a process it is
    `{"trial": {id, share}}`.
    """

    def setup(self, config: dict[str, Any], shared: Any) -> None:  # type: ignore[override]
        self._shared = shared
        self._seconds = float(os.environ.get(REPORT_VARIABLE, REPORT_SECONDS))
        self._builds: dict[str, Build] = {}  # by entry; a process keeps one
        self._files: dict[Path, Values] = {}  # that the entry's last proposal went on from
        ready_worker(config["trial"]["share"])  # a process is kept for trials that hold alike
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Let the next trial use this process, which has PyTorch and the data already."""
        self._trial: dict[str, Any] = new_config["trial"]
        self._share: Share = self._trial["share"]
        self._work: Work | None = None
        return True

    def step(self) -> dict[str, Any]:
        """Work until a report is due, or the work is done."""
        if "proposal" not in self._trial:
            time.sleep(READY_SECONDS)
            return {"ready": True, "done": False}
        if self._work is None:
            proposal: Proposal = ray.get(self._trial["proposal"])
            self._folder = ProposalFolder(Path(self._trial["folder"]) / proposal.id)
            if self._folder.answered:  # the driver died before it knew
                return {"rows": [], "done": True}
        rows: list[dict[str, float]] = []
        try:
            work = self._work or self._begin(proposal)
            done = self._go_on(work, rows)
        except DivergedError as error:
            self._folder.write_answer(Failed(str(error)), self._progress)
            done = True
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            raise _out_of_memory(self._share) from error
        return {"rows": rows, "done": done}

    def _begin(self, proposal: Proposal) -> Work:
        """Make the work, as far as it has been done."""
        self._progress = Progress()
        name = self._trial["entry"]
        if name not in self._builds:
            self._builds.clear()  # before there are two
            self._builds[name] = ray.get(self._trial["build"])(self._shared)
        needed = [self._folder.path.parent / id_ for id_ in proposal.needs]
        self._files = {
            path: self._files.get(path) or ProposalFolder(path).read_file() for path in needed
        }
        work = self._builds[name](proposal, {path.name: self._files[path] for path in needed})
        if (kept := self._folder.read_checkpoint()) is not None:
            state, self._progress = kept
            work.load_state_dict(state)
        self._work = work
        return work

    def _go_on(self, work: Work, rows: list[dict[str, float]]) -> bool:
        """Add epochs to `rows` until a report is due; whether they were the last."""
        progress = self._progress
        until = time.perf_counter() + self._seconds
        while work.epoch < work.epochs and (not rows or time.perf_counter() < until):
            with self._on_the_way(work), self._counted():
                metrics = work.step()
            progress.epoch = work.epoch
            rows.append({"epoch": progress.epoch, **metrics})
            progress.history.append(rows[-1])
        if work.epoch < work.epochs:
            self._folder.write_checkpoint(work.state_dict(), progress)
            return False
        with self._counted():
            answer = work.answer()
        self._folder.write_answer(answer, progress)
        self._work = None
        return True

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Add the time that is spent inside to the work's."""
        self._since = time.perf_counter()
        try:
            yield
        finally:
            self._count()

    def _count(self) -> None:
        """Add the time since the last count."""
        now = time.perf_counter()
        self._progress.wall_seconds += now - self._since
        self._progress.device_seconds += (now - self._since) * self._share.of_device
        self._since = now

    @contextmanager
    def _on_the_way(self, work: Work) -> Iterator[None]:
        """Let an epoch that takes long be checkpointed between its batches."""
        loop = getattr(work, "loop", None)
        if loop is None:
            yield
            return
        last = time.perf_counter()

        def keep() -> None:
            nonlocal last
            if time.perf_counter() - last >= ON_THE_WAY_SECONDS:
                self._count()
                self._folder.write_checkpoint(work.state_dict(), self._progress)
                self._since = last = time.perf_counter()

        loop.between_batches = keep
        try:
            yield
        finally:
            loop.between_batches = None


def ready_worker(share: Share) -> None:
    """Let this process use what its trials hold, and no more."""
    torch.set_num_threads(share.threads)
    if share.device == "cpu":
        keep_freed_memory()
    elif share.gpus < 1:
        torch.cuda.set_per_process_memory_fraction(share.gpus)


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether there was no room for an array or a tensor; on the CPU only the text tells."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or "DefaultCPUAllocator" in str(error)


def _out_of_memory(share: Share) -> RaysearchError:
    if share.device == "cpu":
        return RaysearchError("out of memory with the CPU's memory: use a smaller batch_size")
    return RaysearchError(
        f"out of memory with {share.gpus:g} of a GPU: "
        "use a smaller batch_size or a larger gpus_per_trial"
    )
