"""A trial that carries out a proposal of a search, in a process that is kept for the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray

from raysearch.methods import Proposal, Worker
from raysearch.tune._processes import KeptTrainable
from raysearch.tune._trainable import Share, said_when_out_of_memory


@dataclass(frozen=True)
class RoundsJob:
    """What all trials of a stage have in common; sent once to each node.

    Attributes:
        build: makes the worker of the search with this seed.
        share: what each trial holds.
    """

    build: Callable[[int], Worker]
    share: Share


class ProposalTrainable(KeptTrainable):
    """A proposal per trial, carried out in one step; the process keeps its workers.

    Its configuration is `{"trial": {name, search, seed, folder, proposal}}`. Arrays of the proposal
    are references to Ray's object store, because Tune writes and keeps every trial's configuration.
    """

    metric = "seconds"

    def setup(self, config: dict[str, Any], job: RoundsJob) -> None:  # type: ignore[override]
        super().setup(config, job)
        self._job = job
        self._worker: Worker | None = None
        self._seed: int | None = None  # whose worker that is; a process keeps one

    def work(self) -> dict[str, Any]:
        """The whole trial."""
        began, start = time.time(), time.perf_counter()
        seed = self.trial["seed"]
        with said_when_out_of_memory(self._job.share):
            if self._worker is None or seed != self._seed:
                self._worker = None  # before there are two
                self._worker, self._seed = self._job.build(seed), seed
            answer = self._worker(fetched(self.trial["proposal"]), Path(self.trial["folder"]))
        seconds = time.perf_counter() - start
        return {"answer": answer, "began": began, "seconds": seconds, "done": True}


def stored(proposal: Proposal) -> dict[str, Any]:
    """A proposal for a configuration of Tune's."""
    values = {
        key: ray.put(value) if isinstance(value, np.ndarray | bytes) else value
        for key, value in proposal.values.items()
    }
    return {"id": proposal.id, "round": proposal.round, "values": values}


def fetched(stored: Mapping[str, Any]) -> Proposal:
    """The proposal again."""
    values = {
        key: ray.get(value) if isinstance(value, ray.ObjectRef) else value
        for key, value in stored["values"].items()
    }
    return Proposal(stored["id"], stored["round"], values)
