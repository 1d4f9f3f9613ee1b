"""What any search or training works on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from raysearch.data import Dataset, Split
from raysearch.policy import Basic, Policy
from raysearch.settings import WholeNumber, checked
from raysearch.tasks import Classification, Task


@dataclass(frozen=True)
class Predefined:
    """The augmentation that practitioners use without a search.

    Attributes:
        flip: mirror left-right with probability 1/2.
        vertical_flip: mirror top-bottom with probability 1/2.
        padding: pad by so many pixels (black) and crop at random; 0 is off.
        cutout: side in pixels of a square of the mean colour at a random place, after all else.
    """

    flip: bool = False
    vertical_flip: bool = False
    padding: WholeNumber = 0
    cutout: WholeNumber = 0

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Predefined:
        """From `data.predefined` of the configuration.

        Raises:
            RaysearchError: a key that does not belong, or a wrong value.
        """
        return checked(cls, "data.predefined", settings)

    def before(self) -> Basic:
        """What comes before a policy: flips and crop."""
        return Basic(self.flip, self.vertical_flip, self.padding)

    def after(self, mean: Sequence[float]) -> Basic:
        """What comes after a policy: Cutout.

        Args:
            mean: the square's levels, of each channel, in [0, 1].
        """
        return Basic(cutout=self.cutout, fill=mean)


@dataclass(frozen=True)
class Generators:
    """An epoch's sources of randomness for augmentation.

    Attributes:
        images: on the images' device, for the predefined augmentation.
        policy: on the CPU, for the draws of a policy.
    """

    images: torch.Generator
    policy: torch.Generator


@dataclass(frozen=True)
class Setup:
    """Data, network, device and seed: what a search or a training is given.

    Attributes:
        dataset: the splits; see `raysearch.data`.
        model: a name that `raysearch.models.build` knows, or what builds a network from the number
            of classes, the number of channels and the (height, width) in pixels.
        device: where to train.
        seed: everything random follows from it.
        predefined: the augmentation before (flip, crop) and after (Cutout) a policy.
        val_fraction: share of the training images that a search validates on where the data
            have no validation split of their own, in (0, 1).
        task: what is predicted, and how it is judged.
    """

    dataset: Dataset
    model: str | Callable[[int, int, tuple[int, int]], nn.Module]
    device: torch.device
    seed: int
    predefined: Predefined = field(default_factory=Predefined)
    val_fraction: float = 0.5
    task: Task = field(default_factory=Classification)

    def search_splits(self) -> tuple[Split, Split]:
        """What a search trains on and what it validates on."""
        return self.dataset.search_splits(derive_seed(self.seed, "split"), self.val_fraction)

    def search_images(self) -> int:
        """How many images a search trains on, the unit of epoch-equivalents."""
        return len(self.search_splits()[0])

    def build_model(self) -> nn.Module:
        """The network with weights drawn from the seed, on the device."""
        with seeded(self.seed, "model"):
            model = self.task.model(
                self.model,
                classes=len(self.dataset.classes),
                channels=self.dataset.channels,
                size=self.dataset.size,
            )
        layout = torch.channels_last if self.device.type == "cuda" else torch.contiguous_format
        return model.to(self.device, memory_format=layout)  # type: ignore[call-overload, no-any-return]

    def generator(self, *names: str | int, device: torch.device | None = None) -> torch.Generator:
        """A fresh generator for one purpose, e.g. `generator("augment", epoch)`."""
        generator = torch.Generator(device or self.device)
        return generator.manual_seed(derive_seed(self.seed, *names))

    def generators(self, epoch: int) -> Generators:
        """Fresh generators for the augmentation of one epoch."""
        cpu = torch.device("cpu")
        return Generators(
            images=self.generator("augment", epoch),
            policy=self.generator("policy", epoch, device=cpu),
        )

    def normalise(self, images: Tensor) -> Tensor:
        """Images with mean 0 and deviation 1 over the train split, differentiably.

        Args:
            images: uint8 [B, C, H, W], or floating point in [0, 1].
        """
        mean, std = _moments(self.dataset.mean, self.dataset.std, images.device)
        if images.is_floating_point():
            batch = (images - mean) / std
        else:
            batch = images.to(torch.float32).sub_(255 * mean).div_(255 * std)
        layout = torch.channels_last if images.is_cuda else torch.contiguous_format
        return batch.contiguous(memory_format=layout)

    def augment(
        self,
        images: Tensor,
        policy: Policy | None,
        predefined: bool,
        generators: Generators,
        progress: float = 0.0,
    ) -> Tensor:
        """Flip and crop, then the policy, then Cutout: uint8 [B, C, H, W] to the same."""
        generator = generators.images
        if predefined:
            images = self.before(images, generator)
        if policy is not None:
            images = policy(images, generators.policy, progress)
        if predefined:
            images = self.after(images, generator)
        return images

    def before(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The predefined augmentation that comes before a policy: flips and crop."""
        return _augmented(images, self.predefined.before(), generator)

    def after(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The predefined augmentation that comes after a policy: Cutout."""
        return _augmented(images, self.predefined.after(self.dataset.mean), generator)


def _augmented(images: Tensor, policy: Basic, generator: torch.Generator) -> Tensor:
    return images if policy.changes_nothing else policy(images, generator)


@lru_cache(maxsize=8)
def _moments(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Mean and deviation as [C, 1, 1] on a device, put there once."""
    both = torch.tensor((mean, std), device=device)[..., None, None]
    return both[0], both[1]


def derive_seed(seed: int, *names: str | int) -> int:
    """A seed for one purpose that depends on nothing but its arguments.

    Every epoch draws from generators of its own, so a run that is restored at an epoch's start
    needs no generator state to go on as it would have.
    """
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@contextmanager
def seeded(seed: int, *names: str | int) -> Iterator[None]:
    """Torch's global generators seeded for one purpose inside, and as they were afterwards."""
    # the CPU's generator, and a GPU's only where this process computes on one
    initialised = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = [torch.cuda.current_device()] if initialised else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive_seed(seed, *names))
        yield
