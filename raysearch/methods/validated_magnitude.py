"""Validated magnitude: the baseline of Mounsaveng et al. (WACV 2021, section 4).

One scalar scales the range from which every transformation parameter is drawn, uniformly and
symmetrically about the value that changes nothing. Optuna chooses it on validation images, over
full trainings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field

from raysearch.methods._augmenter import TRANSFORMATIONS
from raysearch.methods._study import Range, Space
from raysearch.methods._tuned import Tuned
from raysearch.policy import Transformations

DRAWS = 1024  # that stand for the distribution in the policy
RANGES = {"tx": 1.0, "ty": 1.0, "hue": 0.5}  # at magnitude 1; of all others 1 too


@dataclass(frozen=True)
class ValidatedMagnitude(Tuned):
    """Optuna chooses one magnitude for all transformations; see the module's text.

    Attributes:
        transformations: whose parameters are drawn.
        largest: magnitude, in (0, 1], up to which is searched. At 1 a matrix entry deviates by up
            to 1 from the identity's, a translation is up to half a side, brightness, contrast and
            saturation change by up to all of it, and hue by a quarter turn.
    """

    title: ClassVar[str] = "validated magnitude"
    transformations: Literal["translation", "affine", "colour", "affine+colour"]
    largest: Annotated[float, Field(gt=0, le=1)]

    @property
    def space(self) -> Space:
        """The magnitude."""
        return {"magnitude": Range(0.0, self.largest)}

    def policy(self, params: Mapping[str, Any]) -> Transformations:
        """Parameters from U(−m·range, m·range), evenly spread (a scrambled Sobol sequence)."""
        names = TRANSFORMATIONS[self.transformations]
        sobol = torch.quasirandom.SobolEngine(len(names), True, 0)  # type: ignore[no-untyped-call]
        unit = sobol.draw(DRAWS)
        largest = torch.tensor([RANGES.get(name, 1.0) for name in names])
        return Transformations(names, params["magnitude"] * largest * (2 * unit - 1))

    @property
    def uniform(self) -> None:
        """None: parameters of continuous transformations are learnt, and no operations."""


METHOD = ValidatedMagnitude
