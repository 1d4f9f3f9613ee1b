"""The settings in `configs/method`, without the command line's composition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "method"


def method_settings(name: str, **changes: Any) -> dict[str, Any]:
    """The `method` group of a file, over that of the one that it is based on; some changed."""
    document = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    bases = [one for one in document.get("defaults", ()) if isinstance(one, str) and one[0] != "_"]
    found: dict[str, Any] = {}
    for base in bases:
        found |= method_settings(base)
    return found | document.get("method", {}) | changes
