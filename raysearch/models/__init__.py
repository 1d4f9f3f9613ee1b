"""Networks by name: small ones for small images, and torchvision's classifiers."""

from __future__ import annotations

from raysearch.models._auto import choose_model
from raysearch.models._build import Builder, build, name_of, names

__all__ = ["Builder", "build", "choose_model", "name_of", "names"]
