"""`python -m raysearch.compare`: several methods, one page. See `--help`.

A program: as an attribute of the package, `raysearch.compare` is the function of that name, whose
place this module takes once something imports it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from raysearch.errors import not_installed

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what follows the program's name; None is this process's own.

    Returns:
        The exit code, see `raysearch.cli._main.guarded`; 2 if what searches need is not installed.
    """
    try:
        from raysearch.cli._compare import main as command
    except ModuleNotFoundError as error:
        print(f"error: {not_installed('raysearch.compare', error)}", file=sys.stderr)
        return 2
    return command(arguments)


if __name__ == "__main__":
    sys.exit(main())
