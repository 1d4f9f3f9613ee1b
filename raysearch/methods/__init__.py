"""Methods: those that search, one module each (its `METHOD` is the class), and fixed policies."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from raysearch.errors import unknown
from raysearch.methods._base import Method, SearchMethod
from raysearch.methods._fixed import FIXED, Augmentation, augmentations
from raysearch.methods._population import Levels, Member, Population
from raysearch.methods._trials import (
    PreparedTrialSearch,
    Proposal,
    TrialSearch,
    Worker,
    carry_out,
    tidy,
    unneeded,
)
from raysearch.training import Setup

__all__ = [
    "FIXED",
    "Augmentation",
    "Levels",
    "Member",
    "Method",
    "Population",
    "PreparedTrialSearch",
    "Proposal",
    "SearchMethod",
    "TrialSearch",
    "Worker",
    "augmentations",
    "build",
    "carry_out",
    "find",
    "find_members",
    "find_trials",
    "names",
    "tidy",
    "unneeded",
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
        return FIXED[name]
    cls: type[Method] = importlib.import_module(f"{__name__}.{name}").METHOD
    return cls


def find_trials(name: str) -> type[TrialSearch] | None:
    """A method's class where its search is made of many trainings, else None.

    Raises:
        RaysearchError: there is no such method.
    """
    cls = find(name)
    return cls if issubclass(cls, TrialSearch) else None


def find_members(name: str) -> type[Member] | None:
    """A method's class where its search is made by a population, else None.

    Raises:
        RaysearchError: there is no such method.
    """
    cls = find(name)
    return cls if issubclass(cls, Member) else None


def build(
    name: str, setup: Setup, search: Mapping[str, Any], method: Mapping[str, Any]
) -> SearchMethod:
    """What searches in one trial: the method of that name, or else what it begins with.

    That is what prepares the trials of a `TrialSearch`, and the first `Member` of a population.

    Args:
        name: the method's.
        setup, search, method: see `SearchMethod`.

    Raises:
        RaysearchError: no such method, or settings that it does not take.
    """
    cls = find(name)
    if issubclass(cls, PreparedTrialSearch):
        return cls.preparation(setup, search, method)
    assert issubclass(cls, SearchMethod)
    return cls(setup, search, method)
