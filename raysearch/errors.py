"""Errors for the person at the keyboard: one line that says what, where and what to do."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable

from raysearch.credentials import redacted

LONGEST_NAME = 100  # of a name in a message, which may come from a file


class RaysearchError(Exception):
    """Something the user can mend. The message is one line; the command line prints it as it is.

    Names of files, which others may have chosen, reach a terminal through it: line breaks become
    spaces, other control characters are written out, and URLs lose their passwords.

    Args:
        message: what is wrong, where, and what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_printable(redacted(message)))


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    line = re.sub(r"\s*[\n\r]\s*", " ", text)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


class DivergedError(RaysearchError):
    """A computation that came to nothing; for a search it is an answer, not the end."""


class SearchFailedError(RaysearchError):
    """Everything that a search tried has failed, so that it cannot go on."""


class NonFiniteLossError(DivergedError):
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


def one_line(error: BaseException) -> str:
    """The first line of what an exception says, 200 characters at most; else its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


def is_disk_full(error: BaseException) -> bool:
    """Whether there was no room for a file."""
    full = (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, OSError) and (error.errno in full or "No space left" in str(error))


def not_installed(what: str, error: ModuleNotFoundError) -> RaysearchError:
    """The error for something that needs a package of the `search` extra, which is missing.

    Args:
        what: what cannot be done, as the subject of a sentence.
        error: of the import.

    Raises:
        ModuleNotFoundError: `error` itself, if raysearch's own parts are what is missing.
    """
    if error.name is None or error.name.partition(".")[0] == "raysearch":
        raise error
    return RaysearchError(
        f"{what} needs {error.name}, which is not installed: "
        'pip install "raysearch[search]" brings all that searches need'
    )


def unknown(kind: str, name: str, known: Iterable[str]) -> RaysearchError:
    """The error for a name that is not one of `known`, with the nearest ones named.

    >>> str(unknown("method", "dadaa", ["dada", "ddas"]))
    "unknown method 'dadaa': did you mean 'dada' or 'ddas'? (known: dada, ddas)"
    """
    names, name = sorted(known), name[:LONGEST_NAME]
    return RaysearchError(f"unknown {kind} {name!r}{near(name, names)} (known: {', '.join(names)})")


def near(name: str, known: Iterable[str]) -> str:
    """The names that may have been meant, as the end of what is said of one that is not known.

    >>> near("dadaa", ["dada", "ddas"]), near("x", ["dada"])
    (": did you mean 'dada' or 'ddas'?", '')
    """
    found = difflib.get_close_matches(name, sorted(set(known)), n=3, cutoff=0.5)
    return f": did you mean {' or '.join(repr(one) for one in found)}?" if found else ""
