"""SIGTERM, as batch systems and containers send it, stops a run just as Ctrl-C does."""

from __future__ import annotations

import signal
import threading
from types import FrameType

_terminated = threading.Event()


def stop_on_sigterm() -> None:
    """Treat SIGTERM as SIGINT; again after Ray has been started, which sets a handler too."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)


def was_terminated() -> bool:
    """Whether it was SIGTERM that stopped the process."""
    return _terminated.is_set()


def _interrupt(number: int, frame: FrameType | None) -> None:
    _terminated.set()
    signal.raise_signal(signal.SIGINT)
