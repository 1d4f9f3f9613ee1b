"""Checks of parsed JSON in plain Python: each refuses a value and says where in the whole it is."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable
from typing import Any

MAX_VALUES = 8_000_000
"""In a file, of which some lists may make up the whole."""

Check = Callable[[Any], None]
"""Returns if a value is as it must be, else raises `WrongValueError`."""

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80


class WrongValueError(ValueError):
    """A value in a document that may not be there.

    Args:
        message: what is wrong with the value.
        place: where it is, from the outermost key inwards, e.g. `phases[3].count`; empty for the
            document itself.
    """

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(f"{place or 'document'}: {message}")
        self.message, self.place = message, place

    def inside(self, outer: str) -> WrongValueError:
        """The same error, seen from what holds the value at `outer`."""
        dot = "." if self.place and not self.place.startswith("[") else ""
        return WrongValueError(self.message, f"{outer}{dot}{self.place}")


def number(low: float = -math.inf, high: float = math.inf, *, whole: bool = False) -> Check:
    """A number from `low` to `high`, `whole` if written without a point; truth values are none."""
    types, name = ((int,), "integer") if whole else ((int, float), "number")

    def check(value: Any) -> None:
        if type(value) not in types:
            raise WrongValueError(f"{_short.repr(value)} is not of type {name!r}")
        if value > high:
            raise WrongValueError(f"{_short.repr(value)} is greater than the maximum of {high:,}")
        if not value >= low:  # NaN too
            raise WrongValueError(f"{_short.repr(value)} is less than the minimum of {low:,}")

    return check


def truth(value: Any) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise WrongValueError(f"{_short.repr(value)} is not of type 'boolean'")


def text(most: int) -> Check:
    """A string of at most so many characters."""

    def check(value: Any) -> None:
        if not isinstance(value, str):
            raise WrongValueError(f"{_short.repr(value)} is not of type 'string'")
        if len(value) > most:
            raise WrongValueError(f"{_short.repr(value)} is longer than {most} characters")

    return check


def one_of(*names: str) -> Check:
    """One of some strings."""

    def check(value: Any) -> None:
        if not isinstance(value, str) or value not in names:
            raise WrongValueError(f"{_short.repr(value)} is not one of {list(names)}")

    return check


def list_of(items: Check | None, least: int, most: int) -> Check:
    """A list of `least` to `most` values, each of which passes `items`, if that is given."""

    def check(value: Any) -> None:
        if not isinstance(value, list):
            raise WrongValueError(f"{_short.repr(value)} is not of type 'array'")
        if not least <= len(value) <= most:
            raise WrongValueError(f"a list of {len(value):,}; allowed are {least:,} to {most:,}")
        if items is None:
            return
        index = 0
        try:
            for item in value:  # of which there may be millions
                items(item)
                index += 1
        except WrongValueError as error:
            raise error.inside(f"[{index}]") from None

    return check


def rows(value: Any) -> None:
    """Up to a million lists of numbers, all of one length: too many for a check of each."""
    list_of(None, least=1, most=1_000_000)(value)
    for i, row in enumerate(value):
        if (
            not isinstance(row, list)
            or len(row) != len(value[0])
            or any(type(item) not in (int, float) for item in row)
        ):
            raise WrongValueError("expected as many numbers as in the first", f"[{i}]")


def any_object(value: Any) -> None:
    """An object with whatever keys."""
    if not isinstance(value, dict):
        raise WrongValueError(f"{_short.repr(value)} is not of type 'object'")


def object_of(**fields: Check) -> Check:
    """An object with exactly these keys, whose values pass their checks."""

    def check(value: Any) -> None:
        any_object(value)
        for key, field in fields.items():
            if key not in value:
                raise WrongValueError(f"{key!r} is a required property")
            try:
                field(value[key])
            except WrongValueError as error:
                raise error.inside(key) from None
        for key in value:
            if key not in fields:
                raise WrongValueError(f"unknown property {_short.repr(key)}")

    return check


# What several kinds have in their JSON.
RANGES = ("autoaugment", "wide")
RANGE, NAME, COUNT = one_of(*RANGES), text(64), number(1, 16, whole=True)
UNIT, POSITIVE = number(0, 1), number(0)
