"""Data sets in Parquet files of the common layout: `image: struct<bytes, path>`, or either alone,
and `label: int` or its class's name, for multi-label data a list of these."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysearch.data._names import check_class_names, like, nfc
from raysearch.data._notices import Notices
from raysearch.data._parquet import ParquetSource, is_binary, open_parquet, reading
from raysearch.data._parquet_files import find_parts
from raysearch.data._settings import DataSettings
from raysearch.data._source import Listing, Part, check_labels
from raysearch.data._split import Index, Targets
from raysearch.errors import RaysearchError

_UNLABELLED = "row{{s}} of {} {{are}} set aside, unlabelled: the label is -1 or null"
_EXPECTED = (
    "expected a column `image`: struct<bytes: binary, path: string>, binary or string (a path), "
    "and `label`: int64, string or a list of these"
)


class _Kind(NamedTuple):
    """Of what type a label is."""

    many: bool  # a list
    text: bool  # the class's name, and not its number


def list_parquet(settings: DataSettings, notices: Notices) -> Listing:
    """The parts of a data set in Parquet files, and its class names.

    Labels are names of classes, or numbers; then the names come from the `huggingface` metadata of
    the training file, and without them the labels 0, 1, ... are the names. A label that is a list
    holds the classes that an image has, any number.

    Args:
        settings: of the data: its folder, see `find_parts`, and the names of its columns.
        notices: gains what was set aside.

    Raises:
        RaysearchError: a file cannot be read or has another layout, train has no labelled row, or a
            label is out of range.
    """
    parts: dict[str, Part] = {}
    classes: tuple[str, ...] = ()
    of_train = with_names = None
    for part, files in find_parts(settings, notices).items():
        source, kind, named = _open_part(files, settings)
        labels = source.column_values(settings.label_column) or []
        # The Hub says -1 where there is no label. Without names it might be a class in train.
        unlabelled = (None,) if named is None and part == "train" else (None, -1)
        there = np.array([label not in unlabelled for label in labels], dtype=bool)
        notices.add(_UNLABELLED.format(part), count=int((~there).sum()))
        if not there.any():
            if part == "train":
                raise RaysearchError(f"{files[0]} has no row with a label")
            notices.say(f"{part} has no row with a label and is not read")
            continue
        source = source.subset(np.flatnonzero(there))
        rows, values, names = _numbers(source, [*itertools.compress(labels, there)], kind)
        named = names or named
        if part == "train":
            classes = tuple(dict.fromkeys(named or _numbered(source, rows, values)))
            check_class_names(classes, files[0])
            of_train, with_names = kind, named is not None
        if kind != of_train:
            raise _layout(
                files[0], f"its column {settings.label_column!r} is of another type than train's"
            )
        names = named if named is not None and with_names else classes
        for name in names:
            if name not in classes:
                near = like(name, classes)
                raise RaysearchError(f"{files[0]}: there is no class {name!r} in train{near}")
        number = np.array([classes.index(name) for name in names])
        check_labels(values, len(number), source, rows)
        targets: Targets = number[values]
        if kind.many:
            targets = np.zeros((len(source), len(classes)), np.float32)
            targets[rows, number[values]] = 1
        parts[part] = Part(source, targets)
    return Listing(classes, parts)


def _numbers(
    source: ParquetSource, labels: list[Any], kind: _Kind
) -> tuple[Index, Index, tuple[str, ...] | None]:
    """All labels as numbers, int64 [V], for each the image that has it, and names of text.

    Raises:
        RaysearchError: one in a list is null, or one is beyond 64 bits.
    """
    rows = np.arange(len(labels))
    if kind.many:
        rows = np.repeat(rows, [len(each) for each in labels])
        labels = [label for each in labels for label in each]
    if None in labels:
        raise RaysearchError(f"{source.name(int(rows[labels.index(None)]))}: a label is null")
    names = None
    if kind.text:
        texts = [nfc(str(label)) for label in labels]
        names = tuple(sorted(set(texts)))
        number = {name: place for place, name in enumerate(names)}
        labels = [number[text] for text in texts]
    try:
        return rows, np.array(labels, dtype=np.int64), names
    except OverflowError as error:
        raise RaysearchError(f"{source.files[0]}: a label is beyond 64 bits") from error


def _numbered(source: ParquetSource, rows: Index, labels: Index) -> tuple[str, ...]:
    """Class names where the file has none: the labels, which must be 0, 1, ... without a gap."""
    present = np.unique(labels)
    if len(present) == 0:
        raise RaysearchError(f"{source.files[0]}: no image has a label")
    if present[0] != 0 or present[-1] != len(present) - 1:
        wrong = present[present != np.arange(len(present))][0]
        row = int(rows[labels == wrong][0])
        unlabelled = "; if -1 means unlabelled, make it null" if wrong == -1 else ""
        raise RaysearchError(
            f"{source.name(row)}: the label {wrong} is out of range; without class names (in the "
            "schema's huggingface metadata) the labels must be 0, 1, 2, ... without a gap"
            f"{unlabelled}"
        )
    return tuple(str(label) for label in present)


def _open_part(
    files: list[Path], settings: DataSettings
) -> tuple[ParquetSource, _Kind, tuple[str, ...] | None]:
    """The rows of some files, of what kind a row's label is, and the class names they tell."""
    groups: list[tuple[int, int, int, int, int]] = []
    column, kind, names = "", _Kind(False, False), None
    for number, path in enumerate(files):
        with open_parquet(path) as reader, reading(path):
            _check_footer(path, reader.metadata)
            found, label, own_kind = _columns(path, reader.schema_arrow, settings)
            if number and found != column:
                raise _layout(path, f"its image column is {found!r}, {files[0].name}'s {column!r}")
            if number and own_kind != kind:
                raise _layout(
                    path, f"its column {label!r} is of another type than {files[0].name}'s"
                )
            column, kind = found, own_kind
            own = _class_names(path, reader.schema_arrow, label)
            if names is not None and own is not None and own != names:
                raise _layout(path, f"its class names are not those of {files[0].name}")
            names = names or own
            before = 0
            for index in range(reader.num_row_groups):
                group = reader.metadata.row_group(index)
                groups.append((number, index, before, group.total_byte_size, group.num_rows))
                before += group.num_rows
    table = np.array(groups, dtype=np.int64).reshape(-1, 5)
    counts = table[:, 4]
    source = ParquetSource(
        str(settings.folder()),
        tuple(str(path) for path in files),
        column,
        table,
        np.repeat(np.arange(len(counts)), counts),
        np.concatenate([np.arange(count) for count in (0, *counts)]),
    )
    return source, kind, names


def _check_footer(path: Path, footer: pq.FileMetaData) -> None:
    """That what the footer counts can be, before anything of such a size is allocated."""
    groups = [footer.row_group(index) for index in range(footer.num_row_groups)]
    rows = [group.num_rows for group in groups]
    size = path.stat().st_size
    most = 8 * size  # an image, or its path, takes more than a bit
    if min(rows, default=0) < 0 or sum(rows) != footer.num_rows or sum(rows) > most:
        raise RaysearchError(
            f"{path} is not a readable Parquet file: its footer counts {footer.num_rows} rows, "
            f"{sum(rows)} in its row groups, in {size} bytes"
        )
    wrong = min((group.total_byte_size for group in groups), default=0)
    if wrong < 0:
        raise RaysearchError(
            f"{path} is not a readable Parquet file: its footer has a row group of {wrong} bytes"
        )


def _columns(path: Path, schema: pa.Schema, settings: DataSettings) -> tuple[str, str, _Kind]:
    """The image column, the label column, both of the expected types; the kind of the labels."""
    names = {nfc(name): name for name in schema.names}
    column = _image_column(schema, settings.image_column)
    label = names.get(nfc(settings.label_column))
    if column is None or label is None:
        wanted = "data.image_column" if column is None else "data.label_column"
        found = ", ".join(f"{field.name}: {field.type}" for field in schema) or "no columns"
        raise _layout(path, f"it has {found}; if a column has another name give {wanted}")
    kind = schema.field(column).type
    if not (_holds_images(kind) or _is_text(kind)):
        raise _layout(path, f"its column {column!r} is {kind}")
    kind = schema.field(label).type
    many = bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))
    own = kind.value_type if many else kind
    own = own.value_type if pa.types.is_dictionary(own) else own
    text = _is_text(own) or pa.types.is_boolean(own)
    if not (text or pa.types.is_integer(own)):
        raise _layout(path, f"its column {label!r} is {kind}")
    return column, label, _Kind(many, text)


def _image_column(schema: pa.Schema, given: str | None) -> str | None:
    """The column that is asked for, or has a usual name, or is the only one that holds images."""
    names: dict[str, str] = {nfc(name): name for name in schema.names}
    candidates = [given] if given is not None else ["image", "img", "file_name"]
    for name in candidates:
        if nfc(name) in names:
            return names[nfc(name)]
    holding = [name for name in names.values() if _holds_images(schema.field(name).type)]
    return holding[0] if given is None and len(holding) == 1 else None


def _holds_images(kind: pa.DataType) -> bool:
    fields = {field.name: field.type for field in kind} if pa.types.is_struct(kind) else {}
    return is_binary(fields.get("bytes", kind))


def _is_text(kind: pa.DataType) -> bool:
    own = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(own) for test in tests)


def _layout(path: Path, found: str) -> RaysearchError:
    return RaysearchError(f"{path} has another layout: {found} ({_EXPECTED})")


def _class_names(path: Path, schema: pa.Schema, label: str) -> tuple[str, ...] | None:
    raw = (schema.metadata or {}).get(b"huggingface")
    if raw is None:
        return None
    try:
        feature = json.loads(raw)["info"]["features"][label]
        if isinstance(feature, list):  # of a list of classes, as is a "Sequence" or a "List"
            feature = feature[0]
        names = feature.get("feature", feature).get("names")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        names = None  # metadata about something else
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _layout(path, "the class names in its huggingface metadata are not a list of strings")
    return tuple(nfc(name) for name in names)
