"""What settings are declared to be, and which of them are text."""

from __future__ import annotations

from types import EllipsisType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from raysearch.experiment._settings import Settings
from raysearch.settings import PATH


def declared(key: str, method: str) -> Any:
    """The type that a setting is declared to have; `Any` where nothing says.

    Args:
        key: its full name.
        method: the method whose settings the `method` group has.
    """
    found: Any = Settings
    first, *rest = key.split(".")
    if rest and first == "data":
        from raysearch.data._settings import DataSettings as found
    elif rest and first == "method":
        from raysearch import methods

        found = methods.find(method)
    else:
        rest.insert(0, first)
    for name in rest:
        found = get_type_hints(_group(found), include_extras=True).get(name, Any)
    return found


def _group(kind: Any) -> Any:
    """The class in an annotation, None aside."""
    return next((each for each in get_args(kind) if isinstance(each, type)), kind)


def is_text(declared: Any) -> bool:
    """Whether a type's values are text: strings, choices, or None besides."""
    found = _members(declared)
    return bool(found) and all(_is_word(each) for each in found)


def is_text_list(declared: Any) -> bool:
    """Whether a type's values are lists of text."""
    found = _members(declared)
    return bool(found) and all(
        get_origin(each) in (list, tuple)
        and all(is_text(one) for one in get_args(each) if not isinstance(one, EllipsisType))
        for each in found
    )


def has_null(declared: Any) -> bool:
    """Whether a choice may be None; what else is text may be the word null."""
    found = _members(declared)
    return NoneType in _members(declared, with_none=True) and all(
        get_origin(each) is Literal for each in found
    )


def is_path(declared: Any) -> bool:
    """Whether a type's values, or what is in its lists, name files or folders."""
    return declared is PATH or any(is_path(each) for each in get_args(declared))


def _members(declared: Any, with_none: bool = False) -> list[Any]:
    """What a type is a union of, without what else is said of it."""
    if get_origin(declared) is Annotated:
        return _members(get_args(declared)[0], with_none)
    if get_origin(declared) in (Union, UnionType):
        return [one for each in get_args(declared) for one in _members(each, with_none)]
    return [] if declared is NoneType and not with_none else [declared]


def _is_word(declared: Any) -> bool:
    if get_origin(declared) is Literal:
        return all(isinstance(each, str) for each in get_args(declared))
    return declared is str
