"""Settings that were given: KEY=VALUE as it was typed, or a key and a Python object.

What a setting is declared to be decides how it is read. Text is taken as it was typed, whatever
it looks like; numbers, lists and the like are written as Hydra writes them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from raysearch.errors import RaysearchError
from raysearch.experiment._declared import has_null, is_path, is_text, is_text_list

# One text of a list: in quotes, which may enclose commas, or all up to the next comma.
_ONE = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)"|([^,]*?))\s*(?:,|$)""")


@dataclass(frozen=True)
class Override:
    """A setting that was given.

    Attributes:
        key: its full name, such as `search.epochs`.
        value: what was typed, or a plain value: a number, text, truth value, None or a list.
        typed: which of these.
    """

    key: str
    value: Any
    typed: bool = False

    @classmethod
    def of(cls, line: str) -> Override:
        """KEY=VALUE; raises RaysearchError for anything else."""
        key, equals, value = line.partition("=")
        if not key or not equals:
            hint = "expected KEY=VALUE, for example search.epochs=5"
            raise RaysearchError(f"cannot read {line!r}: {hint}")
        return cls(key, value, typed=True)

    @property
    def group(self) -> str:
        """The first part of its name."""
        return self.key.partition(".")[0]

    def __str__(self) -> str:
        """As it was typed, or would be."""
        return f"{self.key}={self.value}"

    def read(self, declared: Any) -> Any:
        """The value; `~` at the beginning of a path is the home directory.

        Args:
            declared: the type of the setting.

        Raises:
            RaysearchError: it cannot be read.
        """
        value = self._typed(declared) if self.typed else self.value
        return _expanded(value) if is_path(declared) else value

    def _typed(self, declared: Any) -> Any:
        text = str(self.value)
        if is_text(declared):
            return None if text == "null" and has_null(declared) else text
        if is_text_list(declared) and text.startswith("[") and text.endswith("]"):
            return _texts(text[1:-1])
        try:
            found = OverridesParser.create().parse_override(f"value={text}")
            if found.is_sweep_override():
                raise RaysearchError(f"{self}: one value per run; a list is written [a,b]")
            return found.value()
        except (HydraException, ValueError, RecursionError) as error:
            expected = "a number, a word, true, false, null, or a list of them such as [0,1]"
            raise RaysearchError(f"cannot read {str(self)!r}: expected {expected}") from error


def as_override(given: str | Override) -> Override:
    """What was given as `Override.of` reads it, where it was typed."""
    return Override.of(given) if isinstance(given, str) else given


def overrides_of(settings: Mapping[str, Any], path: str = "") -> Iterator[Override]:
    """Settings as nested dictionaries, or by dotted names; NumPy's and PyTorch's numbers, too.

    Raises:
        RaysearchError: a value is none that a setting may have.

    >>> [str(one) for one in overrides_of({"search": {"epochs": 5}, "evaluation.seeds": [0, 1]})]
    ['search.epochs=5', 'evaluation.seeds=[0, 1]']
    """
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from overrides_of(value, f"{path}{key}.")
        else:
            yield Override(f"{path}{key}", _plain(f"{path}{key}", value))


def _texts(text: str) -> list[str]:
    """The texts between a list's brackets, without the spaces around them."""
    found: list[str] = []
    place = 0
    while text.strip() and place <= len(text):
        one = _ONE.match(text, place)
        assert one is not None  # it matches what is empty, too
        found.append(next(group for group in one.groups() if group is not None))
        place = one.end() if one.end() > place and text[one.end() - 1] == "," else len(text) + 1
    return found


def _plain(key: str, value: Any) -> Any:
    """A Python value as it stands in a configuration."""
    if hasattr(value, "tolist"):  # NumPy's and PyTorch's
        value = value.tolist()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return "".join(value)  # of an enumeration's member, too
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple | range):
        return [_plain(key, each) for each in value]
    raise RaysearchError(f"{key}={value!r}: expected a number, a word, or a list of them")


def _expanded(value: Any) -> Any:
    if isinstance(value, list):
        return [_expanded(each) for each in value]
    return os.path.expanduser(value) if isinstance(value, str) else value
