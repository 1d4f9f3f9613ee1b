"""Images that are rows of Parquet files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from raysearch.data._image import Payload
from raysearch.data._names import nfc
from raysearch.data._source import Source
from raysearch.data._split import Index
from raysearch.errors import RaysearchError
from raysearch.files import check_regular

WINDOW_BYTES = 1 << 29
_BATCH_BYTES = 1 << 25  # of a row group in memory at a time, while its rows are read
_BUFFER_BYTES = 1 << 22  # of a file, so that no row group has to be in memory as a whole
_GROUP_SAMPLE = 16


@dataclass(frozen=True)
class ParquetSource(Source):
    """Rows of Parquet files.

    Parquet is read by row groups, so that a shuffled pass goes through the row groups in random
    order and shuffles the rows of as many neighbours in that order as hold `WINDOW_BYTES`: a
    uniform permutation for data smaller than that, and a shuffle within windows for larger ones. A
    row group that holds more is taken in pieces of neighbouring rows, as if each were a row group.

    Args:
        root: the data set's folder; images given by path lie below it, their paths relative to it
            or to the Parquet file.
        files: paths of the Parquet files.
        column: name of the image column, of structs of bytes and path, of bytes or of paths.
        groups: int64 [G, 5]: for each row group its file's index, its number there, the rows
            before it in the file, its uncompressed bytes, its rows.
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
        file, _, before, _, _ = self.groups[self.group[index]]
        return f"{self.files[file]}, row {before + self.row[index]}"

    def windows(self, generator: torch.Generator | None) -> Iterator[Index]:
        if len(self) == 0:
            return
        by_group = np.argsort(self.group, kind="stable")
        present, starts = np.unique(self.group[by_group], return_index=True)
        members = np.split(by_group, starts[1:])
        if generator is None and np.any(np.diff(self.group) < 0):
            cuts = np.flatnonzero(np.diff(self.group)) + 1  # joined or permuted: keep the order
            members = np.split(np.arange(len(self)), cuts)
            present = self.group[np.concatenate(([0], cuts))]
        pieces = [
            piece
            for number, own in zip(present, members, strict=True)
            for piece in self._pieces(int(number), own)
        ]
        order = np.arange(len(pieces))
        if generator is not None:
            order = torch.randperm(len(pieces), generator=generator).numpy()
        window: list[Index] = []
        held = 0
        for number in order:
            piece, size = pieces[number]
            if window and held + size > WINDOW_BYTES:
                yield _shuffled(np.concatenate(window), generator)
                window, held = [], 0
            window.append(piece)
            held += size
        if window:
            yield _shuffled(np.concatenate(window), generator)

    def _pieces(self, group: int, members: Index) -> list[tuple[Index, int]]:
        """A row group's images, in pieces that memory can hold, each with its bytes."""
        size, rows = (int(value) for value in self.groups[group, 3:])
        if size <= WINDOW_BYTES or rows == 0:
            return [(members, size)]
        own = size * len(members) // rows
        count = min(len(members), -(-own // WINDOW_BYTES))
        return [(piece, own // count) for piece in np.array_split(members, count)]

    def fetch(self, indices: Index) -> list[Payload | None]:
        payloads: list[Payload | None] = [None] * len(indices)
        wanted = self.group[indices]
        for group in np.unique(wanted):
            file, number, _, size, count = (int(value) for value in self.groups[group])
            path, places = Path(self.files[file]), np.flatnonzero(wanted == group)
            at_once = max(1, _BATCH_BYTES * count // max(size, 1))
            rows = self.row[indices[places]]
            with open_parquet(path) as reader, reading(path):
                for place, value in _values(reader, number, self.column, rows, at_once):
                    payloads[places[place]] = self._payload(value, path.parent)
        return payloads

    def _payload(self, value: dict[str, Any] | bytes | str | None, beside: Path) -> Payload | None:
        """An image's bytes or its path, which is relative to its Parquet file or to the root."""
        if isinstance(value, dict):
            value = value.get("path") if value["bytes"] is None else value["bytes"]
        if not isinstance(value, str):
            return value
        root = Path(self.root).resolve()
        try:
            given = value if os.path.lexists(beside / value) else value.replace("\\", os.sep)
            near = (beside / given).resolve()
            path = near if near.exists() else (root / given).resolve()
        except (OSError, RuntimeError, ValueError) as error:  # e.g. a circle of links
            raise RaysearchError(
                f"{self.root}: the image path {value[:200]!r} cannot be followed: "
                f"{getattr(error, 'strerror', None) or error}"
            ) from error
        if not path.is_relative_to(root):
            raise RaysearchError(
                f"{self.root}: the image path {value[:200]!r} leads out of this folder"
            )
        return str(path)

    def relative_paths(self, root: Path) -> list[str]:
        with open_parquet(Path(self.files[0])) as reader:
            kind = reader.schema_arrow.field(self.column).type
        field = "path" if pa.types.is_struct(kind) else None
        values = None if is_binary(kind) else self.column_values(self.column, field)
        return [str(value or "").replace("\\", "/") for value in values or [""] * len(self)]

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        with open_parquet(Path(self.files[0])) as reader:
            return list(reader.schema_arrow.names)

    def column_values(self, column: str, field: str | None = None) -> list[Any] | None:
        """Each image's value in a column, or in a field of it; None where there is no such column.

        Raises:
            RaysearchError: a file cannot be read.
        """
        values: list[Any] = []
        starts: list[int] = []
        for file in self.files:
            with open_parquet(Path(file)) as reader, reading(Path(file)):
                names = {nfc(name): name for name in reader.schema_arrow.names}
                name = names.get(nfc(column))
                if name is None:
                    return None
                if field is not None:
                    kind = reader.schema_arrow.field(name).type
                    if kind.get_field_index(field) < 0:
                        return None
                    table = reader.read(columns=[f"{name}.{field}"], use_threads=False)
                    found = pc.struct_field(table.column(name), field)
                else:
                    found = reader.read(columns=[name], use_threads=False).column(name)
                rows = self.groups[np.equal(self.groups[:, 0], len(starts)), 4].sum()
                if len(found) != rows:
                    raise RaysearchError(
                        f"{file} is not a readable Parquet file: its footer counts {rows} rows, "
                        f"its column {name!r} has {len(found)}"
                    )
                starts.append(len(values))
                values += found.to_pylist()
        file, _, before, _, _ = self.groups[self.group].T
        rows = np.array(starts)[file] + before + self.row
        return [values[row] for row in rows]

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


def is_binary(kind: pa.DataType) -> bool:
    """Whether a column holds bytes."""
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(test(kind) for test in tests)


def _shuffled(indices: Index, generator: torch.Generator | None) -> Index:
    if generator is None:
        return indices
    shuffled: Index = indices[torch.randperm(len(indices), generator=generator).numpy()]
    return shuffled


def _values(
    reader: pq.ParquetFile, number: int, column: str, rows: Index, at_once: int
) -> Iterator[tuple[int, Any]]:
    """Values of some rows of a row group, each with its place among `rows`.

    They come in the group's order, of which `at_once` rows are in memory at a time.

    Raises:
        ValueError: the group has fewer rows.
    """
    order = np.argsort(rows, kind="stable")
    ascending, start = rows[order], 0
    for batch in reader.iter_batches(
        at_once, row_groups=[number], columns=[column], use_threads=False
    ):
        end = start + len(batch)
        here = order[slice(*np.searchsorted(ascending, (start, end)))]
        values = batch.column(0)
        for place, row in zip(here.tolist(), (rows[here] - start).tolist(), strict=True):
            yield place, values[row].as_py()
        if end > ascending[-1]:
            return
        start = end
    raise ValueError(f"it has {start} rows in row group {number}, not {ascending[-1] + 1}")


def open_parquet(path: Path) -> pq.ParquetFile:
    """The file, its footer read.

    Raises:
        RaysearchError: it is no Parquet file, is damaged, or cannot be read.
    """
    with reading(path):
        check_regular(path)
        return pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Says which Parquet file it is that cannot be read."""
    try:
        yield
    except RaysearchError:
        raise
    except Exception as error:  # Arrow raises nearly anything on broken files
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise RaysearchError(f"{path} is not a readable Parquet file: {reason}") from error
