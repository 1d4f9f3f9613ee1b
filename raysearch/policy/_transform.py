"""A policy as a torchvision v2 transform, which is an `nn.Module` too."""

from __future__ import annotations

import copy
import os
from typing import Any, NoReturn

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from raysearch.policy._adaptive import Adaptive, Indices, Magnitudes
from raysearch.policy._base import Policy, outside_graphs, refuse_scripting
from raysearch.policy._files import read_policy
from raysearch.policy._levels import LevelsOnGPU
from raysearch.policy._progress import Progress


class PolicyTransform(v2.Transform):  # type: ignore[misc]
    """Applies a policy inside `v2.Compose`, in a DataLoader worker or to a batch on a GPU.

    Takes PIL images and tensors: uint8, or floating point in [0, 1], [C, H, W] or
    [B, C, H, W], C 1 or 3. Each image of a batch gets a draw of its own. What rounding and resizing
    put outside [0, 1] is clamped. Randomness is torch's global generator, so `torch.manual_seed`
    makes it repeatable; autocast and PyTorch's default device and type change nothing. A network
    that contains one can be compiled with `torch.compile`, which runs the policy as it is and
    compiles the rest.

    What of a sample (tuples, lists and dictionaries, also nested) is an image:

    - PIL images and `tv_tensors.Image`, wherever they are; plain tensors beside them pass through.
    - Without such, the first plain tensor that has the type and shape of a colour image, or else
      of a grey one, and all others of its type and channels. So two views are both augmented, and
      labels pass through, wherever they are. A plain mask of an image's type and channels would be
      taken for a view: make the image a `tv_tensors.Image`.

    All images of one call get the same draws, as in every v2 transform: two views, or a stereo
    pair, stay in place to each other. For views that differ, call it once for each.

    Args:
        policy: the policy to apply.

    Attributes:
        progress: how far the training has come, in [0, 1]; set it every epoch for a policy that
            changes over a training (`policy.moments()` has more than one entry). Until it is set,
            such a policy is as at its end. Others ignore it. The workers of a DataLoader see it
            too, however they are started, also persistent ones. A copy (`copy`, `deepcopy`,
            `pickle`) begins with the same progress and then has its own, as have its workers.

    Raises:
        ValueError: a progress outside [0, 1]; floating-point images that are normalised, reach to
            255, or have NaN. On a GPU, where nothing waits for the values, that is said of the
            first batch at once and of others in a later call.
        TypeError: a sample without an image, images as NumPy arrays, or the sample carries
            boxes, masks or key points, which the geometric operations would have to move along and
            do not.
        RaysearchError: it is part of what `torch.jit.script` is called on.

    Example:
        >>> transform = v2.Compose([load_policy("policy.json"), v2.ToImage()])  # doctest: +SKIP
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy
        self._progress = Progress(1.0)
        self._on_gpu = LevelsOnGPU()

    @property
    def progress(self) -> float:
        """How far the training has come."""
        return self._progress.value

    @progress.setter
    def progress(self, value: float) -> None:
        if not 0 <= value <= 1:
            raise ValueError(f"progress must lie in [0, 1], got {value}")
        self._progress.value = value

    def __getstate__(self) -> dict[str, Any]:
        """What copies take over; a shallow one, too, has a progress of its own."""
        return {**self.__dict__, "_progress": copy.copy(self._progress)}

    @outside_graphs
    def forward(self, *inputs: Any) -> Any:
        """Augment the images of a sample, which `torch.compile` leaves out of its graphs."""
        return super().forward(*inputs)

    def __prepare_scriptable__(self) -> NoReturn:
        """What `torch.jit.script` calls first; raises `RaysearchError`."""
        refuse_scripting()

    def check_inputs(self, flat_inputs: list[Any]) -> None:
        """Refuse what would silently lose its place in the image."""
        bad = (tv_tensors.BoundingBoxes, tv_tensors.Mask, tv_tensors.KeyPoints, tv_tensors.Video)
        for value in flat_inputs:
            if isinstance(value, np.ndarray) and value.ndim >= 3:
                raise TypeError("a policy takes PIL images and tensors, not NumPy arrays")
            if isinstance(value, bad):
                raise TypeError(f"a policy augments images; {type(value).__name__} is not handled")

    def _needs_transform_list(self, flat_inputs: list[Any]) -> list[bool]:
        """Which parts of a sample are images."""
        explicit = [isinstance(one, tv_tensors.Image | PIL.Image.Image) for one in flat_inputs]
        if any(explicit):
            return explicit
        kinds = [_kind(one) for one in flat_inputs]
        found = [kind for kind in kinds if kind is not None]
        if not found and (others := [_words(one) for one in flat_inputs if not _is_plain(one)]):
            raise TypeError(
                "no image in the sample: PIL images, or tensors of uint8 or floating point and of "
                f"shape [C, H, W] or [B, C, H, W] with C = 1 or 3; got {', '.join(others)}"
            )
        colour = max(found, key=lambda kind: kind[0], default=None)
        return [kind is not None and kind == colour for kind in kinds]

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Torch's generator for the first image, copies as it is now for the others."""
        generators: list[torch.Generator | None] = [None]
        for _ in flat_inputs[1:]:
            generators.append(torch.Generator("cpu").set_state(torch.get_rng_state()))
        return {"generators": iter(generators)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Augment one image or batch."""
        generator = next(params["generators"])
        if isinstance(inpt, PIL.Image.Image):
            if inpt.mode not in ("L", "RGB"):
                deep = inpt.mode[0] in "IF"  # which .convert() would cut off at 255
                advice = "scale them to 8 bits first" if deep else "use .convert('RGB')"
                raise TypeError(f"images of mode L or RGB, not {inpt.mode}; {advice}")
            levels = torch.from_numpy(np.array(inpt).reshape(inpt.height, inpt.width, -1))
            augmented = self._augment(levels.permute(2, 0, 1), generator)
            return F.to_pil_image(augmented, mode=inpt.mode)
        augmented = self._augment(inpt.as_subclass(torch.Tensor), generator)
        return (
            tv_tensors.wrap(augmented, like=inpt) if type(inpt) is not torch.Tensor else augmented
        )

    def _augment(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        if images.ndim not in (3, 4):
            raise TypeError(f"images of shape [C, H, W] or [B, C, H, W], not {list(images.shape)}")
        if images.is_cuda and images.is_floating_point() and images.numel():
            self._on_gpu.check(images)
        batch = images if images.ndim == 4 else images[None]
        return self.policy(batch, generator, self.progress).reshape(images.shape)

    def extra_repr(self) -> str:
        """The policy's kind, strongest operations and first parameters."""
        strongest = list(self.policy.marginals().items())[:3]
        parameters = list(self.policy.parameters().items())[:3]
        shares = ", ".join(f"{name} {share:.0%}" for name, share in strongest)
        continuous = ", ".join(f"{name} {mean:.2g} ± {std:.2g}" for name, (mean, std) in parameters)
        return (
            f"kind={self.policy.kind}"
            + (f", strongest: {shares}" if shares else "")
            + (f", parameters: {continuous}" if continuous else "")
        )


class AdaptiveTransform(PolicyTransform):
    """Applies an adaptive policy to the batches of a training, and is told how the network does.

    What it was told is in its `state_dict`. Called without indices, as in a DataLoader's worker,
    it draws magnitudes at random, as for images that it was not told about.

    Args:
        policy: the policy to apply.

    Example:
        >>> for indices, images, labels in loader:  # doctest: +SKIP
        ...     outputs = network(normalise(augment(images, indices=indices)))
        ...     augment.observe(indices, outputs, labels)
        ...     update(criterion(outputs, labels))
    """

    def __init__(self, policy: Adaptive) -> None:
        super().__init__(policy)
        self._magnitudes = Magnitudes(policy)

    @outside_graphs
    def forward(self, *inputs: Any, indices: Indices | None = None) -> Any:
        """Augment the images of a sample.

        Args:
            inputs: see `PolicyTransform`.
            indices: which training image each image of a batch is, whole numbers from 0, [B].

        Raises:
            ValueError: other indices, or not as many as images.
        """
        if indices is None:
            return super().forward(*inputs)
        batch = PolicyTransform(self._magnitudes.policy_for(indices))
        batch._on_gpu = self._on_gpu
        return batch(*inputs)

    def observe(self, indices: Indices, outputs: Tensor, targets: Tensor) -> None:
        """Tell it what the network said about training images; see `Magnitudes.observe`."""
        self._magnitudes.observe(indices, outputs, targets)

    def get_extra_state(self) -> Tensor:
        """What `state_dict` has: the magnitude of each training image, NaN where not seen yet."""
        return self._magnitudes.state()

    def set_extra_state(self, state: Tensor) -> None:
        """What `load_state_dict` goes on from."""
        self._magnitudes.load(state)


def _kind(value: Any) -> tuple[int, torch.dtype] | None:
    """What views have in common, channels and type; None for what is no plain image."""
    if not v2._utils.is_pure_tensor(value):
        return None
    if value.ndim not in (3, 4) or value.shape[-3] not in (1, 3):
        return None
    if value.dtype != torch.uint8 and not value.is_floating_point():
        return None
    return value.shape[-3], value.dtype


def _is_plain(value: Any) -> bool:
    """Whether a part of a sample can neither be nor hold an image."""
    return value is None or isinstance(value, str | bytes | int | float)


def _words(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{list(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__


def load_policy(path: str | os.PathLike[str]) -> PolicyTransform:
    """The policy in a file, ready to train with.

    A policy that changes over training (`kind` schedule, or a mixture of them) is replayed by
    telling the transform once an epoch how far the training has come, whatever its length:

    >>> augment = load_policy("policy.json")  # doctest: +SKIP
    >>> for epoch in range(epochs):  # doctest: +SKIP
    ...     augment.progress = epoch / epochs
    ...     for images, labels in loader:  # whose data set uses `augment`
    ...         train_on(images, labels)

    An adaptive one (`entaugment`, `sra`) is an `AdaptiveTransform`, to be told of the network.

    Args:
        path: a `policy.json` that a search wrote.

    Returns:
        A transform for `torchvision.transforms.v2.Compose`, which is also an `nn.Module` for
        batches on any device; the policy itself is its attribute `policy`.

    Raises:
        RaysearchError: the file is missing, is not a policy, or is of another version.
    """
    policy = read_policy(path)
    return AdaptiveTransform(policy) if isinstance(policy, Adaptive) else PolicyTransform(policy)
