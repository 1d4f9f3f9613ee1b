"""A search carried out in this process, one piece of work after the other; without Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raysearch import methods
from raysearch.errors import DivergedError
from raysearch.methods import Context
from raysearch.methods._base import Expected
from raysearch.protocol import Answer, Build, Failed, Metrics, Proposal, Search, Values
from raysearch.training import Setup


@dataclass(frozen=True)
class Configured:
    """A method, and what it works with.

    Attributes:
        method: of any class.
        context: see `Context`.
    """

    method: Any
    context: Context

    @classmethod
    def of(cls, method: Values, *context: Any) -> Configured:
        """From a `method` group, and the arguments of `Context`."""
        return cls(methods.find(method["name"]).of(method), Context(*context))

    def search(self, seed: int) -> Any:
        """See `Method.search`."""
        return self.method.search(seed, self.context)

    def build(self, setup: Setup) -> Build:
        """See `Method.build`."""
        build: Build = self.method.build(setup, self.context)
        return build

    def forecast(self, setup: Setup) -> Expected:
        """See `Method.forecast`."""
        expected: Expected = self.method.forecast(setup, self.context)
        return expected

    def fits(self, shared: Values, setup: Setup) -> None:
        """See `Method.fits`."""
        self.method.fits(shared, setup, self.context)


def carry_out(search: Search, build: Build) -> list[Metrics]:
    """Carry a search out to its end; files are kept in memory.

    Args:
        search: is asked until it has finished.
        build: makes its work.

    Returns:
        The search's history.

    Raises:
        SearchFailedError: everything that the search tried has failed.
    """
    files: dict[str, Values] = {}
    history: list[Metrics] = []
    while (proposal := search.ask()) is not None:
        answer = answer_to(proposal, build, files)
        if isinstance(answer, Answer) and answer.file is not None:
            files[proposal.id] = answer.file
        history += search.tell(proposal.id, answer)
        needed = set(search.needed())
        files = {id: file for id, file in files.items() if id in needed}
    return history


def answer_to(
    proposal: Proposal, build: Build, files: Mapping[str, Values] | None = None
) -> Answer | Failed:
    """Do a proposal's work from its beginning to its end.

    Args:
        proposal: what to do.
        build: makes the work.
        files: of earlier proposals, by their ids, those that it needs among them.
    """
    try:
        work = build(proposal, {id: (files or {})[id] for id in proposal.needs})
        while work.epoch < work.epochs:
            work.step()
        return work.answer()
    except DivergedError as error:
        return Failed(str(error))
