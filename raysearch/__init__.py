"""raysearch: learn an image-augmentation policy, prove what it is worth, and use it as a file."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from raysearch.errors import not_installed

if TYPE_CHECKING:
    from raysearch.policy import load_policy
    from raysearch.training import load_network

__version__ = "0.1.0"
__all__ = ["__version__", "load_network", "load_policy"]


_FROM = {"load_policy": "raysearch.policy", "load_network": "raysearch.training"}


def __getattr__(name: str) -> Any:
    """What is used from here, on first use, so that `import raysearch` does not wait for torch."""
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_FROM[name]), name)
    except ModuleNotFoundError as error:
        raise not_installed(f"raysearch.{name}", error) from None
