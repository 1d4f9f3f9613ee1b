"""A search carried out in this process, one piece of work after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from raysearch.errors import DivergedError, RaysearchError
from raysearch.protocol import Answer, Build, Failed, Metrics, Proposal, Search, Values


def carry_out(
    search: Search,
    build: Build,
    *,
    given: Mapping[str, Values] | None = None,
    each: Callable[[Metrics], None] | None = None,
) -> list[Metrics]:
    """Carry a search out to its end; files are kept in memory.

    Args:
        search: is asked until it has finished.
        build: makes its work.
        given: files that are there already, by their proposals.
        each: told every row of the history at once.

    Returns:
        The search's history.

    Raises:
        SearchFailedError: everything that the search tried has failed.
        RaysearchError: it asks for nothing and has not finished.
    """
    files: dict[str, Values] = dict(given or {})
    history: list[Metrics] = []
    while (proposal := search.ask()) is not None:
        answer = answer_to(proposal, build, files)
        if isinstance(answer, Answer) and answer.file is not None:
            files[proposal.id] = answer.file
        for row in search.tell(proposal.id, answer):
            history.append(row)
            if each is not None:
                each(row)
        needed = set(search.needed())
        files = {id: file for id, file in files.items() if id in needed}
    if not search.finished:
        raise RaysearchError("the search asks for nothing and has not finished")
    return history


def answer_to(
    proposal: Proposal, build: Build, files: Mapping[str, Values] | None = None
) -> Answer | Failed:
    """Do a proposal's work from its beginning to its end.

    Args:
        proposal: what to do.
        build: makes the work.
        files: of earlier proposals, by their ids, those that it needs among them.

    Raises:
        RaysearchError: one of them is missing.
    """
    needed: dict[str, Any] = {}
    for id in proposal.needs:
        if files is None or id not in files:
            raise RaysearchError(f"what {id} has left is gone, which {proposal.id} goes on from")
        needed[id] = files[id]
    try:
        work = build(proposal, needed)
        while work.epoch < work.epochs:
            work.step()
        return work.answer()
    except DivergedError as error:
        return Failed(str(error))
