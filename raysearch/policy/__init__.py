"""Augmentation policies: sampled, applied, described, drawn, written to JSON and read back."""

from __future__ import annotations

from raysearch.policy._base import Draws, Policy, random_draws
from raysearch.policy._files import from_json, read_policy
from raysearch.policy._random_operations import (
    TRIVIAL_AUGMENT_OPERATIONS,
    RandomOperations,
    trivial_augment,
)
from raysearch.policy._sub_policies import SubPolicies
from raysearch.policy._transform import PolicyTransform, load_policy

__all__ = [
    "TRIVIAL_AUGMENT_OPERATIONS",
    "Draws",
    "Policy",
    "PolicyTransform",
    "RandomOperations",
    "SubPolicies",
    "from_json",
    "load_policy",
    "random_draws",
    "read_policy",
    "trivial_augment",
]
