"""`python -m raysearch.compare`: several methods, one page. See `--help`."""

from __future__ import annotations

import sys

from raysearch.cli._compare import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
