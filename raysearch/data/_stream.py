"""Splits too large for memory: decoded on the way, by worker processes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from raysearch.data._decode import Decoder
from raysearch.data._image import DecodeError, Payload
from raysearch.data._source import Source
from raysearch.data._split import (
    Batch,
    Index,
    Split,
    Targets,
    check_batch_size,
    check_targets,
    joined_groups,
)
from raysearch.errors import RaysearchError

_MOST_WORKERS = 8


@dataclass(frozen=True)
class Decoded:
    """A batch as a worker returns it: pixels uint8 [B, C, H, W]; why which images failed."""

    indices: Index
    pixels: Tensor
    failures: dict[int, str]  # index in the source -> reason; the image's pixels are zero


class StreamSplit(Split):
    """Images that are read and decoded anew in every pass.

    The order of a pass depends on the generator alone, not on the number of workers; for files it
    is that of a `TensorSplit`, for Parquet see `ParquetSource`.

    Args:
        source: the images of the base.
        targets: int64 [N] or, multi-label, [N, K] of 0 and 1.
        decoder: what turns them into pixels.
        workers: processes that decode; 0 decodes in this one, None takes as many as PyTorch has
            threads here (under Ray that is a trial's CPUs), at most 8.
        groups: which images belong together, int64 [N], which divided splits keep whole.
    """

    def __init__(
        self,
        source: Source,
        targets: Targets,
        decoder: Decoder,
        workers: int | None = None,
        groups: Index | None = None,
    ) -> None:
        super().__init__(source, check_targets(targets, len(source)), groups)
        self.decoder, self.workers = decoder, workers

    @property
    def source(self) -> Source:
        """References to this split's images, in its order."""
        source: Source = self._base.subset(self._indices)
        return source

    def batches(
        self,
        batch_size: int,
        *,
        device: torch.device,
        generator: torch.Generator | None,
        drop_last: bool = False,
    ) -> Iterator[Batch]:
        for batch in self.decode(batch_size, device=device, generator=generator):
            if batch.failures:
                index, reason = next(iter(batch.failures.items()))
                raise unreadable(self.source, index, reason)
            if drop_last and len(batch.indices) < batch_size:
                return
            positions = self._indices[batch.indices]
            targets = torch.from_numpy(self._targets[positions]).to(device)
            images = batch.pixels.to(device, non_blocking=True)
            yield Batch(images, targets, torch.from_numpy(positions).to(device))

    def decode(
        self, batch_size: int, *, device: torch.device, generator: torch.Generator | None = None
    ) -> Iterator[Decoded]:
        """One pass, as `batches`, that reports images which cannot be read instead of raising."""
        workers = self.workers
        if workers is None:
            workers = min(_MOST_WORKERS, torch.get_num_threads())
        loader = DataLoader(
            _Worker(self.decoder),
            batch_sampler=self._payloads(check_batch_size(batch_size), generator),
            num_workers=workers,
            collate_fn=_only,
            worker_init_fn=_start_worker,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # so that the global one is left as it is
        )
        try:
            for indices, pixels, failures in loader:
                yield Decoded(indices, pixels, failures)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            reason = str(error).splitlines()[0]
            raise RaysearchError(
                f"a process that decodes images died ({reason}): it may have had too little "
                "memory, try a smaller batch size, data.workers=1, or data.workers=0"
            ) from error

    def _payloads(
        self, batch_size: int, generator: torch.Generator | None
    ) -> Iterator[list[tuple[int, Payload | None]]]:
        batch: list[tuple[int, Payload | None]] = []
        source = self.source
        for window in source.windows(generator):
            # Files are fetched (as their paths) and Parquet rows taken a piece at a time.
            for index, payload in zip(window.tolist(), source.fetch(window), strict=True):
                batch.append((index, payload))
                if len(batch) == batch_size:
                    yield batch
                    batch = []
        if batch:
            yield batch

    def join(self, other: Split) -> StreamSplit:
        if isinstance(other, StreamSplit) and type(other._base) is not type(self._base):
            raise TypeError(f"a stream of {type(self._base).__name__} joins only one of its kind")
        return super().join(other)

    def _merge(self, other: StreamSplit) -> StreamSplit:
        targets = np.concatenate((self._rows(self._targets), other._rows(other._targets)))
        source, groups = self.source.join(other.source), joined_groups(self, other)
        return StreamSplit(source, targets, self.decoder, self.workers, groups)


class _Worker(TorchDataset[Any]):
    """The worker's side: it is sent what it needs to decode a batch, not asked to look it up."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder

    def __getitems__(
        self, items: list[tuple[int, Payload | None]]
    ) -> list[tuple[Index, Tensor, dict[int, str]]]:
        pixels = np.zeros((len(items), self.decoder.channels, *self.decoder.size), np.uint8)
        failures: dict[int, str] = {}
        for place, (index, payload) in enumerate(items):
            try:
                pixels[place] = self.decoder(payload)
            except DecodeError as error:
                failures[index] = str(error)
        indices = np.array([index for index, _ in items], dtype=np.int64)
        return [(indices, torch.from_numpy(pixels), failures)]


def _start_worker(_: int) -> None:
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _only(batch: list[Any]) -> Any:
    return batch[0]


def unreadable(source: Source, index: int, reason: str) -> RaysearchError:
    """The error for an image that cannot be read, by name."""
    return RaysearchError(f"{source.name(index)}: {reason} (data.on_error=skip passes over it)")
