"""The command line: composes the configuration, runs the stages, hands on the result."""

from __future__ import annotations
