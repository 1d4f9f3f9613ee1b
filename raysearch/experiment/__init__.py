"""Experiments: one method or several on the same data, searched, evaluated and reported.

What the command line and the Python API are made of. Nothing is imported before it is used, so
that a mistake in the settings is said before PyTorch has been loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raysearch.experiment._api import compare, search
    from raysearch.experiment._result import Result

__all__ = ["Result", "compare", "search"]


def __getattr__(name: str) -> Any:
    """The Python API, on first use."""
    if name in ("compare", "search"):
        from raysearch.experiment import _api

        return getattr(_api, name)
    if name == "Result":
        from raysearch.experiment._result import Result

        return Result
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
