"""DADA's settings, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from raysearch import ops
from raysearch.errors import RaysearchError, unknown


@dataclass(frozen=True)
class DadaSettings:
    """The `method` group of the configuration.

    Attributes:
        name: `dada`.
        operations: names of the operations that are paired.
        estimator: `relax`, `gumbel_softmax` or `reinforce`.
        sampling: a choice per `image`, or one per `batch` as the paper's code draws it.
        lr: Adam's learning rate for α, β and the control variate.
        magnitude_lr: Adam's learning rate for m; 0 keeps the starting magnitudes.
        magnitude_interval: steps from one update of m to the next, at least 1; the derivative
            for m costs a backward pass.
        betas: Adam's decay rates.
        temperature: τ of the relaxations, > 0.
        alpha: standard deviation of the starting logits α.
        probability: starting value of every σ(β), in (0, 1).
        magnitude: starting value of every m, in [0, 1].
        prior_strength: T ≥ 0; see the module's text.
        difference: `forward` or `central` differences along v.
        epsilon: length of the step along v, in weight space.
        warmup: share of the search's epochs, in [0, 1), that train with the starting policy
            before the policy begins to move; they cost one epoch-equivalent each.
        keep: sub-policies of largest α in the final policy; 0 keeps all.
    """

    name: str
    operations: tuple[str, ...]
    estimator: Literal["relax", "gumbel_softmax", "reinforce"]
    sampling: Literal["image", "batch"]
    lr: float
    magnitude_lr: float
    magnitude_interval: int
    betas: tuple[float, float]
    temperature: float
    alpha: float
    probability: float
    magnitude: float
    prior_strength: float
    difference: Literal["forward", "central"]
    epsilon: float
    warmup: float
    keep: int

    def __post_init__(self) -> None:
        for name in self.operations:
            if not isinstance(name, str):
                raise _wrong("operations", name, "names of operations")
            ops.operation_id(name)
        if not all(isinstance(beta, float | int) for beta in self.betas):
            raise _wrong("betas", self.betas, "two numbers")
        for key, known in (
            ("estimator", ("relax", "gumbel_softmax", "reinforce")),
            ("sampling", ("image", "batch")),
            ("difference", ("forward", "central")),
        ):
            if getattr(self, key) not in known:
                raise unknown(f"method.{key}", str(getattr(self, key)), known)
        for key, kind in type(self).__annotations__.items():
            if kind not in ("int", "float"):
                continue
            value, whole = getattr(self, key), kind == "int"
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise _wrong(key, value, "a whole number" if whole else "a number")
        for key, fine, expected in (
            ("operations", len(set(self.operations)) == len(self.operations) >= 2, "two or more"),
            ("lr", self.lr > 0, "a number above 0"),
            ("magnitude_lr", self.magnitude_lr >= 0, "at least 0"),
            ("magnitude_interval", self.magnitude_interval >= 1, "at least 1"),
            ("betas", len(self.betas) == 2, "two numbers"),
            ("betas", all(0 <= beta < 1 for beta in self.betas), "from 0 to below 1"),
            ("temperature", self.temperature > 0, "a number above 0"),
            ("alpha", self.alpha >= 0, "at least 0"),
            ("probability", 0 < self.probability < 1, "between 0 and 1"),
            ("magnitude", 0 <= self.magnitude <= 1, "from 0 to 1"),
            ("prior_strength", self.prior_strength >= 0, "at least 0"),
            ("epsilon", self.epsilon > 0, "a number above 0"),
            ("warmup", 0 <= self.warmup < 1, "from 0 to below 1"),
            ("keep", self.keep >= 0, "at least 0"),
        ):
            if not fine:
                raise _wrong(key, getattr(self, key), expected)

    @classmethod
    def of(cls, method: Mapping[str, Any]) -> DadaSettings:
        """From the configuration group; raises RaysearchError for keys that do not belong."""
        extra = sorted(set(method) - set(cls.__dataclass_fields__))
        missing = sorted(set(cls.__dataclass_fields__) - set(method))
        if extra:
            raise unknown("setting of method dada", extra[0], cls.__dataclass_fields__)
        if missing:
            raise RaysearchError(f"method dada needs method.{missing[0]}")
        values = {**method, "operations": tuple(method["operations"])}
        return cls(**{**values, "betas": tuple(method["betas"])})


def _wrong(key: str, value: object, expected: str) -> RaysearchError:
    return RaysearchError(f"method.{key}={value!r}: expected {expected}")
