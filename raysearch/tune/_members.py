"""A member of a population as a trial: an interval of its training in each step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from raysearch.methods import Member
from raysearch.tune._checkpoints import Progress, read_progress, read_state, write_checkpoint
from raysearch.tune._processes import KeptTrainable
from raysearch.tune._trainable import Share, said_when_out_of_memory

Build = Callable[[int, int], Member]


@dataclass(frozen=True)
class MembersJob:
    """What all members of a stage's populations have in common; sent once to each node.

    Attributes:
        build: makes a member from the search's seed and the member's number, or where Ray has
            what does.
        share: what each member holds while it trains.
    """

    build: Build | ray.ObjectRef[Any]
    share: Share


class MemberTrainable(KeptTrainable):
    """A member; each step is an interval, whose end is on disk before it is reported.

    Its configuration is `{"trial": {id, name, member, seed, policy, checkpoint, folder}}`:
    `policy` is followed from `checkpoint` on (a folder, or None for the start), unless Tune
    restores another one; `folder` is where the member's checkpoints go.
    """

    metric = "score"

    def setup(self, config: dict[str, Any], job: MembersJob) -> None:  # type: ignore[override]
        super().setup(config, job)
        self._job = job
        self._build: Build | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Let the next member use this process."""
        self._start = new_config["trial"].get("checkpoint")
        return super().reset_config(new_config)

    def load_checkpoint(self, checkpoint: str) -> None:  # type: ignore[override]
        """Go on from this one, the member's own or that of the member that it copies."""
        self._start = checkpoint

    def work(self) -> dict[str, Any]:
        """An interval, or what is on disk of it.

        Returns:
            `epoch`, `score`, `rows` (the metrics of the interval's epochs), `folder` (its
            checkpoint), `device_seconds`, `done`.
        """
        with said_when_out_of_memory(self._job.share):
            folder, progress = self._interval()
        return {
            "epoch": progress.epoch,
            "score": progress.metrics["score"],
            "rows": progress.history,
            "folder": str(folder),
            "device_seconds": progress.device_seconds,
            "done": progress.finished,
        }

    def _interval(self) -> tuple[Path, Progress]:
        start = time.perf_counter()
        member = self._member()
        until = min(member.epochs, (member.epoch // member.interval + 1) * member.interval)
        folder = Path(self.trial["folder"]) / f"epoch-{until:05d}"
        if (found := read_progress(folder)) is not None:  # the driver died before it knew
            return folder, found
        progress = Progress(epochs=member.epochs)
        while member.epoch < until:
            metrics = member.step()
            progress.history.append({"epoch": member.epoch, **metrics})
        progress.epoch = member.epoch
        progress.wall_seconds = time.perf_counter() - start
        progress.device_seconds = progress.wall_seconds * self._job.share.of_device
        folder.mkdir(parents=True, exist_ok=True)
        finished = progress.finished
        state = None if finished else member.state_dict()
        policy = member.policy().to_json() if finished else None
        write_checkpoint(folder, progress, state, policy)
        return folder, progress

    def _member(self) -> Member:
        """The member as it is at the interval's start."""
        if self._build is None:
            build = self._job.build
            self._build = ray.get(build) if isinstance(build, ray.ObjectRef) else build
        member = self._build(self.trial["seed"], self.trial["member"])
        if self._start is not None:
            member.load_state_dict(read_state(Path(self._start)))
        member.follow(self.trial["policy"])
        return member
