"""ResNets for 32x32 images (He et al., "Deep Residual Learning", CVPR 2016)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """conv3x3-BN-ReLU-conv3x3-BN, plus the input, then ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if inputs != outputs or stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        residual = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(residual + self.shortcut(x))


class CifarResNet(nn.Module):
    """A ResNet that begins with one 3x3 convolution at full resolution, without pooling.

    Every stage but the first halves height and width.

    Args:
        widths: channels of the stages.
        blocks: of each stage.
        classes: length of the logits.
        channels: channels of the images.
    """

    def __init__(self, widths: Sequence[int], blocks: int, classes: int, channels: int) -> None:
        super().__init__()
        inputs = widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(channels, inputs, 3, 1, 1, bias=False), nn.BatchNorm2d(inputs), nn.ReLU()
        )
        stages: list[nn.Module] = []
        for index, outputs in enumerate(widths):
            for block in range(blocks):
                stride = 2 if index and not block else 1
                stages.append(BasicBlock(inputs, outputs, stride))
                inputs = outputs
        self.blocks = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return logits


def resnet18(classes: int, channels: int) -> CifarResNet:
    """ResNet-18 with a stem for small images: 11.2 million parameters."""
    return CifarResNet((64, 128, 256, 512), 2, classes, channels)


def resnet20(classes: int, channels: int) -> CifarResNet:
    """ResNet-20 (section 4.2 there), with projections where the width changes: 0.27 million."""
    return CifarResNet((16, 32, 64), 3, classes, channels)
