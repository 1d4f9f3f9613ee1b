"""A policy as a torchvision v2 transform, which is an `nn.Module` too."""

from __future__ import annotations

import os
from typing import Any, NoReturn

import numpy as np
import PIL.Image
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from raysearch.policy._base import Policy, outside_graphs, refuse_scripting
from raysearch.policy._files import read_policy


class PolicyTransform(v2.Transform):  # type: ignore[misc]
    """Applies a policy inside `v2.Compose`, in a DataLoader worker or to a batch on a GPU.

    Takes PIL images and tensors: uint8, or floating point in [0, 1], [C, H, W] or
    [B, C, H, W], C 1 or 3. Each image of a batch gets a draw of its own. Labels and other parts
    of a sample pass through, as in every v2 transform. Randomness is torch's global generator,
    so `torch.manual_seed` makes it repeatable. A network that contains one can be compiled with
    `torch.compile`, which runs the policy as it is and compiles the rest.

    Args:
        policy: the policy to apply.

    Attributes:
        progress: how far the training has come, in [0, 1]; set it every epoch for a policy that
            changes over a training (`policy.moments()` has more than one entry). Until it is set,
            such a policy is as at its end. Others ignore it. The workers of a DataLoader see it
            too, also persistent ones.

    Raises:
        ValueError: floating-point images or a progress outside [0, 1].
        TypeError: images as NumPy arrays, or the sample carries boxes, masks or key points, which
            the geometric operations would have to move along and do not.
        RaysearchError: it is part of what `torch.jit.script` is called on.

    Example:
        >>> transform = v2.Compose([load_policy("policy.json"), v2.ToImage()])  # doctest: +SKIP
    """

    _transformed_types = (v2._utils.is_pure_tensor, tv_tensors.Image, PIL.Image.Image)

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy
        # in shared memory, as workers have a copy of everything else
        self._progress = torch.ones((), dtype=torch.float64)
        self._progress.share_memory_()  # type: ignore[no-untyped-call]

    @property
    def progress(self) -> float:
        """How far the training has come."""
        return float(self._progress)

    @progress.setter
    def progress(self, value: float) -> None:
        if not 0 <= value <= 1:
            raise ValueError(f"progress must lie in [0, 1], got {value}")
        self._progress.fill_(value)

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

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Augment one image or batch."""
        if isinstance(inpt, PIL.Image.Image):
            if inpt.mode not in ("L", "RGB"):
                raise TypeError(f"images of mode L or RGB, not {inpt.mode}; use .convert('RGB')")
            images = F.pil_to_tensor(inpt)
            return F.to_pil_image(self._augment(images), mode=inpt.mode)
        augmented = self._augment(inpt.as_subclass(torch.Tensor))
        return (
            tv_tensors.wrap(augmented, like=inpt) if type(inpt) is not torch.Tensor else augmented
        )

    def _augment(self, images: torch.Tensor) -> torch.Tensor:
        if images.ndim not in (3, 4):
            raise TypeError(f"images of shape [C, H, W] or [B, C, H, W], not {list(images.shape)}")
        if images.is_floating_point() and not bool(((images >= 0) & (images <= 1)).all()):
            raise ValueError(
                "floating-point images must lie in [0, 1]; put the policy before v2.Normalize"
            )
        batch = images if images.ndim == 4 else images[None]
        return self.policy(batch, progress=self.progress).reshape(images.shape)

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


def load_policy(path: str | os.PathLike[str]) -> PolicyTransform:
    """The policy in a file, ready to train with.

    A policy that changes over training (`kind` schedule, or a mixture of them) is replayed by
    telling the transform once an epoch how far the training has come, whatever its length:

    >>> augment = load_policy("policy.json")  # doctest: +SKIP
    >>> for epoch in range(epochs):  # doctest: +SKIP
    ...     augment.progress = epoch / epochs
    ...     for images, labels in loader:  # whose data set uses `augment`
    ...         train_on(images, labels)

    Args:
        path: a `policy.json` that a search wrote.

    Returns:
        A transform for `torchvision.transforms.v2.Compose`, which is also an `nn.Module` for
        batches on any device; the policy itself is its attribute `policy`.

    Raises:
        RaysearchError: the file is missing, is not a policy, or is of another version.
    """
    return PolicyTransform(read_policy(path))
