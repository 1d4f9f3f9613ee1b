"""A worker: a process that carries out one proposal after another, and keeps the data for them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
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


def process_trial(index: int) -> dict[str, Any]:
    """The configuration of a trial that only starts a process."""
    return {"id": f"process-{index + 1}", "name": f"process {index + 1}", "process": True}


class WorkerTrainable(tune.Trainable):
    """A proposal's work; each step is what is done of it until a report is due.

    Its configuration is `{"trial": {id, name, entry, folder, proposal, needs, build, share}}`, or a
    `process_trial` and its `share`: `folder` is the entry's, `needs` the proposals whose files the
    work goes on from, `build` refers to what makes it. Arrays of the proposal are references to
    Ray's object store, because Tune keeps every trial's configuration.
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
        self._progress = Progress(0)
        return True

    def step(self) -> dict[str, Any]:
        """Work until a report is due, or the work is done."""
        if self._trial.get("process"):
            time.sleep(READY_SECONDS)
            return {"ready": True, "done": False}
        folder = ProposalFolder(Path(self._trial["folder"]) / self._trial["proposal"]["id"])
        if self._work is None and folder.answered:  # the driver died before it knew
            return {"rows": [], "done": True}
        with said_when_out_of_memory(self._share):
            try:
                if self._work is None:
                    self._begin(folder)
                rows, done = self._go_on(folder)
            except DivergedError as error:
                folder.write_answer(Failed(str(error)), self._progress)
                rows, done = [], True
        return {"rows": rows, "done": done}

    def _begin(self, folder: ProposalFolder) -> None:
        """Make the work, as far as it has been done."""
        given = self._trial
        name = given["entry"]
        if name not in self._builds:
            self._builds.clear()  # before there are two
            self._builds[name] = ray.get(given["build"])(self._shared)
        needed = {id_: Path(given["folder"]) / id_ for id_ in given["needs"]}
        self._files = {
            path: self._files.get(path) or ProposalFolder(path).read_file()
            for path in needed.values()
        }
        files = {id_: self._files[path] for id_, path in needed.items()}
        work = self._builds[name](fetched(given["proposal"]), files)
        self._progress = Progress(epochs=work.epochs)
        if (kept := folder.read_checkpoint()) is not None:
            state, self._progress = kept
            work.load_state_dict(state)
        self._work = work

    def _go_on(self, folder: ProposalFolder) -> tuple[list[dict[str, float]], bool]:
        """Epochs until a report is due; whether they were the last."""
        work, progress = self._work, self._progress
        assert work is not None
        until = time.perf_counter() + self._seconds
        rows: list[dict[str, float]] = []
        while work.epoch < work.epochs and (not rows or time.perf_counter() < until):
            with self._on_the_way(work, folder), self._counted():
                metrics = work.step()
            progress.epoch = work.epoch
            rows.append({"epoch": progress.epoch, **metrics})
            progress.history.append(rows[-1])
        if work.epoch < work.epochs:
            folder.write_checkpoint(work.state_dict(), progress)
            return rows, False
        with self._counted():
            answer = work.answer()
        folder.write_answer(answer, progress)
        self._work = None
        return rows, True

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Add the time that is spent inside to the work's."""
        self._since = time.perf_counter()
        yield
        self._count()

    def _count(self) -> None:
        """Add the time since the last count."""
        now = time.perf_counter()
        self._progress.wall_seconds += now - self._since
        self._progress.device_seconds += (now - self._since) * self._share.of_device
        self._since = now

    @contextmanager
    def _on_the_way(self, work: Work, folder: ProposalFolder) -> Iterator[None]:
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
                folder.write_checkpoint(work.state_dict(), self._progress)
                self._since = last = time.perf_counter()

        loop.between_batches = keep
        try:
            yield
        finally:
            loop.between_batches = None

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing that Tune has to know: what is to be kept is in the proposal's folder."""

    def load_checkpoint(self, checkpoint: str) -> None:  # type: ignore[override]
        """See `save_checkpoint`."""

    def cleanup(self) -> None:
        self._work = None


def stored(proposal: Proposal) -> dict[str, Any]:
    """A proposal for a configuration of Tune's."""
    values = {
        key: ray.put(value) if isinstance(value, np.ndarray | bytes | torch.Tensor) else value
        for key, value in proposal.values.items()
    }
    return {
        "id": proposal.id,
        "round": proposal.round,
        "values": values,
        "stage": proposal.stage,
        "needs": proposal.needs,
    }


def fetched(stored: Mapping[str, Any]) -> Proposal:
    """The proposal again."""
    values = {
        key: ray.get(value) if isinstance(value, ray.ObjectRef) else value
        for key, value in stored["values"].items()
    }
    return Proposal(stored["id"], stored["round"], values, tuple(stored["needs"]), stored["stage"])


def ready_worker(share: Share) -> None:
    """Let this process use what its trials hold, and no more."""
    torch.set_num_threads(share.threads)
    if share.device == "cpu":
        keep_freed_memory()
    elif share.gpus < 1:
        torch.cuda.set_per_process_memory_fraction(share.gpus)


@contextmanager
def said_when_out_of_memory(share: Share) -> Iterator[None]:
    """A GPU without memory is something that the user can mend."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        held = f"{share.gpus:g} of a GPU" if share.device == "cuda" else "the CPU's memory"
        raise RaysearchError(
            f"out of memory with {held}: use a smaller batch_size"
            + (" or a larger gpus_per_trial" if share.device == "cuda" else "")
        ) from error
