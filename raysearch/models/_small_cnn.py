"""A small convolutional network, quick on a CPU."""

from __future__ import annotations

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Four 3x3 convolutions of 32, 48, 64 and 64 channels, each with BN and ReLU; 79,690
    parameters for 10 classes of grey images.

    The resolution is halved after the first, second and third convolution as long as at least 4
    pixels remain, so that it takes images from 8x8 (halved once) to about 64x64; larger ones work
    but see only a part of the image at a time.

    Args:
        classes: length of the logits.
        channels: channels of the images.
        size: height and width of the images, at least 4.
    """

    def __init__(self, classes: int, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs, side = channels, min(size)
        for outputs in (32, 48, 64, 64):
            layers += [
                nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
            if side >= 8:
                layers.append(nn.MaxPool2d(2))
                side //= 2
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).mean((2, 3)))
        return logits
