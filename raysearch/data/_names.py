"""Names of classes and files: Unicode's forms, upper and lower case, and what is no text."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence

from raysearch.data._notices import Notices
from raysearch.errors import RaysearchError

_IN_WORDS = re.compile(r"(?<=[^\W\d_])[-_](?=[^\W\d_])")
LONGEST_NAME = 255  # characters of a class name: what file systems allow


def nfc(name: str) -> str:
    """The name in Unicode's form NFC; an accent is then one character, however it was typed."""
    return unicodedata.normalize("NFC", name)


class OnDisk:
    """Finds files whose names are written in another of Unicode's forms than on the disk."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, str]] = {}  # of each folder, in NFC and as they are

    def find(self, path: str) -> str:
        """The path as it is on the disk; as it was given where there is no such file."""
        if os.path.lexists(path):
            return path
        folder, name = os.path.split(path)
        if not name:
            return path
        folder = self.find(folder)
        if folder not in self._names:
            try:
                self._names[folder] = {nfc(one): one for one in os.listdir(folder or ".")}
            except (OSError, ValueError):
                self._names[folder] = {}
        found = self._names[folder].get(nfc(name))
        return path if found is None else os.path.join(folder, found)


def _look(name: str) -> str:
    """What of a name is seen at a glance: no case, spaces, invisible signs, hyphens in words."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    seen = "".join(c for c in plain if unicodedata.category(c) not in ("Cf", "Zs"))
    return _IN_WORDS.sub("", seen)


def like(name: str, classes: Iterable[str]) -> str:
    """What an error on a class that is unknown adds, where another looks like it."""
    alike = next((one for one in classes if _look(one) == _look(name)), None)
    return "" if alike is None else f", but there is {alike!r}"


def say_alike(classes: Iterable[str], notices: Notices) -> None:
    """Say which class names are told apart by case, spaces or signs that are not seen."""
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(_look(name), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            shown = " and ".join(repr(name) for name in names)
            notices.say(f"the classes {shown} are read as different ones, though they look alike")


def check_class_names(names: Sequence[str], where: object) -> None:
    """Class names go to files, to MLflow and onto a terminal, so that they must be text.

    They are never part of a path, so that `../x` is a name like others.

    Raises:
        RaysearchError: one holds a control character or is not valid Unicode, or is too long;
            `where` is where they stand.
    """
    for name in names:
        if len(name) > LONGEST_NAME:
            raise RaysearchError(
                f"{where}: the class name {name[:40]!r}... has {len(name)} characters, more than "
                f"{LONGEST_NAME}"
            )
        wrong = [c for c in name if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
        if wrong:
            raise RaysearchError(
                f"{where}: the class name {name!r} holds {wrong[0]!r}, which is no text: rename it"
            )
