"""What a person should know of how a data set was read: what was set aside and what is odd."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

SKIPPED = "file{s} or row{s} {were} skipped, they are no readable images"
_SHOWN = 3  # names of what is counted, at most
_ROOM = 90  # characters that they take together, unless it is one
_SINGULAR = {"{s}": "", "{es}": "", "{are}": "is", "{were}": "was", "{them}": "it"}
_PLURAL = {"{s}": "s", "{es}": "es", "{are}": "are", "{were}": "were", "{them}": "them"}


class Notices:
    """Remarks on a data set, each said once: a count, what it counts, and the first names.

    Listing, decoding and splitting add to one object. The lines stand in `Dataset.notes`; a run's
    first lines and `--dry-run` print them.

        notices.add("file{s} of systems and editors {are} passed over", "a/Thumbs.db")
        notices.say("test is split off train")
        notices.lines  # ("1 file of systems and editors is passed over: a/Thumbs.db", ...)

    Args:
        root: the data set's folder, which is left out of the names.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._root = "" if root is None else f"{root}{os.sep}"
        self._found: dict[str, tuple[int, list[str]]] = {}  # how many, and the first names

    def add(self, what: str, names: str | Iterable[str] = (), count: int | None = None) -> None:
        """Count something.

        Args:
            what: what is counted and what becomes of it, as it follows the number; the same words
                add up. Words in braces, as `{s}` and `{are}`, follow the number.
            names: of what is counted: a file, a row, a class. The first few are shown.
            count: how many there are; None: one for each name.
        """
        known = [names] if isinstance(names, str) else list(names)
        more = len(known) if count is None else count
        if more:
            before, shown = self._found.get(what, (0, []))
            short = [name.replace(self._root, "") for name in known[: _SHOWN - len(shown)]]
            self._found[what] = before + more, shown + short

    def say(self, sentence: str) -> None:
        """Say something that counts nothing; the same sentence once."""
        self._found.setdefault(sentence, (0, []))

    def count(self, what: str) -> int:
        """How many of `what` there are, in the words of `add`."""
        return self._found[what][0] if what in self._found else 0

    @property
    def lines(self) -> tuple[str, ...]:
        """All remarks in the order in which they came, a line each."""
        return tuple(_line(what, count, names) for what, (count, names) in self._found.items())


def _line(what: str, count: int, names: list[str]) -> str:
    if not count:
        return what
    for mark, ending in (_PLURAL if count > 1 else _SINGULAR).items():
        what = what.replace(mark, ending)
    shown = names[:1]
    while len(shown) < len(names) and sum(map(len, names[: len(shown) + 1])) <= _ROOM:
        shown = names[: len(shown) + 1]
    more = ", ..." if count > len(shown) else ""
    return f"{count:,} {what}" + (f": {', '.join(shown)}{more}" if shown else "")
