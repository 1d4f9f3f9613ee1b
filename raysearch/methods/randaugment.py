"""RandAugment (Cubuk et al., 2020): N operations an image at magnitude M, chosen by Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from raysearch.methods._settings import SomeOperations
from raysearch.methods._study import Range, Space, Whole
from raysearch.methods._tuned import Tuned
from raysearch.policy import RandomOperations, rand_augment

LARGEST_N, LARGEST_M = 16, 30


N = Annotated[int, Field(ge=1, le=LARGEST_N)]


@dataclass(frozen=True)
class RandAugment(Tuned):
    """Optuna chooses N and M, or the one of them that is not given.

    Attributes:
        operations: names of the operations to draw from.
        n: N, 1 to 16; None leaves it to the search.
        m: M, 0 to 30; None leaves it to the search.
        largest_n: up to which N is searched, where it is.
    """

    title: ClassVar[str] = "RandAugment"
    operations: SomeOperations
    n: N | None
    m: Annotated[float, Field(ge=0, le=LARGEST_M)] | None
    largest_n: N

    @property
    def space(self) -> Space:
        """What is not given of N and M."""
        space: Space = {
            "n": Whole(1, self.largest_n),
            "m": Range(0, LARGEST_M, step=1),
        }
        return {key: one for key, one in space.items() if getattr(self, key) is None}

    def policy(self, params: Mapping[str, Any]) -> RandomOperations:
        """N of the operations at magnitude M."""
        chosen = {"n": self.n, "m": self.m, **params}
        return rand_augment(chosen["n"], chosen["m"], self.operations)

    @property
    def known(self) -> RandomOperations | None:
        """The policy where both N and M are given."""
        return None if self.space else self.policy({})


METHOD = RandAugment
