"""Searches by a population: members that train side by side and now and then copy a better one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from raysearch.methods._base import SearchMethod
from raysearch.training import Setup

Levels = list[list[int]]
"""A policy as a member is told: whole numbers in lists."""


class Population(Protocol):
    """The rules of a search's population; what is drawn follows from the search's seed.

    Whoever schedules the members has all of them train `interval` epochs. Then each of the
    worst `quantile` copies weights and policy of one of the best `quantile`, and explores.

    Attributes:
        size: how many members there are, counted from 0.
        epochs: that each trains in all.
        interval: epochs between two such moments.
        quantile: share of the population, above 0 and at most 0.5.
    """

    @property
    def size(self) -> int: ...
    @property
    def epochs(self) -> int: ...
    @property
    def interval(self) -> int: ...
    @property
    def quantile(self) -> float: ...

    def start(self, member: int) -> Levels:
        """The policy with which a member begins."""

    def choose(self, best: Sequence[int], member: int, epoch: int) -> int:
        """Which of the best a member copies after an epoch."""

    def explore(self, policy: Levels, member: int, epoch: int) -> Levels:
        """The policy with which a member goes on that has copied one after an epoch."""


class Member(SearchMethod):
    """One member of a population; `build` gives the first. See `SearchMethod`.

    `step` trains an epoch with the policy that is followed. At the end of every interval, and of
    the search, it validates too, and returns the member's `score`; higher is better. The state
    holds the lineage: with which policies the member's network has been trained since its first
    epoch, whichever members did that. `policy` is the lineage as a schedule.

    Attributes:
        interval: see `Population`.
    """

    interval: int

    @abstractmethod
    def __init__(
        self,
        setup: Setup,
        search: Mapping[str, Any],
        method: Mapping[str, Any],
        member: int = 0,
    ) -> None: ...

    @classmethod
    @abstractmethod
    def population(
        cls, seed: int, search: Mapping[str, Any], method: Mapping[str, Any]
    ) -> Population:
        """The rules of the population that a search consists of.

        Raises:
            RaysearchError: settings that it does not take.
        """

    @abstractmethod
    def follow(self, policy: Levels) -> None:
        """Train with this policy from here on."""
