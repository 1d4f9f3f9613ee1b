"""A split: images of a shared base, in an order, that can be iterated over in batches."""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raysearch.data._image import Pixels
from raysearch.errors import RaysearchError

Index = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Targets = npt.NDArray[
    Any
]  # class indices, int64 [N], or which classes an image has, float32 [N, K]


class Batch(NamedTuple):
    """Some images of a split.

    Attributes:
        images: uint8 [B, C, H, W].
        targets: what is to be predicted; class indices, int64 [B], or (multi-label) which of the K
            classes an image has, float32 [B, K] of 0 and 1.
        indices: positions of the images in the split's base, int64 [B]. They name an image
            whatever part, fold or union of the base it was drawn from.
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


def check_targets(targets: Tensor | npt.NDArray[Any], images: int) -> Targets:
    """Targets in the form that splits hold: int64 [N], or float32 [N, K].

    Raises:
        ValueError: they are of another shape, or not one for each image.
    """
    array = targets.cpu().numpy() if isinstance(targets, Tensor) else targets
    if array.ndim not in (1, 2) or len(array) != images:
        raise ValueError(f"{images} images, but targets of shape {array.shape}")
    return np.ascontiguousarray(array, dtype=np.int64 if array.ndim == 1 else np.float32)


class Split(ABC):
    """Images of one size, as uint8: a base, which splits share, and which of its images these are.

    A part, a fold or a union of splits of one base is a new order of the same base, so making one
    copies no image and uploads none. Pickled together, splits of one base hold it once.
    """

    def __init__(self, base: Any, targets: Targets, groups: Index | None = None) -> None:
        """The whole of a base, that is, of what holds the images; their targets and groups."""
        self._base, self._targets, self._groups = base, targets, groups
        self._indices: Index = np.arange(len(targets))

    @property
    def targets(self) -> Tensor:
        """What is to be predicted, as `Batch.targets`, on the CPU. Not to be written to."""
        return as_tensor(self._rows(self._targets))

    @property
    def groups(self) -> Index | None:
        """Which images belong together, int64 [N]; None: not told. Not to be written to."""
        return None if self._groups is None else self._rows(self._groups)

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Of one image: () for a class index, (K,) for a 0 or 1 for each of K classes."""
        return self._targets.shape[1:]

    @property
    def indices(self) -> Tensor:
        """Positions of the images in the base, int64 [N], on the CPU. Not to be written to."""
        return as_tensor(self._indices)

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

    def subset(self, indices: Tensor) -> Self:
        """The images at `indices` (int64 [M], positions in this split), in that order."""
        return self._view(self._indices[indices.cpu().numpy()])

    def join(self, other: Split) -> Self:
        """These images, then those of `other`; without a copy where both have one base.

        Two bases become a new one, in whose order `Batch.indices` count.

        Raises:
            TypeError: `other` is a split of another kind.
        """
        if not isinstance(other, type(self)):
            raise TypeError(f"a {type(self).__name__} cannot join a {type(other).__name__}")
        if other._base is self._base and other._targets is self._targets:
            return self._view(np.concatenate((self._indices, other._indices)))
        return self._merge(other)

    @abstractmethod
    def _merge(self, other: Self) -> Self:
        """As `join`, of another base."""

    def _view(self, indices: Index) -> Self:
        view = copy.copy(self)
        view._indices = indices
        return view

    def _rows(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """This split's rows of a base's array; not copied where they are neighbours, in order."""
        if len(self) and np.all(np.diff(self._indices) == 1):
            return array[self._indices[0] : self._indices[-1] + 1]
        rows: npt.NDArray[Any] = array[self._indices]
        return rows

    def __len__(self) -> int:
        return len(self._indices)


def joined_groups(one: Index | None, other: Index | None) -> Index | None:
    """The groups of some images, then those of others; None where one's are not told."""
    return None if one is None or other is None else np.concatenate((one, other))


class Base:
    """Images and their targets in memory, and on each device from the first pass there onwards.

    The arrays pickle out of band, so that every process on a node reads the one copy that lies in
    Ray's object store.

    Args:
        images: uint8 [N, C, H, W].
        targets: int64 [N] or float32 [N, K].
    """

    def __init__(self, images: Pixels, targets: Targets) -> None:
        self.images, self.targets = images, targets
        self._resident: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Images and targets there; put there once, for all splits of the base."""
        if device not in self._resident:
            images, targets = as_tensor(self.images), as_tensor(self.targets)
            self._resident[device] = (images.to(device), targets.to(device))
        return self._resident[device]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_resident": {}}


class TensorSplit(Split):
    """Images held in memory, in a base that lies on a device from the first pass there onwards.

    Args:
        images: uint8 [N, C, H, W].
        targets: int64 [N] or, multi-label, [N, K] of 0 and 1.
        groups: which images belong together, int64 [N], which divided splits keep whole.

    Raises:
        ValueError: arrays of another type or shape.
    """

    def __init__(
        self,
        images: Tensor | Pixels,
        targets: Tensor | npt.NDArray[Any],
        groups: Index | None = None,
    ) -> None:
        pixels = images.cpu().numpy() if isinstance(images, Tensor) else images
        if pixels.dtype != np.uint8 or pixels.ndim != 4:
            raise ValueError(
                f"images must be uint8 [N, C, H, W], not {pixels.dtype} {pixels.shape}"
            )
        checked = check_targets(targets, len(pixels))
        super().__init__(Base(np.ascontiguousarray(pixels), checked), checked, groups)

    @property
    def images(self) -> Tensor:
        """All images, uint8 [N, C, H, W], on the CPU. Not to be written to.

        A copy, unless they are neighbours in the base and in its order.
        """
        return as_tensor(self._rows(self._base.images))

    def batches(
        self,
        batch_size: int,
        *,
        device: torch.device,
        generator: torch.Generator | None,
        drop_last: bool = False,
    ) -> Iterator[Batch]:
        images, targets = self._base.on(device)
        if generator is None:
            order = torch.arange(len(self))
        else:
            order = torch.randperm(len(self), generator=generator)
        indices = self.indices[order].to(device)
        for index in torch.split(indices, check_batch_size(batch_size)):
            if drop_last and len(index) < batch_size:
                return
            yield Batch(images.index_select(0, index), targets.index_select(0, index), index)

    def _merge(self, other: TensorSplit) -> TensorSplit:
        return TensorSplit(
            torch.cat((self.images, other.images)),
            torch.cat((self.targets, other.targets)),
            joined_groups(self.groups, other.groups),
        )


def check_batch_size(batch_size: int) -> int:
    """`batch_size`, or a RaysearchError where it is not positive."""
    if batch_size < 1:
        raise RaysearchError(f"the batch size must be at least 1, not {batch_size}")
    return batch_size
