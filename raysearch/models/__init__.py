"""Networks by name: small ones for small images, and torchvision's classifiers."""

from __future__ import annotations

from raysearch.models._build import build, names

__all__ = ["build", "names"]
