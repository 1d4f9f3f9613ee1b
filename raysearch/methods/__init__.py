"""Search methods, one module each; a module's `METHOD` is its class."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from raysearch.errors import unknown
from raysearch.methods._base import SearchMethod
from raysearch.training import Task

__all__ = ["SearchMethod", "build", "names"]


def names() -> list[str]:
    """The methods that there are."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def build(
    name: str, task: Task, search: Mapping[str, Any], method: Mapping[str, Any]
) -> SearchMethod:
    """A search by its method's name; see `SearchMethod` for the arguments.

    Raises:
        RaysearchError: no such method, or settings that it does not take.
    """
    if name not in names():
        raise unknown("method", name, names())
    cls: type[SearchMethod] = importlib.import_module(f"{__name__}.{name}").METHOD
    return cls(task, search, method)
