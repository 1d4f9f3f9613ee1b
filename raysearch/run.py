"""`python -m raysearch.run`: search an augmentation policy, evaluate it, report. See `--help`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from raysearch.cli import run_program

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; see `raysearch.cli.run_program`."""
    return run_program("raysearch.run", "_main", arguments)


if __name__ == "__main__":
    sys.exit(main())
