"""Data sets in Parquet files of the common layout (`image: struct<bytes, path>`, `label: int`, or
for multi-label data `label: list<int>`)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysearch.data._names import nfc
from raysearch.data._notices import Notices
from raysearch.data._parquet import ParquetSource
from raysearch.data._parquet_files import find_parts
from raysearch.data._parquet_labels import Labels, is_list, read_labels
from raysearch.data._parquet_rows import open_parquet, reading
from raysearch.data._source import Listing, Part, check_class_names
from raysearch.errors import RaysearchError

_UNLABELLED = "row{{s}} of {} {{are}} set aside, unlabelled: the label is -1"
_EXPECTED = (
    "expected a column `image: struct<bytes: binary, path: string>` and `label: int64` or "
    "list<int64>"
)


def list_parquet(
    root: Path,
    notices: Notices,
    image_column: str | None,
    label_column: str,
    apart: Path | None = None,
) -> Listing:
    """The parts of a data set in Parquet files, and its class names.

    Class names come from the `huggingface` metadata of the training file; without them the labels
    0, 1, ... are the names. A label that is a list holds the classes that an image has, any number.

    Args:
        root: folder of `train.parquet` and so on, see `find_parts`.
        notices: gains what was set aside.
        image_column: name of the image column; None for `image`, or else `img`.
        label_column: name of the label column.
        apart: a file in `root` that is read elsewhere.

    Raises:
        RaysearchError: a file cannot be read, has another layout or no rows, or a label is null or
            out of range.
    """
    parts: dict[str, Part] = {}
    classes: tuple[str, ...] = ()
    multi = with_names = False
    for part, files in find_parts(root, notices, apart).items():
        source, labels, named = _list_part(root, files, image_column, label_column)
        if part == "train":
            classes = tuple(dict.fromkeys(named or _numbered(source, labels)))
            check_class_names(classes, files[0])
            multi, with_names = labels.multi, named is not None
        if labels.multi != multi:
            raise _layout(files[0], f"its column {label_column!r} is of another type than train's")
        names = named if named is not None and with_names else classes
        strange = next((name for name in names if name not in classes), None)
        if strange is not None:
            raise _layout(files[0], f"train has no class {strange!r}")
        labelled = labels.labelled() if named else np.arange(labels.count)
        notices.add(_UNLABELLED.format(part), count=labels.count - len(labelled))
        if len(labelled) == 0 and part == "train":
            raise RaysearchError(f"{files[0]}: no image has a label")
        if len(labelled):
            number = np.array([classes.index(name) for name in names])
            targets = labels.targets(source, number, len(classes), labelled)
            parts[part] = Part(source.subset(labelled), targets)
    return Listing(classes, parts)


def _numbered(source: ParquetSource, found: Labels) -> tuple[str, ...]:
    """Class names where the file has none: the labels, which must be 0, 1, ... without a gap."""
    labels = found.values
    present = np.unique(labels)
    if len(present) == 0:
        raise RaysearchError(f"{source.files[0]}: no image has a label")
    if present[0] != 0 or present[-1] != len(present) - 1:
        wrong = present[present != np.arange(len(present))][0]
        row = int(found.rows[labels == wrong][0])
        raise RaysearchError(
            f"{source.name(row)}: the label {wrong} is out of range; without class names (in the "
            "schema's huggingface metadata) the labels must be 0, 1, 2, ... without a gap"
        )
    return tuple(str(label) for label in present)


def _list_part(
    root: Path, files: list[Path], image_column: str | None, label_column: str
) -> tuple[ParquetSource, Labels, tuple[str, ...] | None]:
    groups: list[tuple[int, int, int, int, int]] = []
    counts: list[int] = []
    labels: list[Labels] = []
    column, names = "", None
    for number, path in enumerate(files):
        with open_parquet(path) as reader, reading(path):
            _check_footer(path, reader.metadata)
            found, label = _columns(path, reader.schema_arrow, image_column, label_column)
            if number and found != column:
                raise _layout(path, f"its image column is {found!r}, {files[0].name}'s {column!r}")
            column = found
            own = _class_names(path, reader.schema_arrow, label)
            if names is not None and own is not None and own != names:
                raise _layout(path, f"its class names are not those of {files[0].name}")
            names = names or own
            before = 0
            for index in range(reader.num_row_groups):
                rows = reader.metadata.row_group(index).num_rows
                size = reader.metadata.row_group(index).total_byte_size
                groups.append((number, index, before, size, rows))
                counts.append(rows)
                before += rows
            labels.append(read_labels(path, reader, label, before))
            if labels[number].multi != labels[0].multi:
                raise _layout(
                    path, f"its column {label_column!r} is of another type than {files[0].name}'s"
                )
    if sum(counts) == 0:
        raise RaysearchError(f"{files[0]} has no rows")
    source = ParquetSource(
        str(root),
        tuple(str(path) for path in files),
        column,
        np.array(groups, dtype=np.int64),
        np.repeat(np.arange(len(counts)), counts),
        np.concatenate([np.arange(count) for count in counts]),
    )
    return source, Labels.join(labels), names


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


def _columns(
    path: Path, schema: pa.Schema, given_image: str | None, given_label: str
) -> tuple[str, str]:
    """The names of the image column and of the labels', once they are of the expected types."""
    names = {nfc(name): name for name in schema.names}
    candidates = [given_image] if given_image is not None else ["image", "img"]
    column = next((names[nfc(name)] for name in candidates if nfc(name) in names), None)
    label = names.get(nfc(given_label))
    if column is None or label is None:
        wanted = "data.image_column" if column is None else "data.label_column"
        found = ", ".join(f"{field.name}: {field.type}" for field in schema) or "no columns"
        raise _layout(path, f"it has {found}; if a column has another name give {wanted}")
    kind = schema.field(column).type
    fields = {field.name: field.type for field in kind} if pa.types.is_struct(kind) else {}
    data = fields.get("bytes")
    if data is None or not (pa.types.is_binary(data) or pa.types.is_large_binary(data)):
        raise _layout(path, f"its column {column!r} is {kind}")
    kind = schema.field(label).type
    if not pa.types.is_integer(kind.value_type if is_list(kind) else kind):
        raise _layout(path, f"its column {label!r} is {schema.field(label).type}")
    return column, label


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
