"""A search that asks once: a single-pass method, or the evaluation of a policy."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from raysearch.errors import SearchFailedError
from raysearch.policy import Policy, from_json
from raysearch.protocol import Answer, Failed, Metrics, Proposal, Values


class Once:
    """Asks for one piece of work; see `raysearch.protocol.Search`.

    Its history is the work's epochs, which whoever runs the work sees; it adds nothing to them.
    Work that fails ends it too, see `failed`.

    Args:
        id: the proposal's: `search` or `training`.
        stage: see `Proposal.stage`.
        values: what the work has to know.
        start: the policy as it stands before there is an answer, where there is one.

    Attributes:
        values: of the answer; empty before.
        failed: why the work could not end, None where it did.
    """

    rounds, rows = 1, 0

    def __init__(
        self,
        id: str,
        stage: str = "search",
        values: Values | None = None,
        start: Policy | None = None,
    ) -> None:
        self._proposal = Proposal(id, 0, dict(values or {}), stage=stage)
        self._start = start
        self._document: Any = None  # the policy that was found
        self._asked = False
        self.round = 0
        self.values: Values = {}
        self.failed: str | None = None

    @property
    def finished(self) -> bool:
        """Whether there is an answer."""
        return self.round == self.rounds

    def ask(self) -> Proposal | None:
        """The work, unless it is asked for or done."""
        if self.finished or self._asked:
            return None
        self._asked = True
        return self._proposal

    def tell(self, id: str, answer: Answer | Failed) -> Sequence[Metrics]:
        """Take the answer; see `Search.tell`."""
        self.retract(id)
        self.round = 1
        if isinstance(answer, Failed):
            self.failed = answer.reason
        else:
            self.values = dict(answer.values)
            self._document = None if answer.policy is None else answer.policy.to_json()
        return ()

    def retract(self, id: str) -> None:
        """See `Search.retract`."""
        if not self._asked or id != self._proposal.id:
            raise KeyError(id)
        self._asked = False

    def needed(self) -> Collection[str]:
        """Nothing."""
        return ()

    def policy(self) -> Policy:
        """What the work found, or what it begins with.

        Raises:
            SearchFailedError: the work failed.
            LookupError: there is no policy, as of an evaluation.
        """
        if self.failed is not None:
            raise SearchFailedError(self.failed)
        if self._document is not None:  # also where the search was not interrupted: it rounds
            return from_json(self._document)
        if self._start is None or self.finished:
            raise LookupError(f"{self._proposal.id}: there is no policy")
        return self._start

    def state_dict(self) -> dict[str, Any]:
        """Whether there is an answer, and which."""
        return {
            "round": self.round,
            "values": dict(self.values),
            "failed": self.failed,
            "policy": self._document,
        }

    def load_state_dict(self, state: Values) -> None:
        """Go on from `state_dict`."""
        self._asked, self.round = False, state["round"]
        self.values, self.failed = dict(state["values"]), state["failed"]
        self._document = state["policy"]
