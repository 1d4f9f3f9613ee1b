"""Search methods, one module each; a module's `METHOD` is its class."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from raysearch.errors import unknown
from raysearch.methods._base import SearchMethod
from raysearch.training import Task

__all__ = ["SearchMethod", "build", "find", "names"]


def names() -> list[str]:
    """The methods that there are."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def find(name: str) -> type[SearchMethod]:
    """A method's class.

    Raises:
        RaysearchError: there is no such method.
    """
    if name not in names():
        raise unknown("method", name, names())
    cls: type[SearchMethod] = importlib.import_module(f"{__name__}.{name}").METHOD
    return cls


def build(
    name: str, task: Task, search: Mapping[str, Any], method: Mapping[str, Any]
) -> SearchMethod:
    """A search by its method's name; see `SearchMethod` for the arguments.

    Raises:
        RaysearchError: no such method, or settings that it does not take.
    """
    return find(name)(task, search, method)
