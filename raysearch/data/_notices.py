"""What a person should know of how a data set was read: what was set aside and what is odd."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

SKIPPED = "file{s} or row{s} {were} skipped, they are no readable images"
_SHOWN = 3  # names of a remark
_SINGULAR = {"{s}": "", "{es}": "", "{are}": "is", "{were}": "was", "{them}": "it"}
_PLURAL = {"{s}": "s", "{es}": "es", "{are}": "are", "{were}": "were", "{them}": "them"}


@dataclass
class _Remark:
    count: int = 0
    names: list[str] = field(default_factory=list)


class Notices:
    """Remarks on a data set, each said once: a count, what it counts, and the first names.

    Listing, decoding and splitting add to one object, from any thread. A process of its own
    collects in its own object, for `merge`. The lines stand in `Dataset.notes`; a run's first lines
    and `--dry-run` print them.

        notices.add("file{s} of systems and editors {are} passed over", "a/Thumbs.db")
        notices.say("test is split off train")
        notices.lines  # ("1 file of systems and editors is passed over: a/Thumbs.db", ...)
    """

    def __init__(self) -> None:
        self._remarks: dict[str, _Remark] = {}
        self._lock = threading.Lock()

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
        if not more:
            return
        with self._lock:
            remark = self._remarks.setdefault(what, _Remark())
            remark.count += more
            remark.names += known[: _SHOWN - len(remark.names)]

    def say(self, sentence: str) -> None:
        """Say something that counts nothing; the same sentence once."""
        with self._lock:
            self._remarks.setdefault(sentence, _Remark())

    def count(self, what: str) -> int:
        """How many of `what` there are, in the words of `add`."""
        return self._remarks[what].count if what in self._remarks else 0

    def merge(self, other: Notices) -> None:
        """Add what another process or part has collected."""
        for what, remark in other._remarks.items():
            if remark.count:
                self.add(what, remark.names, remark.count)
            else:
                self.say(what)

    @property
    def lines(self) -> tuple[str, ...]:
        """All remarks in the order in which they came, a line each."""
        return tuple(_line(what, remark) for what, remark in self._remarks.items())

    def __getstate__(self) -> dict[str, Any]:
        return {"_remarks": self._remarks}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]  # a lock cannot be pickled
        self._remarks = state["_remarks"]


def _line(what: str, remark: _Remark) -> str:
    if not remark.count:
        return what
    number = _PLURAL if remark.count > 1 else _SINGULAR
    for mark, ending in number.items():
        what = what.replace(mark, ending)
    line = f"{remark.count:,} {what}"
    if remark.names:
        more = ", ..." if remark.count > len(remark.names) else ""
        line += f": {', '.join(remark.names)}{more}"
    return line
