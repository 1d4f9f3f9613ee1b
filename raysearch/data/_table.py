"""Tables of text beside images: CSV files as programs write them, JSON lines and Parquet."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raysearch.data._notices import Notices
from raysearch.data._parquet import open_parquet, reading
from raysearch.errors import RaysearchError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
_SEPARATORS = ",;\t"
Rows = dict[int, list[str]]  # by the numbers of their lines


def read_table(path: Path, notices: Notices) -> Rows:
    """The header, then the rows, of a file with one of `SUFFIXES`; all cells as text.

    Of JSON lines and Parquet, a null is empty, and what a list holds stands with `|` between.

    Raises:
        RaysearchError: it cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        with open_parquet(path) as reader, reading(path):
            return _of_records(enumerate(reader.read(use_threads=False).to_pylist(), 1))
    if suffix != ".jsonl":
        return read_csv(path, path, notices)
    with readable(path):
        lines = enumerate(path.read_text("utf-8-sig").split("\n"), 1)
        records = {line: json.loads(text) for line, text in lines if text.strip()}
    for line, record in records.items():
        if not isinstance(record, dict):
            raise RaysearchError(f"{path}, line {line}: expected an object {{...}}")
    return _of_records(records.items())


def read_csv(path: Path, where: object, notices: Notices) -> Rows:
    """The lines of a CSV file that are not empty.

    The separator is a comma, a semicolon or a tab, as the first line tells. Text is UTF-8, UTF-16
    with a byte order mark, or else Windows-1252, of which Latin-1 is a part.

    Args:
        path: the file.
        where: how it is called in an error.
        notices: gains that it is not in UTF-8.

    Raises:
        RaysearchError: it cannot be read.
    """
    with readable(where):
        content = path.read_bytes()
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        try:
            text = content.decode("utf-16" if wide else "utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("cp1252")
            notices.say(f"{path.name} is not in UTF-8, and read as Windows-1252 (Latin-1)")
        if "\0" in text:
            raise csv.Error("it holds the character NUL")
        first = re.split(r"[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0]
        lines = io.StringIO(text, newline="")
        reader = csv.reader(lines, delimiter=_separator(first), skipinitialspace=True, strict=True)
        rows = ((reader.line_num, [cell.strip() for cell in row]) for row in reader)
        return {line: row for line, row in rows if any(row)}


def _separator(first: str) -> str:
    try:
        return csv.Sniffer().sniff(first, _SEPARATORS).delimiter
    except csv.Error:  # there is but one column
        return ","


def _of_records(records: Any) -> Rows:
    """Rows, with the header first, of mappings by the numbers of their lines."""
    known = dict(records)
    header = list(dict.fromkeys(name for record in known.values() for name in record))
    rows = {line: [_text(record.get(name)) for name in header] for line, record in known.items()}
    return {0: header} | rows


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "|".join(map(_text, value))
    return "" if value is None else str(value).strip()


@contextmanager
def readable(where: object) -> Iterator[None]:
    """Says which file or folder it is that cannot be read."""
    try:
        yield
    except OSError as error:
        raise RaysearchError(f"{where}: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise RaysearchError(f"{where} has a line that is no JSON: {error}") from error
    except (csv.Error, UnicodeDecodeError, RecursionError) as error:
        raise RaysearchError(
            f"{where} is no table in UTF-8, UTF-16 or Windows-1252: {error}"
        ) from error
