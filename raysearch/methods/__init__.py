"""Methods: those that search, one module each (its `METHOD` is the class), and known policies."""

from __future__ import annotations

import importlib
import pkgutil

from raysearch.errors import unknown
from raysearch.methods._base import Context, Method
from raysearch.methods._fixed import BASELINES, FIXED, UNCHANGED, Fixed
from raysearch.methods._once import Once
from raysearch.methods._race import budget_seconds
from raysearch.methods._single_pass import SearchTraining, SinglePass
from raysearch.methods._study import (
    Choice,
    Pruning,
    Range,
    Space,
    Studies,
    Study,
    Tried,
    Watch,
    Whole,
    unpacked,
)

__all__ = [
    "BASELINES",
    "FIXED",
    "UNCHANGED",
    "Choice",
    "Context",
    "Fixed",
    "Method",
    "Once",
    "Pruning",
    "Range",
    "SearchTraining",
    "SinglePass",
    "Space",
    "Studies",
    "Study",
    "Tried",
    "Watch",
    "Whole",
    "budget_seconds",
    "find",
    "names",
    "unpacked",
]


def names() -> list[str]:
    """The methods that there are."""
    modules = (m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    return sorted([*modules, *FIXED])


def find(name: str) -> type[Method]:
    """A method's class.

    Raises:
        RaysearchError: there is no such method.
    """
    if name not in names():
        raise unknown("method", name, names())
    if name in FIXED:
        return Fixed
    cls: type[Method] = importlib.import_module(f"{__name__}.{name}").METHOD
    return cls
