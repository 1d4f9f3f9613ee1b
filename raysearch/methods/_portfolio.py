"""What a good practitioner would try: complete policies by name, from the simplest to the richest.

A name is made of steps that are joined by `+`, some of them with a strength after an `@`:
`none`, `crop`, `predefined+trivial_augment`, `flip+crop+affine_colour@0.2`, `randaugment@2/9`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from raysearch import ops
from raysearch.errors import RaysearchError, unknown
from raysearch.methods._augmenter import TRANSFORMATIONS, parameter_names
from raysearch.policy import (
    TRIVIAL_AUGMENT_OPERATIONS,
    Basic,
    Policy,
    RandomOperations,
    SubPolicies,
    Transformations,
    rand_augment,
)
from raysearch.policy import (
    Sequence as InTurn,
)
from raysearch.training import Predefined, Setup

DRAWS = 1024  # that stand for a distribution of transformations
RANGES = {"tx": 1.0, "ty": 1.0, "hue": 0.5}  # at magnitude 1; of all others 1 too
"""The largest deviations: a matrix entry by 1 from the identity's, a translation by half a side,
brightness, contrast and saturation by all of it, hue by a quarter turn."""


def random_transformations(names: Sequence[str], magnitude: float) -> Transformations:
    """Parameters from U(−m·range, m·range), evenly spread (a scrambled Sobol sequence).

    Args:
        names: parameters of `raysearch.ops.differentiable`.
        magnitude: m, in [0, 1].
    """
    sobol = torch.quasirandom.SobolEngine(len(names), True, 0)  # type: ignore[no-untyped-call]
    largest = torch.tensor([RANGES.get(name, 1.0) for name in names])
    return Transformations(names, magnitude * largest * (2 * sobol.draw(DRAWS) - 1))


@dataclass(frozen=True)
class Images:
    """What complete policies depend on.

    Attributes:
        size: (height, width) in pixels.
        mean: of each channel over the training images, in [0, 1].
        predefined: the data's predefined augmentation.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    predefined: Predefined

    @classmethod
    def of(cls, setup: Setup) -> Images:
        """Those that a search works on."""
        data = setup.dataset
        return cls(data.size, tuple(data.mean), setup.predefined)

    @property
    def padding(self) -> int:
        """Pixels to pad by before cropping: the predefined, or an eighth of the shorter side."""
        return self.predefined.padding or max(1, round(min(self.size) / 8))

    @property
    def square(self) -> int:
        """Cutout's side in pixels: the predefined, or half of the shorter side."""
        return self.predefined.cutout or max(1, min(self.size) // 2)


Make = Callable[[Images, float], Policy]


def _transformed(which: str) -> Make:
    def make(images: Images, strength: float) -> Policy:
        return random_transformations(parameter_names(which, len(images.mean)), strength)

    return make


def _trivial(images: Images, strength: float) -> Policy:
    levels = max(2, round(31 * strength)) if strength else 1
    return RandomOperations(TRIVIAL_AUGMENT_OPERATIONS, 1, 0, strength, levels)


BASIC = ("none", "predefined", "flip", "vertical_flip", "crop", "cutout")
"""Steps without a strength, which are one policy before, and Cutout after, what else there is."""

STRONG: dict[str, tuple[float, Make]] = {
    "trivial_augment": (1.0, _trivial),
    "uniform": (1.0, lambda images, strength: SubPolicies.pairs(ops.DADA_OPERATIONS)),
    **{
        name.replace("+", "_"): (0.2, _transformed(name))
        for name in TRANSFORMATIONS
        if name != "translation"
    },
}
"""Steps with a strength in (0, 1]: its default, and what makes the policy."""

_RANDAUGMENT = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True)
class Step:
    """One of the steps of a candidate.

    Attributes:
        name: of `BASIC` or `STRONG`, or `randaugment`.
        count: operations per image.
        strength: in [0, 1]; of a step without one, 0.
    """

    name: str
    count: int = 1
    strength: float = 0.0

    def __str__(self) -> str:
        if self.name == "randaugment":
            return f"{self.name}@{self.count}/{round(30 * self.strength)}"
        default = STRONG.get(self.name, (0.0,))[0]
        return self.name if self.strength == default else f"{self.name}@{self.strength:g}"


def steps(name: str) -> tuple[Step, ...]:
    """What a candidate's name says.

    Raises:
        RaysearchError: a step that is not known, or a strength that it does not take.
    """
    return tuple(_step(part, name) for part in name.split("+"))


def _step(text: str, whole: str) -> Step:
    name, at, strength = text.partition("@")
    if name == "randaugment":
        found = _RANDAUGMENT.fullmatch(strength or "2/9")
        if found and 1 <= int(found[1]) <= 16 and int(found[2]) <= 30:
            return Step(name, int(found[1]), int(found[2]) / 30)
        raise RaysearchError(f"candidate {whole!r}: write randaugment@N/M, as in randaugment@2/9")
    if name in BASIC and not at:
        return Step(name)
    if name not in STRONG:
        raise unknown("step of a candidate", text, [*BASIC, *STRONG, "randaugment@N/M"])
    try:
        value = float(strength) if at else STRONG[name][0]
    except ValueError:
        value = math.nan
    if not 0 < value <= 1 or (name == "uniform" and at):
        raise RaysearchError(f"candidate {whole!r}: {name}@ takes a strength above 0, at most 1")
    return Step(name, strength=value)


def complete_policy(name: str, images: Images) -> Policy:
    """The policy of a candidate, with all that is done to an image.

    Args:
        name: see the module's text.
        images: what it is for.

    Raises:
        RaysearchError: there is no such candidate.
    """
    found = steps(name)
    names = {step.name for step in found}
    given = images.predefined if "predefined" in names else Predefined()
    basic = Predefined(
        flip=given.flip or "flip" in names,
        vertical_flip=given.vertical_flip or "vertical_flip" in names,
        padding=images.padding if given.padding or "crop" in names else 0,
        cutout=images.square if given.cutout or "cutout" in names else 0,
    )
    first, last = basic.before(), basic.after(images.mean)
    inner = [_strong(step, images) for step in found if step.name not in BASIC]
    every = [first, *inner, last]
    parts = [one for one in every if not (isinstance(one, Basic) and one.changes_nothing)]
    if not parts:
        return first
    return parts[0] if len(parts) == 1 else InTurn(parts)


def _strong(step: Step, images: Images) -> Policy:
    if step.name == "randaugment":
        return rand_augment(step.count, 30 * step.strength)
    return STRONG[step.name][1](images, step.strength)


def distinct(names: Sequence[str], images: Images) -> list[str]:
    """The candidates that are not the same policy, on these images, as an earlier one."""
    found: dict[Policy, str] = {}
    for name in names:
        found.setdefault(complete_policy(name, images), name)
    return list(found.values())


def richness(name: str) -> tuple[int, float]:
    """How much a candidate does: operations beyond the basic ones, and their strength.

    Of two candidates that cannot be told apart, the one that does less is better.
    """
    found = [step for step in steps(name) if step.name != "none"]
    strong = [step for step in found if step.name not in BASIC]
    basic = sum(2 if step.name == "predefined" else 1 for step in found if step not in strong)
    return 10 * sum(step.count for step in strong) + basic, max(
        (step.strength for step in strong), default=0.0
    )


def neighbours(name: str, factor: float) -> list[str]:
    """The candidate a little weaker and a little stronger; none where it has no strength.

    Args:
        name: the candidate.
        factor: by which the strength is divided and multiplied, above 1.
    """
    found = steps(name)
    scaled = [step for step in found if step.name in STRONG and step.name != "uniform"]
    if not scaled:
        return []
    result = []
    for times in (1 / factor, factor):
        strength = float(f"{scaled[-1].strength * times:.2g}")
        if 0 < strength <= 1:
            result.append(
                "+".join(
                    str(Step(s.name, s.count, strength) if s is scaled[-1] else s) for s in found
                )
            )
    return result
