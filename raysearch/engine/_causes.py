"""What a trial died of, for people."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from ray.exceptions import ActorDiedError

from raysearch.errors import RaysearchError, is_disk_full


def cause_of(trial: Any) -> BaseException:
    """The exception that a trial died of, without Ray's wrapping."""
    if trial.pickled_error_file is None:
        return RuntimeError(f"see {trial.error_file}")
    error = pickle.loads(Path(trial.pickled_error_file).read_bytes())
    while isinstance(inner := getattr(error, "cause", None), BaseException):
        error = inner
    assert isinstance(error, BaseException)
    return error


def for_the_user(cause: BaseException) -> bool:
    """Whether a person has to mend something before it makes sense to go on."""
    return isinstance(cause, RaysearchError) or is_disk_full(cause)


def first_line(error: BaseException) -> str:
    """An exception in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, RaysearchError):
        return lines[0]
    if is_disk_full(error):
        return "no space left for its checkpoint"
    if isinstance(error, ActorDiedError):
        started = "creation task" not in lines[0]
        return "its worker process ended unexpectedly" if started else lines[-1]
    return ": ".join([type(error).__name__, *lines[:1]])
