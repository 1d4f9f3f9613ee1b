"""What the settings of every method share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator

from raysearch import ops
from raysearch.settings import BelowOne, NotNegative, Positive, checked


def _operation(name: str) -> str:
    ops.operation_id(name)
    return name


def _one_or_more(names: tuple[str, ...]) -> tuple[str, ...]:
    if not 1 <= len(names) == len(set(names)):
        raise ValueError("expected one or more, each once")
    return names


def _two_or_more(names: tuple[str, ...]) -> tuple[str, ...]:
    if not 2 <= len(names) == len(set(names)):
        raise ValueError("expected two or more, each once")
    return names


Operation = Annotated[str, AfterValidator(_operation)]
SomeOperations = Annotated[tuple[Operation, ...], AfterValidator(_one_or_more)]
Operations = Annotated[tuple[Operation, ...], AfterValidator(_two_or_more)]


@dataclass(frozen=True)
class MethodSettings:
    """A method's group of the configuration; a subclass is a frozen dataclass of its settings.

    Attributes:
        name: the method's name.
    """

    name: str

    @classmethod
    def of(cls, method: Mapping[str, Any]) -> Self:
        """From the configuration group.

        Raises:
            RaysearchError: a key that does not belong, one that is missing, or a wrong value.
        """
        return checked(cls, "method", method)


@dataclass(frozen=True)
class RewardSettings(MethodSettings):
    """Settings of the methods that move a policy over operations by per-image rewards.

    Attributes:
        operations: names of the operations that are searched, two or more.
        sampling: a choice per `image`, or choices for the whole `batch` as the papers' code has it.
        lr: Adam's learning rate for the policy's logits.
        betas: Adam's decay rates.
        prior_strength: T ≥ 0; see the methods' texts.
        difference: `forward` or `central` differences along v; `auto` is forward on the CPU and
            central on a GPU, where a forward difference is no cheaper.
        epsilon: length of the step along v, in weight space.
        warmup: share of the search's epochs, in [0, 1), that train with the starting policy
            before the policy begins to move; they cost one epoch-equivalent each.
    """

    operations: Operations
    sampling: Literal["image", "batch"]
    lr: Positive
    betas: tuple[BelowOne, BelowOne]
    prior_strength: NotNegative
    difference: Literal["auto", "forward", "central"]
    epsilon: Positive
    warmup: BelowOne
