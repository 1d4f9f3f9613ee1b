"""Keeps what Ray, MLflow and other libraries say off the terminal and in the run's log file."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

STDOUT, STDERR = 1, 2
# What libraries say of each other's code, which whoever runs them can do nothing about.
FOR_DEVELOPERS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ResourceWarning)


@contextmanager
def quiet(log: Path) -> Iterator[TextIO]:
    """Send file descriptors 1 and 2 to a log file, which child processes inherit.

    Ray's raylet writes to its standard error from C++ and MLflow configures its own logging, so
    only the descriptors catch all of it.

    Args:
        log: appended to.

    Yields:
        A stream on what standard output was before: the terminal, or where it was piped.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(STDOUT), os.dup(STDERR)
    own = _writes_to(sys.stdout, STDOUT)
    file = log.open("a", buffering=1)
    handler = logging.StreamHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger("raysearch").setLevel(logging.INFO)
    logging.captureWarnings(True)
    os.dup2(file.fileno(), STDOUT)
    os.dup2(file.fileno(), STDERR)
    terminal = os.fdopen(os.dup(kept[0]), "w", buffering=1) if own else sys.stdout
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            for category in FOR_DEVELOPERS:
                warnings.simplefilter("ignore", category)
            yield terminal
    finally:
        logging.captureWarnings(False)
        logging.getLogger().removeHandler(handler)
        for stream in (sys.stdout, sys.stderr, file):
            with contextlib.suppress(OSError):  # a full disk must not hide how the run ended
                stream.flush()
        for saved, descriptor in zip(kept, (STDOUT, STDERR), strict=True):
            os.dup2(saved, descriptor)
            os.close(saved)
        with contextlib.suppress(OSError):
            file.close()
        if own:
            terminal.close()


def _writes_to(stream: TextIO, descriptor: int) -> bool:
    """Whether a stream is the process's own, not one that a test has put in its place."""
    try:
        return stream.fileno() == descriptor
    except (OSError, ValueError, AttributeError):
        return False
