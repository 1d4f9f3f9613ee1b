"""`python -m raysearch.run`: search an augmentation policy, evaluate it, report. See `--help`."""

from __future__ import annotations

import sys

from raysearch.cli._main import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
