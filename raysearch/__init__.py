"""raysearch: learn an image-augmentation policy, prove what it is worth, and use it as a file."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from raysearch.errors import not_installed
from raysearch.machine import provide_account

if TYPE_CHECKING:
    from raysearch.experiment._api import compare, search
    from raysearch.policy import load_policy
    from raysearch.training import load_network

__version__ = "0.1.0"
__all__ = ["__version__", "compare", "load_network", "load_policy", "search"]

_FROM = {
    "compare": "raysearch.experiment._api",
    "load_network": "raysearch.training",
    "load_policy": "raysearch.policy",
    "search": "raysearch.experiment._api",
}
CORE = ("load_policy",)  # what needs nothing of the search extra
provide_account()  # before PyTorch is imported


def __getattr__(name: str) -> Any:
    """What is used from here, on first use, so that `import raysearch` does not wait for torch.

    Raises:
        RaysearchError: it needs a package that is not installed.
    """
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_FROM[name]), name)
    except ModuleNotFoundError as error:
        if name in CORE:  # what it needs is always there
            raise
        raise not_installed(f"raysearch.{name}", error) from None


def __dir__() -> list[str]:
    """Also what has not been used yet, for a notebook's completion."""
    return sorted({*globals(), *__all__})
