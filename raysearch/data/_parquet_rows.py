"""Reading rows of Parquet files, of which a row group need not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysearch.data._split import Index
from raysearch.errors import RaysearchError
from raysearch.files import check_regular

_BUFFER_BYTES = 1 << 22  # of a file, so that no row group has to be in memory as a whole


class RowReader:
    """Reads rows of one column, and goes on in a row group where it has come to.

    Pickled, it begins anew.
    """

    def __init__(self) -> None:
        self._file: tuple[Path, pq.ParquetFile] | None = None
        self._group: tuple[int, str] | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._batch: pa.RecordBatch | None = None
        self._start = 0  # the row of the group that the batch begins with

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]

    @property
    def within_group(self) -> bool:
        """Whether it may go on in a row group."""
        return self._group is not None

    def read(
        self, path: Path, number: int, column: str, rows: Index, at_once: int
    ) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Rows of a row group, each with its place among `rows`, in the group's order.

        Args:
            path: the Parquet file.
            number: the row group's, in the file.
            column: the name of the column.
            rows: which rows of the group, int64 [N].
            at_once: rows that are in memory at a time.

        Raises:
            RaysearchError: the file cannot be opened.
            ValueError: it has fewer rows.
        """
        order = np.argsort(rows, kind="stable")
        ascending, done = rows[order], 0
        if self._file is None or self._file[0] != path:
            self.close()
            self._file = path, open_parquet(path)
        if self._group != (number, column) or ascending[0] < self._start:
            self._group, self._batch, self._start = (number, column), None, 0
            self._batches = self._file[1].iter_batches(
                at_once, row_groups=[number], columns=[column], use_threads=False
            )
        while True:
            end = self._start + (0 if self._batch is None else len(self._batch))
            here = order[done : int(np.searchsorted(ascending, end))]
            if self._batch is not None and len(here):
                values = self._batch.column(0).take(pa.array(rows[here] - self._start))
                yield from zip(here.tolist(), values.to_pylist(), strict=True)
            done += len(here)
            if done == len(rows):
                return
            self._start, self._batch = end, next(self._batches, None)
            if self._batch is None:
                raise ValueError(
                    f"it has {end} rows in row group {number}, not {ascending[-1] + 1}"
                )

    def forget_group(self) -> None:
        """Let go of the row group, and of what of it is in memory."""
        self._group, self._batch, self._batches, self._start = None, None, iter(()), 0

    def close(self) -> None:
        """Let go of the file."""
        self.forget_group()
        if self._file is not None:
            self._file[1].close()
            self._file = None


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
