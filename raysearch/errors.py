"""Errors for the person at the keyboard: one line that says what, where and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RaysearchError(Exception):
    """Something the user can mend. The message is one line; the command line prints it as it is."""


class NonFiniteLossError(RaysearchError):
    """The loss became NaN or infinite.

    Args:
        where: what was being trained, for the message.
        epoch: epoch in which it happened, counted from 1.
        step: step within that epoch, counted from 1.
    """

    def __init__(self, where: str, epoch: int, step: int) -> None:
        super().__init__(
            f"{where}: the loss is not finite at epoch {epoch}, step {step}; "
            "try a lower learning rate"
        )
        self.where, self.epoch, self.step = where, epoch, step

    def __reduce__(self) -> tuple[type[NonFiniteLossError], tuple[str, int, int]]:
        return type(self), (self.where, self.epoch, self.step)


def unknown(kind: str, name: str, known: Iterable[str]) -> RaysearchError:
    """The error for a name that is not one of `known`, with the nearest ones named.

    >>> str(unknown("method", "dadaa", ["dada", "ddas"]))
    "unknown method 'dadaa': did you mean 'dada' or 'ddas'? (known: dada, ddas)"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f": did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    return RaysearchError(f"unknown {kind} {name!r}{hint} (known: {', '.join(names)})")
