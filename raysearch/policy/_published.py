"""AutoAugment's published policies (Cubuk et al., CVPR 2019), from the tables in torchvision."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from raysearch.errors import unknown
from raysearch.policy._sub_policies import SubPolicies

Published = Literal["autoaugment_cifar10", "autoaugment_imagenet", "autoaugment_svhn"]
PUBLISHED: tuple[Published, ...] = get_args(Published)
LEVELS = 9  # the largest magnitude in the tables


def autoaugment(name: str) -> SubPolicies:
    """The policy that AutoAugment found on a data set: 25 sub-policies of two operations.

    Magnitudes are those of the tables, 0 to 9, over 9. Translations end at 0.45 of the side, where
    torchvision's end at 0.4532.

    Args:
        name: autoaugment_cifar10, autoaugment_imagenet or autoaugment_svhn.

    Raises:
        RaysearchError: there is no such policy.
    """
    if name not in PUBLISHED:
        raise unknown("policy of AutoAugment", name, PUBLISHED)
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    table = AutoAugment(AutoAugmentPolicy(name.removeprefix("autoaugment_"))).policies
    return SubPolicies(
        [[operation for operation, _, _ in entry] for entry in table],
        [1.0] * len(table),
        _float32([[probability for _, probability, _ in entry] for entry in table]),
        _float32([[_magnitude(*operation) for operation in entry] for entry in table]),
    )


def _float32(rows: list[list[float]]) -> Tensor:
    """In the precision that the policies' files have had from the beginning."""
    return torch.tensor(rows, dtype=torch.float32, device="cpu")


def _magnitude(operation: str, probability: float, level: int | None) -> float:
    """A table's level as a magnitude; 0 where the operation has none."""
    magnitude = 0.0 if level is None else level / LEVELS
    if operation == "Solarize":  # torchvision's threshold begins at 255, ours at 256
        return 1 - (1 - magnitude) * 255 / 256
    return magnitude
