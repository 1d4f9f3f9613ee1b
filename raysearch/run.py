"""`python -m raysearch.run`: search an augmentation policy, evaluate it, report. See `--help`."""

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
        from raysearch.cli._main import main as command
    except ModuleNotFoundError as error:
        print(f"error: {not_installed('raysearch.run', error)}", file=sys.stderr)
        return 2
    return command(arguments)


if __name__ == "__main__":
    sys.exit(main())
