"""Names that look alike: Unicode's forms, and upper and lower case."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable

from raysearch.data._notices import Notices


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


def say_alike(classes: Iterable[str], notices: Notices) -> None:
    """Say which class names differ in nothing but case and spaces."""
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault("".join(name.casefold().split()), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            shown = " and ".join(repr(name) for name in names)
            notices.say(f"the classes {shown} are read as different ones: only case or spaces tell")
