"""What needs no search, as methods: the policies that a search has to be better than."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from raysearch import ops
from raysearch.methods._augmenter import TRANSFORMATIONS
from raysearch.methods._base import Method
from raysearch.methods._portfolio import random_transformations
from raysearch.policy import (
    Policy,
    RandomOperations,
    SubPolicies,
    autoaugment,
    entaugment,
    rand_augment,
    sra,
    trivial_augment,
)
from raysearch.training import Predefined

UNCHANGED = RandomOperations(["Identity"])
"""The policy that leaves images to the predefined augmentation."""


def _given(given: Predefined, size: tuple[int, int]) -> Predefined:
    return given


def _none(given: Predefined, size: tuple[int, int]) -> Predefined:
    return Predefined()


def _cutout(given: Predefined, size: tuple[int, int]) -> Predefined:
    """With a square of half the shorter side (16 pixels for CIFAR-10), or the data's own."""
    return replace(given, cutout=given.cutout or max(1, min(size) // 2))


@dataclass(frozen=True)
class Baseline:
    """What needs no search.

    Attributes:
        title: its name for people.
        policy: makes it.
        predefined: what goes with it, from the data's and the images' size; see
            `Method.predefined`.
    """

    title: str
    policy: Callable[[], Policy] = lambda: UNCHANGED
    predefined: Callable[[Predefined, tuple[int, int]], Predefined] = _given


BASELINES = {
    "none": Baseline("no augmentation", predefined=_none),
    "predefined": Baseline("predefined"),
    # DeVries & Taylor, 2017
    "cutout": Baseline("Cutout", predefined=_cutout),
    # Müller & Hutter, ICCV 2021
    "trivial_augment": Baseline("TrivialAugment", trivial_augment),
    # what the network finds easy is changed strongly; ECCV 2024 and IJCV 2025
    "entaugment": Baseline("EntAugment", entaugment),
    "sra": Baseline("SRA", sra),
    "randaugment": Baseline("RandAugment (2, 9)", rand_augment),
    # what online bilevel optimisation and validated magnitude choose within
    **{
        f"affine_colour_{strength}": Baseline(
            f"affine and colour ± {strength}",
            partial(random_transformations, TRANSFORMATIONS["affine+colour"], strength),
        )
        for strength in (0.1, 0.2, 0.3)
    },
    # Cubuk et al., CVPR 2019
    "autoaugment_cifar10": Baseline(
        "AutoAugment (CIFAR-10)", partial(autoaugment, "autoaugment_cifar10")
    ),
    "autoaugment_imagenet": Baseline(
        "AutoAugment (ImageNet)", partial(autoaugment, "autoaugment_imagenet")
    ),
    "autoaugment_svhn": Baseline("AutoAugment (SVHN)", partial(autoaugment, "autoaugment_svhn")),
    # all pairs of DADA's 15 operations alike, at the probabilities and magnitudes it starts at
    "uniform": Baseline("uniform policy", partial(SubPolicies.pairs, ops.DADA_OPERATIONS)),
}
"""By the names that `evaluation.policies` knows, in the order in which they are shown."""

FIXED = tuple(name for name in BASELINES if name != "randaugment")
"""Those that are methods too; the method `randaugment` may search."""


@dataclass(frozen=True)
class Fixed(Method):
    """A method whose policy is known beforehand: one of `BASELINES`, which it is named after."""

    @property
    def known(self) -> Policy:
        """The policy."""
        return BASELINES[self.name].policy()

    def predefined(self, given: Predefined, size: tuple[int, int]) -> Predefined:
        """What goes with it."""
        return BASELINES[self.name].predefined(given, size)
