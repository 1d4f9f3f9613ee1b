"""Data sets as splits: small ones resident on the device, large ones decoded by workers."""

from __future__ import annotations

from raysearch.data._dataset import Dataset
from raysearch.data._grouped import grouped_folds
from raysearch.data._load import load_dataset
from raysearch.data._settings import NAMES
from raysearch.data._split import Batch, Split, TensorSplit
from raysearch.data._stratify import rank_in_class, strata, stratified_split
from raysearch.data._stream import StreamSplit

__all__ = [
    "NAMES",
    "Batch",
    "Dataset",
    "Split",
    "StreamSplit",
    "TensorSplit",
    "grouped_folds",
    "load_dataset",
    "rank_in_class",
    "strata",
    "stratified_split",
]
