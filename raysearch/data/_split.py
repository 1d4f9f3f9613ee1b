"""A split: labelled images that can be iterated over in batches, divided and joined."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raysearch.errors import RaysearchError


class Batch(NamedTuple):
    """Some images of a split.

    Attributes:
        images: uint8 [B, C, H, W].
        targets: what is to be predicted; class indices, int64 [B].
        indices: which images of the split they are, int64 [B].
    """

    images: Tensor
    targets: Tensor
    indices: Tensor


def as_tensor(array: npt.NDArray[Any]) -> Tensor:
    """A tensor on the array's own memory, without a copy, also where that memory is read-only.

    Ray hands out arrays that lie read-only in its object store. PyTorch has no read-only tensors
    and warns about them; whoever holds such a tensor must not write to it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


class Split(ABC):
    """Labelled images of one size, as uint8; picklable and cheap to send to another process."""

    @property
    @abstractmethod
    def labels(self) -> Tensor:
        """Class indices, int64 [N], on the CPU. Not to be written to."""

    @abstractmethod
    def batches(
        self,
        batch_size: int,
        *,
        device: torch.device,
        generator: torch.Generator | None,
        drop_last: bool = False,
    ) -> Iterator[Batch]:
        """One pass over all images.

        Args:
            batch_size: images per batch, at least 1.
            device: where the batches are wanted.
            generator: None for the images in their order, else a CPU generator that decides the
                order of one shuffled pass. Nothing else does, so that the same generator state
                gives the same batches.
            drop_last: leave out a last batch of fewer than `batch_size` images.

        Yields:
            Batches on the device; their tensors are the caller's to change.
        """

    @abstractmethod
    def subset(self, indices: Tensor) -> Split:
        """The images at `indices` (int64 [M]), in that order."""

    @abstractmethod
    def join(self, other: Split) -> Split:
        """These images, then those of `other`."""

    def __len__(self) -> int:
        return len(self.labels)


class TensorSplit(Split):
    """Images held in memory, and on a device from the first pass there onwards.

    The arrays pickle out of band, so that every process on a node reads the one copy that lies in
    Ray's object store.

    Args:
        images: uint8 [N, C, H, W].
        labels: int64 [N].
    """

    def __init__(
        self, images: Tensor | npt.NDArray[np.uint8], labels: Tensor | npt.NDArray[np.int64]
    ) -> None:
        pixels = images.cpu().numpy() if isinstance(images, Tensor) else images
        targets = labels.cpu().numpy() if isinstance(labels, Tensor) else labels
        if pixels.dtype != np.uint8 or pixels.ndim != 4:
            raise ValueError(
                f"images must be uint8 [N, C, H, W], not {pixels.dtype} {pixels.shape}"
            )
        if targets.shape != (len(pixels),):
            raise ValueError(f"{len(pixels)} images, but labels of shape {targets.shape}")
        self._images = np.ascontiguousarray(pixels)
        self._labels = np.ascontiguousarray(targets, dtype=np.int64)
        self._resident: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @property
    def images(self) -> Tensor:
        """All images, uint8 [N, C, H, W], on the CPU. Not to be written to."""
        return as_tensor(self._images)

    @property
    def labels(self) -> Tensor:
        return as_tensor(self._labels)

    def batches(
        self,
        batch_size: int,
        *,
        device: torch.device,
        generator: torch.Generator | None,
        drop_last: bool = False,
    ) -> Iterator[Batch]:
        images, labels = self._on(device)
        if generator is None:
            order = torch.arange(len(self))
        else:
            order = torch.randperm(len(self), generator=generator)
        for index in torch.split(order.to(device), check_batch_size(batch_size)):
            if drop_last and len(index) < batch_size:
                return
            yield Batch(images.index_select(0, index), labels.index_select(0, index), index)

    def subset(self, indices: Tensor) -> TensorSplit:
        index = indices.cpu().numpy()
        return TensorSplit(self._images[index], self._labels[index])

    def join(self, other: Split) -> TensorSplit:
        if not isinstance(other, TensorSplit):
            raise TypeError(f"a TensorSplit cannot be joined with a {type(other).__name__}")
        return TensorSplit(
            np.concatenate((self._images, other._images)),
            np.concatenate((self._labels, other._labels)),
        )

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._resident:
            images, labels = self.images, self.labels
            self._resident[device] = (images.to(device), labels.to(device))
        return self._resident[device]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_resident": {}}


def check_batch_size(batch_size: int) -> int:
    """`batch_size`, or a RaysearchError where it is not positive."""
    if batch_size < 1:
        raise RaysearchError(f"the batch size must be at least 1, not {batch_size}")
    return batch_size
