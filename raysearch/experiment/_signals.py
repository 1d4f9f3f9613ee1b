"""SIGTERM, as batch systems and containers send it, stops a run just as Ctrl-C does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

NUMBERS = (signal.SIGINT, signal.SIGTERM)
_terminated = threading.Event()


@contextmanager
def stop_on_signal() -> Iterator[None]:
    """Let SIGTERM stop what is inside as SIGINT does, and ignore both while it ends.

    Used again after Ray has been started, which sets a handler too. What is left after an error or
    a first signal takes seconds: a second Ctrl-C would hit while the state is written or Ray's
    processes are ended.
    """
    _handle({signal.SIGTERM: _interrupt})
    try:
        yield
    except BaseException:
        _handle(dict.fromkeys(NUMBERS, _ignore))
        raise


@contextmanager
def interruptible() -> Iterator[None]:
    """Let another SIGINT or SIGTERM end what is inside, which may take long, and only that."""
    with handlers_kept(forever=False):
        _handle(dict.fromkeys(NUMBERS, _stop))
        yield


@contextmanager
def handlers_kept(forever: bool) -> Iterator[None]:
    """Put SIGINT's and SIGTERM's handlers back at the end.

    Args:
        forever: do not, because the process ends.
    """
    before = {number: signal.getsignal(number) for number in NUMBERS}
    try:
        yield
    finally:
        if not forever:
            _handle({number: old for number, old in before.items() if old is not None})


def was_terminated() -> bool:
    """Whether it was SIGTERM that stopped the process."""
    return _terminated.is_set()


def _handle(handlers: Mapping[signal.Signals, Any]) -> None:
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _terminated.set()
    raise KeyboardInterrupt  # not SIGINT, which a process in the background may ignore


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _ignore(number: int, frame: FrameType | None) -> None:
    """Unlike SIG_IGN, not inherited by processes."""
