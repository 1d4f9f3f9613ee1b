"""The augmenter: a network from noise to the parameters of differentiable transformations.

Mounsaveng et al., "Learning Data Augmentation with Online Bilevel Optimization for Image
Classification" (WACV 2021), section 3.2 and supplement.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raysearch.ops import differentiable
from raysearch.ops.differentiable import AFFINE, COLOUR, NEEDS_COLOUR, TRANSLATION

TRANSFORMATIONS: dict[str, tuple[str, ...]] = {
    "translation": TRANSLATION,
    "affine": AFFINE,
    "colour": COLOUR,
    "affine+colour": (*AFFINE, *COLOUR),
}
"""What an augmenter may learn, and the parameters that it then has."""

SIZES: dict[str, tuple[int, ...]] = {
    "small": (),
    "medium": (100, 64, 32),
    "large": (100, 512, 1024, 124, 512),
}
"""Sizes of noise and hidden layers; `small` follows the number n of parameters: n, n, 10n."""

DROPOUT = 0.2


def parameter_names(transformations: str, channels: int) -> tuple[str, ...]:
    """The parameters of a choice of `TRANSFORMATIONS` for images of 1 or 3 channels."""
    names = TRANSFORMATIONS[transformations]
    return names if channels == 3 else tuple(n for n in names if n not in NEEDS_COLOUR)


class Augmenter(nn.Module):
    """A_φ: from noise U(−1, 1) to transformation parameters, whatever the image.

    Affine parameters are deviations from the identity, without bound; colour parameters go
    through tanh.

    Args:
        names: parameters of `raysearch.ops.differentiable`.
        size: of `SIZES`.
        gain: factor on the starting weights of the last layer, which then starts without biases;
            0 leaves both as they were drawn.
    """

    def __init__(self, names: tuple[str, ...], size: str, gain: float = 0.0) -> None:
        super().__init__()
        self.names = names
        n = len(names)
        self.noise, *hidden = SIZES[size] or (n, n, 10 * n)
        layers: list[nn.Module] = []
        width = self.noise
        for wider in hidden:
            layers += [nn.Linear(width, wider), nn.ReLU(), nn.Dropout(DROPOUT)]
            width = wider
        last = nn.Linear(width, n)
        if gain:
            nn.init.zeros_(last.bias)
            last.weight.data.mul_(gain)
        self.network = nn.Sequential(*layers, last)

    def forward(self, noise: Tensor) -> dict[str, Tensor]:
        """Parameters by name, each [B], from noise [B, self.noise]."""
        outputs = self.network(noise).unbind(1)
        return {
            name: torch.tanh(value) if name in COLOUR else value
            for name, value in zip(self.names, outputs, strict=True)
        }

    def draw(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Parameters of n images, from noise of a generator on the CPU."""
        noise = torch.rand(n, self.noise, generator=generator).mul_(2).sub_(1)
        parameters: dict[str, Tensor] = self(noise.to(next(self.parameters())))
        return parameters

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Transform each image by a draw of its own, differentiably in φ.

        Args:
            images: uint8 [B, C, H, W].
            generator: on the CPU; also draws the order of the colour operations.
        """
        levels = images.to(next(self.parameters()).dtype).div_(255)
        order = [COLOUR[i] for i in torch.randperm(len(COLOUR), generator=generator).tolist()]
        return differentiable.transform(levels, self.draw(len(images), generator), order)
