"""Networks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from raysearch.errors import RaysearchError, near
from raysearch.models._resnet import resnet18, resnet20
from raysearch.models._small_cnn import SmallCNN
from raysearch.models._torchvision import build_torchvision, torchvision_names
from raysearch.models._wrn import WideResNet

Builder = Callable[[int, int, tuple[int, int]], nn.Module]
"""From classes, channels and the (height, width) of the images in pixels to a network."""

OWN: dict[str, tuple[int, Builder]] = {
    "small_cnn": (4, SmallCNN),
    "resnet18": (8, lambda classes, channels, _: resnet18(classes, channels)),
    "resnet20": (8, lambda classes, channels, _: resnet20(classes, channels)),
    "wrn40x2": (4, lambda classes, channels, _: WideResNet(40, 2, classes, channels)),
    "wrn28x10": (4, lambda classes, channels, _: WideResNet(28, 10, classes, channels)),
}
"""Our own, with the least pixels of a side that they take."""


def names() -> list[str]:
    """All that `build` knows; torchvision's own resnet18 is hidden by the CIFAR one."""
    return [*OWN, *(name for name in torchvision_names() if name not in OWN)]


def build(
    name: str | Builder,
    *,
    classes: int,
    channels: int,
    size: tuple[int, int],
    weights: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """A classifier, freshly initialised by the global torch generator or with given weights.

    It takes normalised images, float [B, channels, height, width], and returns logits
    [B, classes], in training as in evaluation.

    Args:
        name: small_cnn, resnet18, resnet20 (for 32x32 images), wrn40x2, wrn28x10, or a torchvision
            classifier by its torchvision name, for instance resnet50 or efficientnet_b0; or what
            builds the network from classes, channels and size.
        classes: number of classes.
        channels: 1 or 3.
        size: height and width of the images in pixels.
        weights: a `state_dict` to take over.

    Raises:
        RaysearchError: the name is unknown, or the network does not take images of this size.
    """
    if isinstance(name, str):
        model = _named(name, classes, channels, size)
    else:
        model = _own(name, classes, channels, size)
    if weights is not None:
        model.load_state_dict(weights)
    return model


def _named(name: str, classes: int, channels: int, size: tuple[int, int]) -> nn.Module:
    if name in OWN:
        least, builder = OWN[name]
        if min(size) < least:
            raise RaysearchError(
                f"model {name} takes images of at least {least}x{least} pixels, not "
                f"{size[0]}x{size[1]}: give data.size={least} or more"
            )
        return builder(classes, channels, size)
    if name in torchvision_names():
        return build_torchvision(name, classes=classes, channels=channels, size=size)
    known = f"{', '.join(OWN)} and every torchvision classifier"
    raise RaysearchError(f"unknown model {name!r}{near(name, names())} (known: {known})")


def _own(builder: Builder, classes: int, channels: int, size: tuple[int, int]) -> nn.Module:
    """The network that a function of the user's builds."""
    if not callable(builder):
        raise RaysearchError(f"model={builder!r}: expected a name or a function that builds one")
    model = builder(classes, channels, size)
    if not isinstance(model, nn.Module):
        raise RaysearchError(
            f"model={name_of(builder)} gave a {type(model).__name__}, not a torch.nn.Module"
        )
    return model


def name_of(model: str | Builder) -> str:
    """A model's name; of a function that builds one, its own."""
    if isinstance(model, str):
        return model
    return str(getattr(model, "__qualname__", type(model).__qualname__))
