"""What needs no search, as methods: the policies that a search has to be better than."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from raysearch import ops
from raysearch.methods._base import Method
from raysearch.policy import (
    PUBLISHED,
    Policy,
    RandomOperations,
    SubPolicies,
    autoaugment,
    rand_augment,
    trivial_augment,
)
from raysearch.training import Predefined

UNCHANGED = RandomOperations(["Identity"])
"""The policy that leaves images to the predefined augmentation."""


class Fixed(Method):
    """A method whose policy is known beforehand."""

    @classmethod
    def known(cls, method: Mapping[str, Any]) -> Policy:
        """The policy; nothing but the predefined augmentation unless a subclass has one."""
        return UNCHANGED


class NoAugmentation(Fixed):
    """Images as they are."""

    @classmethod
    def predefined(cls, given: Predefined, size: tuple[int, int]) -> Predefined:
        """None of it."""
        return Predefined()


class PredefinedAlone(Fixed):
    """The data's predefined augmentation."""


class Cutout(Fixed):
    """Cutout (DeVries & Taylor, 2017) with the rest of the predefined augmentation."""

    @classmethod
    def predefined(cls, given: Predefined, size: tuple[int, int]) -> Predefined:
        """With a square of half the shorter side (16 pixels for CIFAR-10), or the data's own."""
        return replace(given, cutout=given.cutout or max(1, min(size) // 2))


class Uniform(Fixed):
    """All pairs of DADA's 15 operations alike, at the probabilities and magnitudes it starts at."""

    @classmethod
    def known(cls, method: Mapping[str, Any]) -> Policy:
        """That policy."""
        return SubPolicies.pairs(ops.DADA_OPERATIONS)


class TrivialAugment(Fixed):
    """TrivialAugment Wide (Müller & Hutter, ICCV 2021)."""

    @classmethod
    def known(cls, method: Mapping[str, Any]) -> Policy:
        """That policy."""
        return trivial_augment()


class AutoAugment(Fixed):
    """A policy that AutoAugment published (Cubuk et al., CVPR 2019)."""

    name: ClassVar[str]

    @classmethod
    def known(cls, method: Mapping[str, Any]) -> Policy:
        """That policy."""
        return autoaugment(cls.name)


FIXED: dict[str, type[Fixed]] = {
    "none": NoAugmentation,
    "predefined": PredefinedAlone,
    "cutout": Cutout,
    "uniform": Uniform,
    "trivial_augment": TrivialAugment,
    **{name: type(name, (AutoAugment,), {"name": name}) for name in PUBLISHED},
}
"""Those that are methods, by name."""

Augmentation = tuple[Policy | None, Predefined | None]
"""A policy, and the predefined augmentation that goes with it; None is nothing."""


def augmentations(given: Predefined, size: tuple[int, int]) -> dict[str, Augmentation]:
    """What needs no search, by the names that `evaluation.policies` knows.

    Those are the names in `FIXED`, and `randaugment` (N = 2, M = 9).

    Args:
        given: the data's predefined augmentation.
        size: (height, width) of the images in pixels.
    """
    found: dict[str, Augmentation] = {"randaugment": (rand_augment(), given)}
    for name, cls in FIXED.items():
        policy, predefined = cls.known({}), cls.predefined(given, size)
        found[name] = (
            None if policy == UNCHANGED else policy,
            None if predefined == Predefined() else predefined,
        )
    return found
