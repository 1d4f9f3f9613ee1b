"""Python values as overrides of settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

from raysearch.errors import RaysearchError

PLAIN = re.compile(r"[A-Za-z_][\w.-]*")
SPECIAL = ("null", "true", "false", "nan", "inf")  # words that are no words to Hydra


def overrides_of(settings: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Settings as nested dictionaries, or by dotted names, as Hydra's overrides.

    Raises:
        RaysearchError: a value that no setting can have.

    >>> list(overrides_of({"search": {"epochs": 5}, "evaluation.seeds": [0, 1], "name": "mine"}))
    ['search.epochs=5', 'evaluation.seeds=[0,1]', 'name=mine']
    """
    for key, value in settings.items():
        where = f"{path}{key}"
        if isinstance(value, Mapping):
            yield from overrides_of(value, f"{where}.")
        else:
            yield f"{where}={_written(where, value)}"


def _written(key: str, value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str):
        if PLAIN.fullmatch(value) and value.lower() not in SPECIAL:
            return value
        return QuotedString(value, Quote.single).with_quotes()
    if isinstance(value, list | tuple | range):
        return f"[{','.join(_written(key, each) for each in value)}]"
    raise RaysearchError(f"{key}={value!r}: expected a number, a word, or a list of them")
