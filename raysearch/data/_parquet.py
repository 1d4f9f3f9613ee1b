"""Images in Parquet files of the common layout (`image: struct<bytes, path>`, `label: int`)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from raysearch.data._decode import Payload
from raysearch.data._source import Index, Listing, Part, Source, check_class_names
from raysearch.errors import RaysearchError
from raysearch.files import check_regular

WINDOW_BYTES = 1 << 29
_GROUP_SAMPLE = 16
_EXPECTED = "expected a column `image: struct<bytes: binary, path: string>` and `label: int64`"


@dataclass(frozen=True)
class ParquetSource(Source):
    """Rows of Parquet files.

    Parquet is read by row groups, so that a shuffled pass goes through the row groups in random
    order and shuffles the rows of as many neighbours in that order as hold `WINDOW_BYTES`: a
    uniform permutation for data smaller than that, and a shuffle within windows for larger ones.

    Args:
        root: the data set's folder; images given by path lie below it.
        files: paths of the Parquet files.
        column: name of the image column.
        groups: int64 [G, 4]: for each row group its file's index, its number there, the rows
            before it in the file, its uncompressed bytes.
        group: for each image its row group, as an index into `groups`.
        row: for each image its row within the row group.
    """

    root: str
    files: tuple[str, ...]
    column: str
    groups: Index
    group: Index
    row: Index

    def __len__(self) -> int:
        return len(self.group)

    def name(self, index: int) -> str:
        file, _, before, _ = self.groups[self.group[index]]
        return f"{self.files[file]}, row {before + self.row[index]}"

    def windows(self, generator: torch.Generator | None) -> Iterator[Index]:
        by_group = np.argsort(self.group, kind="stable")
        present, starts = np.unique(self.group[by_group], return_index=True)
        members = np.split(by_group, starts[1:])
        if generator is None:
            if np.any(np.diff(self.group) < 0):  # joined or permuted: keep the given order
                cuts = np.flatnonzero(np.diff(self.group)) + 1
                members = np.split(np.arange(len(self)), cuts)
                present = self.group[np.concatenate(([0], cuts))] if len(self) else present
            order = np.arange(len(present))
        else:
            order = torch.randperm(len(present), generator=generator).numpy()
        window: list[Index] = []
        held = 0
        for number in order:
            size = int(self.groups[present[number], 3])
            if window and held + size > WINDOW_BYTES:
                yield _shuffled(np.concatenate(window), generator)
                window, held = [], 0
            window.append(members[number])
            held += size
        if window:
            yield _shuffled(np.concatenate(window), generator)

    def fetch(self, indices: Index) -> list[Payload | None]:
        payloads: list[Payload | None] = [None] * len(indices)
        wanted = self.group[indices]
        opened: dict[int, pq.ParquetFile] = {}
        try:
            for group in np.unique(wanted):
                file, number, _, _ = (int(value) for value in self.groups[group])
                if file not in opened:
                    opened[file] = open_parquet(Path(self.files[file]))
                places = np.flatnonzero(wanted == group)
                rows = self.row[indices[places]]
                table = _read_rows(self.files[file], opened[file], number, self.column, rows)
                for place, value in zip(places, table, strict=True):
                    payloads[place] = self._payload(value)
        finally:
            for reader in opened.values():
                reader.close()
        return payloads

    def _payload(self, value: dict[str, Any] | None) -> Payload | None:
        if value is None:
            return None
        if value["bytes"] is not None:
            return bytes(value["bytes"])
        if value.get("path") is None:
            return None
        root = Path(self.root).resolve()
        try:
            path = (root / value["path"]).resolve()
        except (OSError, RuntimeError, ValueError) as error:  # e.g. a circle of links
            raise RaysearchError(
                f"{self.root}: the image path {value['path'][:200]!r} cannot be followed: {error}"
            ) from error
        if not path.is_relative_to(root):
            raise RaysearchError(
                f"{self.root}: the image path {value['path'][:200]!r} leads out of this folder"
            )
        return str(path)

    def subset(self, indices: Index) -> ParquetSource:
        return ParquetSource(
            self.root, self.files, self.column, self.groups, self.group[indices], self.row[indices]
        )

    def join(self, other: ParquetSource) -> ParquetSource:
        groups = other.groups.copy()
        groups[:, 0] += len(self.files)
        return ParquetSource(
            self.root,
            self.files + other.files,
            self.column,
            np.concatenate((self.groups, groups)),
            np.concatenate((self.group, other.group + len(self.groups))),
            np.concatenate((self.row, other.row)),
        )

    def sample(self, size: int) -> Index:
        present = np.unique(self.group)
        some = present[:: max(1, -(-len(present) // _GROUP_SAMPLE))]
        near = np.flatnonzero(np.isin(self.group, some))
        return near[:: max(1, -(-len(near) // size))]


def _shuffled(indices: Index, generator: torch.Generator | None) -> Index:
    if generator is None:
        return indices
    shuffled: Index = indices[torch.randperm(len(indices), generator=generator).numpy()]
    return shuffled


def _read_rows(
    file: str, reader: pq.ParquetFile, number: int, column: str, rows: Index
) -> list[dict[str, Any] | None]:
    with _reading(Path(file)):
        table = reader.read_row_group(number, columns=[column], use_threads=False)
        return list(table.column(column).take(pa.array(rows)).to_pylist())


def open_parquet(path: Path) -> pq.ParquetFile:
    """The file, its footer read.

    Raises:
        RaysearchError: it is no Parquet file, is damaged, or cannot be read.
    """
    with _reading(path):
        check_regular(path)
        return pq.ParquetFile(path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Says which Parquet file it is that cannot be read."""
    try:
        yield
    except RaysearchError:
        raise
    except Exception as error:  # Arrow raises nearly anything on broken files
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise RaysearchError(f"{path} is not a readable Parquet file: {reason}") from error


def find_parts(root: Path) -> dict[str, list[Path]]:
    """The files of train, val and test: `train.parquet`, or its shards `train-*.parquet`.

    Raises:
        RaysearchError: the folder is missing or has no training file, shards are missing
            (`-00000-of-00002` without its other half), or there is a file and shards of a part.
    """
    if not root.is_dir():
        raise RaysearchError(f"data.root={root}: there is no such folder")
    parts: dict[str, list[Path]] = {}
    for part in ("train", "val", "test"):
        whole = root / f"{part}.parquet"
        shards = sorted(root.glob(f"{part}-*.parquet"))
        if whole.exists() and shards:
            raise RaysearchError(f"{root} has both {whole.name} and {shards[0].name}: keep one")
        if shards:
            _check_shards(shards)
        if whole.exists() or shards:
            parts[part] = shards or [whole]
    if "train" not in parts:
        others = sorted(path.name for path in root.glob("*.parquet"))
        found = f"found {', '.join(others[:3])}" if others else "found no Parquet file"
        raise RaysearchError(
            f"data.root={root}: expected train.parquet or train-*.parquet (and, where there is "
            f"one, test and val likewise), {found}"
        )
    return parts


def _check_shards(shards: list[Path]) -> None:
    found: dict[int, set[int]] = {}
    for shard in shards:
        match = re.search(r"-(\d+)-of-(\d+)\.parquet$", shard.name)
        if match:
            found.setdefault(int(match[2]), set()).add(int(match[1]))
    for total, numbers in found.items():
        missing = next((number for number in range(total) if number not in numbers), None)
        if missing is not None:
            raise RaysearchError(
                f"{shards[0].parent}: of the {total} shards like {shards[0].name}, "
                f"number {missing} is missing"
            )


def list_parquet(root: Path, image_column: str | None, label_column: str) -> Listing:
    """The parts of a data set in Parquet files, and its class names.

    Class names come from the `huggingface` metadata of the training file; without them the labels
    0, 1, ... are the names.

    Args:
        root: folder of `train.parquet` and so on.
        image_column: name of the image column; None for `image`, or else `img`.
        label_column: name of the label column.

    Raises:
        RaysearchError: a file cannot be read, has another layout or no rows, or a label is null or
            out of range.
    """
    parts: dict[str, Part] = {}
    classes: tuple[str, ...] | None = None
    for part, files in find_parts(root).items():
        source, labels, named = _list_part(root, files, image_column, label_column)
        if part == "train":
            classes = named or _numbered(source, labels)
            check_class_names(classes, files[0])
        assert classes is not None
        wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
        if len(wrong):
            raise RaysearchError(
                f"{source.name(int(wrong[0]))}: the label {labels[wrong[0]]} is out of range, the "
                f"{len(classes)} classes have labels 0 to {len(classes) - 1}"
            )
        parts[part] = Part(source, labels)
    assert classes is not None
    return Listing(classes, parts)


def _numbered(source: ParquetSource, labels: Index) -> tuple[str, ...]:
    """Class names where the file has none: the labels, which must be 0, 1, ... without a gap."""
    present = np.unique(labels)
    if present[0] != 0 or present[-1] != len(present) - 1:
        wrong = present[present != np.arange(len(present))][0]
        row = int(np.flatnonzero(labels == wrong)[0])
        raise RaysearchError(
            f"{source.name(row)}: the label {wrong} is out of range; without class names (in the "
            "schema's huggingface metadata) the labels must be 0, 1, 2, ... without a gap"
        )
    return tuple(str(label) for label in present)


def _list_part(
    root: Path, files: list[Path], image_column: str | None, label_column: str
) -> tuple[ParquetSource, Index, tuple[str, ...] | None]:
    groups: list[tuple[int, int, int, int]] = []
    counts: list[int] = []
    labels: list[npt.NDArray[np.int64]] = []
    column, names = "", None
    for number, path in enumerate(files):
        with open_parquet(path) as reader, _reading(path):
            _check_footer(path, reader.metadata)
            found = _image_column(path, reader.schema_arrow, image_column, label_column)
            if number and found != column:
                raise _layout(path, f"its image column is {found!r}, {files[0].name}'s {column!r}")
            column = found
            names = names or _class_names(path, reader.schema_arrow, label_column)
            before = 0
            for index in range(reader.num_row_groups):
                rows = reader.metadata.row_group(index).num_rows
                size = reader.metadata.row_group(index).total_byte_size
                groups.append((number, index, before, size))
                counts.append(rows)
                before += rows
            labels.append(_read_labels(path, reader, label_column, before))
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
    return source, np.concatenate(labels), names


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


def _read_labels(
    path: Path, reader: pq.ParquetFile, column: str, rows: int
) -> npt.NDArray[np.int64]:
    labels = reader.read(columns=[column], use_threads=False).column(column).cast(pa.int64())
    if len(labels) != rows:
        raise RaysearchError(
            f"{path} is not a readable Parquet file: its footer counts {rows} rows, it has "
            f"{len(labels)} labels"
        )
    if labels.null_count:
        row = labels.is_null().to_pylist().index(True)
        raise RaysearchError(f"{path}, row {row}: the label is null")
    return np.asarray(labels.to_numpy(), dtype=np.int64)


def _image_column(path: Path, schema: pa.Schema, image: str | None, label: str) -> str:
    """The name of the image column, once both columns are of the expected types."""
    candidates = [image] if image is not None else ["image", "img"]
    column = next((name for name in candidates if name in schema.names), None)
    if column is None or label not in schema.names:
        wanted = "data.image_column" if column is None else "data.label_column"
        found = ", ".join(f"{field.name}: {field.type}" for field in schema) or "no columns"
        raise _layout(path, f"it has {found}; if a column has another name give {wanted}")
    kind = schema.field(column).type
    fields = {field.name: field.type for field in kind} if pa.types.is_struct(kind) else {}
    data = fields.get("bytes")
    if data is None or not (pa.types.is_binary(data) or pa.types.is_large_binary(data)):
        raise _layout(path, f"its column {column!r} is {kind}")
    if not pa.types.is_integer(schema.field(label).type):
        raise _layout(path, f"its column {label!r} is {schema.field(label).type}")
    return column


def _layout(path: Path, found: str) -> RaysearchError:
    return RaysearchError(f"{path} has another layout: {found} ({_EXPECTED})")


def _class_names(path: Path, schema: pa.Schema, label: str) -> tuple[str, ...] | None:
    raw = (schema.metadata or {}).get(b"huggingface")
    if raw is None:
        return None
    try:
        names = json.loads(raw)["info"]["features"][label].get("names")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        names = None  # metadata about something else
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _layout(path, "the class names in its huggingface metadata are not a list of strings")
    return tuple(names)
