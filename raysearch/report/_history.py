"""history.parquet: one row per trial and epoch."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from raysearch.tracking import TrialResult


def history_parquet(results: Sequence[TrialResult]) -> bytes:
    """All trials' epochs as a Parquet file.

    Columns: `trial`, `stage` (shared, search or evaluation), `name`, `policy` (null but in
    evaluations), `seed`, `epoch` (from 1), and one float64 column per metric, null where a trial
    does not have it. The costs of a search hold those of the shared training that it began with.
    """
    rows = [(result.trial, record) for result in results for record in result.history]
    metrics = dict.fromkeys(key for _, record in rows for key in record if key != "epoch")
    columns = {
        "trial": pa.array([trial.id for trial, _ in rows], pa.string()),
        "stage": pa.array([trial.stage for trial, _ in rows], pa.string()),
        "name": pa.array([trial.name for trial, _ in rows], pa.string()),
        "policy": pa.array([trial.policy for trial, _ in rows], pa.string()),
        "seed": pa.array([trial.seed for trial, _ in rows], pa.int64()),
        "epoch": pa.array([int(record["epoch"]) for _, record in rows], pa.int64()),
    }
    for metric in metrics:
        values = [record.get(metric) for _, record in rows]
        columns[metric] = pa.array(values, pa.float64())
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    return buffer.getvalue()
