"""raysearch: learn an image-augmentation policy, prove what it is worth, and use it as a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raysearch.errors import not_installed

if TYPE_CHECKING:
    from raysearch.policy import load_policy
    from raysearch.training import load_network

__version__ = "0.1.0"
__all__ = ["__version__", "load_network", "load_policy"]


def __getattr__(name: str) -> Any:
    """What loads files, on first use, so that `import raysearch` does not wait for torch."""
    if name == "load_policy":
        from raysearch.policy import load_policy

        return load_policy
    if name == "load_network":
        try:
            from raysearch.training import load_network
        except ModuleNotFoundError as error:
            raise not_installed("raysearch.load_network", error) from None

        return load_network
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
