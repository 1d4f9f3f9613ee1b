"""Continuous transformations with learned parameters: what online bilevel optimisation returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from raysearch.errors import unknown
from raysearch.ops import _continuous
from raysearch.policy import _checks as checks
from raysearch.policy._base import Policy, source
from raysearch.policy._operations import Numbers, numbers

MAX_PARAMETER = 1e6  # beyond which float32 places in an image mean nothing
_DECIMALS = 10**5


class Transformations(Policy):
    """Each image gets one of N sets of parameters of `raysearch.ops.differentiable.transform`.

    An empirical distribution: N draws of an augmenter network (Mounsaveng et al., WACV 2021)
    stand for it, so that a file needs no network. The colour operations are carried out in an
    order that is drawn for each batch, as in section 3.2 there.

    Args:
        names: P parameters (see `raysearch.ops.differentiable.PARAMETERS`), without repetition.
        draws: N sets of them, [N, P]; 0 changes nothing. Rounded to 5 decimals.

    Raises:
        ValueError: shapes that do not fit, a name twice, or numbers that are not finite.
        RaysearchError: an unknown parameter.
    """

    kind: ClassVar[str] = "transformations"
    fields: ClassVar[Mapping[str, checks.Check]] = {
        "names": checks.list_of(checks.NAME, least=1, most=16),
        "draws": checks.rows,
    }

    def __init__(self, names: Sequence[str], draws: Numbers) -> None:
        self.names = tuple(names)
        for name in self.names:
            if name not in _continuous.PARAMETERS:
                raise unknown("parameter", name, _continuous.PARAMETERS)
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f"names must be at least one and different, got {list(self.names)}")
        shape = max(1, len(draws)), len(names)
        exact = numbers(draws, "draws", *shape, low=-MAX_PARAMETER, high=MAX_PARAMETER)
        self.draws = exact.mul_(_DECIMALS).round_().div_(_DECIMALS)

    def __len__(self) -> int:
        return len(self.draws)

    def _augment(
        self, images: Tensor, generator: torch.Generator | None, progress: float
    ) -> Tensor:
        """Transform each image with one of the N sets; see `Policy.__call__`."""
        device = source(generator)
        row = torch.randint(len(self), (len(images),), device=device, generator=generator)
        colour = [name for name in _continuous.COLOUR if name in self.names]
        order = torch.randperm(len(colour), device=device, generator=generator).tolist()
        if not len(images):
            return images.clone()
        drawn = self.draws.float().to(device)[row].to(images.device)
        levels = images.to(torch.float32)
        levels = levels.clamp(0, 1) if images.is_floating_point() else levels / 255
        result = _continuous.transform(
            levels,
            dict(zip(self.names, drawn.unbind(1), strict=True)),
            [colour[i] for i in order],
        )
        if not images.is_floating_point():
            result = result.mul(255).round()
        return result.clamp(0, 1 if images.is_floating_point() else 255).to(images.dtype)

    def parameters(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation of each, and of the rotation in degrees that they make."""
        values = dict(zip(self.names, self.draws.unbind(1), strict=True))
        if {"a11", "a12", "a21", "a22"} <= set(self.names):
            values = {"rotation": _continuous.rotation(values), **values}
        return {
            name: (float(value.mean()), float(value.std(correction=0)))
            for name, value in values.items()
        }

    def describe(self, most: int = 10) -> str:
        """Mean and standard deviation of the parameters, one a line."""
        lines = [
            f"{name:<10}  {mean:+.3f} ± {std:.3f}{'°' if name == 'rotation' else ''}"
            for name, (mean, std) in self.parameters().items()
        ]
        rest = len(lines) - most
        return "\n".join([*lines[:most], *([f"… and {rest} more"] if rest > 0 else [])])
