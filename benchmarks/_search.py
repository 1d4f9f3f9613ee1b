"""Settings, data and searches of the benchmarks: composed and carried out as a run's are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from benchmarks._local import Configured, carry_out
from raysearch.data import Dataset, load_dataset
from raysearch.engine import OptunaStudies
from raysearch.errors import RaysearchError
from raysearch.experiment._compose import compose
from raysearch.methods import Once
from raysearch.policy import Policy
from raysearch.protocol import Metrics, Values, Work
from raysearch.training import Setup

W = TypeVar("W", bound=Work)


def composed(values: Mapping[str, Any], *overrides: str) -> dict[str, Any]:
    """The settings of a run with a method, as plain values.

    Args:
        values: the program's arguments: `method`, and `method.KEY=VALUE` over its settings.
        overrides: what else is set, as on the command line of `raysearch.run`.

    Raises:
        RaysearchError: there is no such method, or a setting that it does not have.
    """
    own = [f"{key}={value}" for key, value in values.items() if key.startswith("method.")]
    return compose([f"method={values['method']}", *overrides, *own]).values


def configured(values: Mapping[str, Any], *overrides: str) -> Configured:
    """The method, and what it works with, of `composed`."""
    found = composed(values, *overrides)
    return Configured.of(found["method"], found["search"], found.get("finetune"), OptunaStudies())


@dataclass(frozen=True)
class Searched:
    """A whole search in this process.

    Attributes:
        policy: what it found.
        history: the metrics of every epoch or round; `epoch_equivalents` are those of the whole
            search so far.
        values: what the answer says beside the policy, of a search in a single pass.
    """

    policy: Policy
    history: list[Metrics]
    values: Values

    @property
    def epoch_equivalents(self) -> float:
        """What the search cost."""
        return self.history[-1]["epoch_equivalents"]


def search_through(setup: Setup, configured: Configured) -> Searched:
    """Search with a method, one piece of work after the other."""
    search, build = configured.search(setup.seed), configured.build(setup)
    if not isinstance(search, Once):
        history = carry_out(search, build)
        return Searched(search.policy(), history, {})
    proposal = search.ask()
    assert proposal is not None
    work = build(proposal, {})
    history = [work.step() for _ in range(work.epochs)]
    search.tell(proposal.id, work.answer())
    return Searched(search.policy(), history, search.values)


def done(work: W) -> W:
    """The work, when all its epochs are done."""
    while work.epoch < work.epochs:
        work.step()
    return work


def data_root() -> Path:
    """Where real data lie: `RAYSEARCH_DATA`, or a folder beside the checkout."""
    given = os.environ.get("RAYSEARCH_DATA")
    return Path(given) if given else Path(__file__).parents[2] / "shared" / "data"


def cifar10(limit: int) -> Dataset:
    """So many images of CIFAR-10, from the folder `RAYSEARCH_DATA`.

    Raises:
        RaysearchError: that does not have it.
    """
    folder = data_root() / "cifar10"
    if not (folder / "train.parquet").exists():
        raise RaysearchError("data=cifar10 needs RAYSEARCH_DATA to point to a folder that has it")
    return load_dataset({"name": "parquet", "root": str(folder), "limit": limit})
