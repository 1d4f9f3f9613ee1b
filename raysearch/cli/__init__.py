"""The command line: composes the configuration, has Ray Tune run the stages, hands on the result."""

from __future__ import annotations
