"""Settings, checked: a group of the configuration becomes the dataclass that the code uses.

A dataclass's annotations say what its settings may be, with pydantic's constraints or one of the
kinds below. What is wrong is said in one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from raysearch.errors import RaysearchError, unknown

STRICT = ConfigDict(
    extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=()
)
T = TypeVar("T")


def _word(value: Any) -> Any:
    """A name may be a number, as in name=7, and a path an object."""
    number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if number or isinstance(value, Path) else value


class _Path:
    """Marks what names a file or a folder."""


PATH: Final = _Path()
Word = Annotated[str, BeforeValidator(_word)]
PathWord = Annotated[str, Field(min_length=1), BeforeValidator(_word), PATH]
WholeNumber = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Between = Annotated[float, Field(gt=0, lt=1)]  # 0 and 1
BelowOne = Annotated[float, Field(ge=0, lt=1)]


def checked(cls: type[T], group: str, values: Mapping[str, Any]) -> T:
    """A group of settings as its dataclass.

    Args:
        cls: the dataclass; a list in `values` becomes the tuple that it asks for.
        group: the group's name, for messages.
        values: plain values; what has a default may be left out.

    Raises:
        RaysearchError: a key that does not belong, one that is missing, or a wrong value.
    """
    model = _model(cls)  # type: ignore[arg-type]  # mypy takes no type[T] for hashable
    plain = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    try:
        found = model.model_validate(plain)
    except ValidationError as error:
        raise in_one_line(error, values, list(model.model_fields), group) from None
    return cls(**{key: getattr(found, key) for key in model.model_fields})


def wrong(key: str, value: object, expected: str) -> RaysearchError:
    """The error for a setting that does not go with the others."""
    return RaysearchError(f"{key}={_shown(value)}: expected {expected}")


def in_one_line(
    error: ValidationError, values: Mapping[str, Any], known: Sequence[str], group: str = ""
) -> RaysearchError:
    """The error for the first of the settings that are wrong.

    Args:
        error: pydantic's.
        values: the settings that it is about.
        known: which there are, for a key that does not belong.
        group: whose they are; empty where they are a whole configuration.
    """
    first, *rest = sorted(error.errors(), key=lambda one: _ORDER.get(one["type"], 1))
    path = [str(part) for part in first["loc"] if not isinstance(part, int)]
    key = ".".join([group, *path] if group else path)
    kind, context = first["type"], first.get("ctx", {})
    inside = len(path) < len(first["loc"])  # in a list
    if kind == "extra_forbidden" and len(path) > 1:
        return RaysearchError(f"unknown setting {key!r}")
    if kind == "extra_forbidden":
        return unknown(f"setting of {group or 'the experiment'}", path[-1], known)
    if kind == "missing" and not inside:
        return RaysearchError(f"{key} is missing")
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        return unknown(f"choice for {key}", str(first["input"]), choices)
    value: Any = values
    for part in path:
        value = value[part]
    more = f" (and {len(rest)} more)" if rest else ""
    said = first["msg"].removeprefix("Value error, ")
    if kind == "missing":
        said = "expected another number of values"
    elif kind in _EXPECTED:
        said = "expected " + _EXPECTED[kind].format(**context)
    return RaysearchError(f"{key}={_shown(value)}: {said}{more}")


_ORDER = {"extra_forbidden": 0}  # a misspelt key is why another one is missing
_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a word",
    "string_unicode": "text in Unicode",
    "list_type": "a list",
    "tuple_type": "a list",
    "string_too_short": "a word that is not empty",
    "too_long": "at most {max_length} values",
    "model_type": "a group of settings",
    "dict_type": "a group of settings",
    "mapping_type": "a group of settings",
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "a number above {gt:g}",
    "less_than_equal": "at most {le:g}",
    "less_than": "a number below {lt:g}",
}


def _shown(value: object) -> str:
    return repr(list(value) if isinstance(value, tuple) else value)


@lru_cache(maxsize=64)
def _model(cls: type[Any]) -> type[BaseModel]:
    """What checks a dataclass's fields, before it is made."""
    hints = get_type_hints(cls, include_extras=True)
    given: dict[str, Any] = {
        field.name: (hints[field.name], ... if field.default is MISSING else field.default)
        for field in fields(cls)
    }
    return create_model(cls.__name__, __config__=STRICT, **given)


def leaves(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All settings of nested groups by their full names, e.g. ("search.epochs", 5)."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, values
