"""What the settings of every method share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator

from raysearch import ops
from raysearch.settings import checked


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


@dataclass(frozen=True)
class MethodSettings:
    """A method's group of the configuration; a subclass is a frozen dataclass of its settings.

    Attributes:
        name: the method's name.
    """

    name: str

    @classmethod
    def of(cls, method: Mapping[str, Any]) -> Self:
        """From the configuration group.

        Raises:
            RaysearchError: a key that does not belong, one that is missing, or a wrong value.
        """
        return checked(cls, "method", method)
