"""The command line: arguments, help, exit codes; a thin layer above `raysearch.experiment`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from raysearch.errors import not_installed


def run_program(program: str, module: str, arguments: Sequence[str] | None) -> int:
    """Run a command line, whose imports are all made here.

    Args:
        program: what it is called, for the message.
        module: of this package, with its `main`.
        arguments: what follows the program's name; None is this process's own.

    Returns:
        The exit code, see `raysearch.cli._main.guarded`; 2 if what searches need is not installed.
    """
    try:
        command = importlib.import_module(f"{__name__}.{module}").main
    except ModuleNotFoundError as error:
        print(f"error: {not_installed(program, error)}", file=sys.stderr)
        return 2
    code: int = command(arguments)
    return code
