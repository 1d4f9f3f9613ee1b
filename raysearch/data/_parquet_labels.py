"""The label column of Parquet files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysearch.data._parquet import ParquetSource
from raysearch.data._split import Index, Targets
from raysearch.errors import RaysearchError


@dataclass(frozen=True)
class Labels:
    """A label column: classes, and whose they are.

    Attributes:
        multi: whether a row is a list of classes, and not one.
        count: rows.
        rows: for each value its row, ascending; int64 [V].
        values: classes, int64 [V].
    """

    multi: bool
    count: int
    rows: Index
    values: Index

    @staticmethod
    def join(parts: list[Labels]) -> Labels:
        """Those of several files, one after another."""
        before = np.cumsum([0, *(part.count for part in parts)])
        rows = [part.rows + start for part, start in zip(parts, before[:-1], strict=True)]
        values = np.concatenate([part.values for part in parts])
        return Labels(parts[0].multi, int(before[-1]), np.concatenate(rows), values)

    def labelled(self) -> Index:
        """The rows whose one label is not -1, which is how the Hub says that there is none."""
        return np.arange(self.count) if self.multi else self.rows[self.values != -1]

    def targets(self, source: ParquetSource, number: Index, classes: int, rows: Index) -> Targets:
        """Class indices, or 0 and 1 for each class.

        Args:
            source: all rows, for messages.
            number: for each label its class; int64 [L].
            classes: how many there are.
            rows: the rows that are wanted, ascending; int64 [N].

        Raises:
            RaysearchError: a value is no class; its row is named.
        """
        odd = (self.values < 0) | (self.values >= len(number))
        wrong = np.flatnonzero(odd & np.isin(self.rows, rows))
        if len(wrong):
            raise RaysearchError(
                f"{source.name(int(self.rows[wrong[0]]))}: the label {self.values[wrong[0]]} is "
                f"out of range, the {len(number)} classes have labels 0 to {len(number) - 1}"
            )
        if not self.multi:
            return number[self.values[rows]]
        targets = np.zeros((self.count, classes), np.float32)
        targets[self.rows, number[self.values]] = 1
        return targets


def read_labels(path: Path, reader: pq.ParquetFile, column: str, rows: int) -> Labels:
    """The label column of a file of so many rows.

    Raises:
        RaysearchError: there are fewer or more, or a label is null.
    """
    labels = reader.read(columns=[column], use_threads=False).column(column)
    if len(labels) != rows:
        raise RaysearchError(
            f"{path} is not a readable Parquet file: its footer counts {rows} rows, it has "
            f"{len(labels)} labels"
        )
    if labels.null_count:
        row = labels.is_null().to_pylist().index(True)
        raise RaysearchError(f"{path}, row {row}: the label is null")
    numbers, multi = np.arange(rows), is_list(labels.type)
    if multi:
        lengths = pc.list_value_length(labels).to_numpy()
        numbers = np.repeat(numbers, lengths)
        labels = pc.list_flatten(labels)
        if labels.null_count:
            row = numbers[labels.is_null().to_pylist().index(True)]
            raise RaysearchError(f"{path}, row {row}: a label is null")
    values = np.asarray(labels.cast(pa.int64()).to_numpy(), dtype=np.int64)
    return Labels(multi, rows, numbers, values)


def is_list(kind: pa.DataType) -> bool:
    """Whether a column's rows are lists of any length."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))
