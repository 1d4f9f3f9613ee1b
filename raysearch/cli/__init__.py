"""The command line: arguments, help, exit codes; a thin layer above `raysearch.experiment`."""

from __future__ import annotations
