"""Kinds of settings that methods share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from raysearch import ops


def _operation(name: str) -> str:
    ops.operation_id(name)
    return name


def each_once(least: Literal[1, 2]) -> AfterValidator:
    """That values differ, and that there are so many at least."""

    def check(values: tuple[Any, ...]) -> tuple[Any, ...]:
        if not least <= len(values) == len(set(values)):
            raise ValueError(f"expected {('one', 'two')[least - 1]} or more, each once")
        return values

    return AfterValidator(check)


Operation = Annotated[str, AfterValidator(_operation)]
SomeOperations = Annotated[tuple[Operation, ...], each_once(1)]
Operations = Annotated[tuple[Operation, ...], each_once(2)]
