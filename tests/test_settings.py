"""Settings become the dataclass that asks for them, or one line says what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from raysearch.errors import RaysearchError
from raysearch.settings import BelowOne, Between, Count, Probability, Word, checked, wrong


@dataclass(frozen=True)
class Some:
    """One of each kind."""

    name: Word
    rate: Between
    kind: Literal["fast", "slow"]
    betas: tuple[BelowOne, BelowOne]
    levels: Annotated[tuple[Probability, ...], Field(max_length=3)] = ()
    count: Count | None = None
    flag: bool = False
    others: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.flag and self.count is None:
            raise wrong("some.count", self.count, "a number where some.flag is set")


GIVEN = {"name": "x", "rate": 0.5, "kind": "fast", "betas": [0.5, 0.9]}


def test_what_is_given_and_what_is_not() -> None:
    found = checked(Some, "some", {**GIVEN, "levels": [1, 0.5], "others": {"a": [1]}})
    assert found == Some("x", 0.5, "fast", (0.5, 0.9), (1.0, 0.5), others={"a": [1]})


@pytest.mark.parametrize("name", [7, Path("7")])
def test_a_word_may_look_like_something_else(name: object) -> None:
    assert checked(Some, "some", {**GIVEN, "name": name}).name == "7"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kund": 1}, "unknown setting of some 'kund': did you mean 'kind'?"),
        ({"kind": "fats"}, "unknown choice for some.kind 'fats': did you mean 'fast'?"),
        ({"name": True}, "some.name=True: expected a word"),
        ({"rate": "fast"}, "some.rate='fast': expected a number"),
        ({"rate": True}, "some.rate=True: expected a number"),
        ({"rate": 0}, "some.rate=0: expected a number above 0"),
        ({"rate": 1.0}, "some.rate=1.0: expected a number below 1"),
        ({"rate": float("nan")}, "some.rate=nan: expected a finite number"),
        ({"betas": 0.5}, "some.betas=0.5: expected a list"),
        ({"betas": [0.5]}, "some.betas=[0.5]: expected another number of values"),
        ({"betas": [0.5, 0.5, 0.5]}, "some.betas=[0.5, 0.5, 0.5]: expected"),
        ({"betas": [0.5, 1.0]}, "some.betas=[0.5, 1.0]: expected a number below 1"),
        ({"levels": [0, 0, 0, 0]}, "some.levels=[0, 0, 0, 0]: expected at most 3 values"),
        ({"count": 0}, "some.count=0: expected at least 1"),
        ({"count": 1.5}, "some.count=1.5: expected a whole number"),
        ({"count": True}, "some.count=True: expected a whole number"),
        ({"flag": 1}, "some.flag=1: expected true or false"),
        ({"flag": True}, "some.count=None: expected a number where some.flag is set"),
        ({"others": 3}, "some.others=3: expected a group of settings"),
        ({"rate": 2, "count": 0}, "some.rate=2: expected a number below 1 (and 1 more)"),
    ],
)
def test_what_is_wrong_is_one_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(RaysearchError) as caught:
        checked(Some, "some", {**GIVEN, **change})
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_what_is_missing() -> None:
    few = {key: value for key, value in GIVEN.items() if key != "rate"}
    with pytest.raises(RaysearchError, match=r"^some\.rate is missing$"):
        checked(Some, "some", few)
