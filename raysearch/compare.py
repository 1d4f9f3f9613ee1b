"""`python -m raysearch.compare`: several methods, one page. See `--help`.

A program: as an attribute of the package, `raysearch.compare` is the function of that name, whose
place this module takes once something imports it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from raysearch.cli import run_program

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; see `raysearch.cli.run_program`."""
    return run_program("raysearch.compare", "_compare", arguments)


if __name__ == "__main__":
    sys.exit(main())
