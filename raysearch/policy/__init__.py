"""Augmentation policies: sampled, applied, described, drawn, written to JSON and read back."""

from __future__ import annotations

from raysearch.policy._adaptive import Adaptive, Magnitudes, entaugment, sra
from raysearch.policy._base import Policy
from raysearch.policy._basic import Basic
from raysearch.policy._candidates import Candidates
from raysearch.policy._files import from_json, read_policy
from raysearch.policy._mixture import Mixture
from raysearch.policy._operations import Draws, OperationPolicy, random_draws
from raysearch.policy._pairs import MAX_ELEMENTS, Pairs
from raysearch.policy._published import PUBLISHED, autoaugment
from raysearch.policy._random_operations import (
    TRIVIAL_AUGMENT_OPERATIONS,
    RandomOperations,
    rand_augment,
    trivial_augment,
)
from raysearch.policy._random_order import RandomOrder
from raysearch.policy._schedule import Schedule
from raysearch.policy._sequence import Sequence
from raysearch.policy._sub_policies import SubPolicies
from raysearch.policy._transform import AdaptiveTransform, PolicyTransform, load_policy
from raysearch.policy._transformations import Transformations

__all__ = [
    "MAX_ELEMENTS",
    "PUBLISHED",
    "TRIVIAL_AUGMENT_OPERATIONS",
    "Adaptive",
    "AdaptiveTransform",
    "Basic",
    "Candidates",
    "Draws",
    "Magnitudes",
    "Mixture",
    "OperationPolicy",
    "Pairs",
    "Policy",
    "PolicyTransform",
    "RandomOperations",
    "RandomOrder",
    "Schedule",
    "Sequence",
    "SubPolicies",
    "Transformations",
    "autoaugment",
    "entaugment",
    "from_json",
    "load_policy",
    "rand_augment",
    "random_draws",
    "read_policy",
    "sra",
    "trivial_augment",
]
