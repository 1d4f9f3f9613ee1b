"""torchvision's classifiers, untrained, for any number of classes and for grey images."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torchvision import models

from raysearch.errors import RaysearchError


@cache
def torchvision_names() -> tuple[str, ...]:
    """Names of torchvision's image classifiers."""
    return tuple(models.list_models(module=models))


def build_torchvision(
    name: str, *, classes: int, channels: int, size: tuple[int, int]
) -> nn.Module:
    """A torchvision classifier without weights.

    Its first convolution is replaced by one of `channels` inputs where the images are not RGB;
    auxiliary heads (googlenet, inception_v3) are left out, so that it always returns logits.

    Raises:
        RaysearchError: the network does not take images of this size.
    """
    options: dict[str, Any] = {"weights": None, "num_classes": classes}
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": True}
    elif name.startswith("vit_"):
        if size[0] != size[1]:
            raise _refusal(name, size, "it takes square images only")
        options["image_size"] = size[0]
    elif name == "maxvit_t":
        options["input_size"] = size
    try:
        model = _create(name, channels, options).eval()
        # A pass on the meta device computes nothing and shows whether the sizes fit.
        state = {key: value.to("meta") for key, value in model.state_dict().items()}
        with torch.no_grad():
            functional_call(model, state, (torch.empty(2, channels, *size, device="meta"),))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise _refusal(name, size, str(error)) from error
    return model.train()


def _create(name: str, channels: int, options: dict[str, Any]) -> nn.Module:
    model: nn.Module = models.get_model(name, **options)
    if channels == 3:
        return model
    path, first = next((p, m) for p, m in model.named_modules() if isinstance(m, nn.Conv2d))
    parent, _, attribute = path.rpartition(".")
    replacement = nn.Conv2d(
        channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    setattr(model.get_submodule(parent), attribute, replacement)
    return model


def _refusal(name: str, size: tuple[int, int], reason: str) -> RaysearchError:
    return RaysearchError(
        f"model {name} does not take {size[0]}x{size[1]} images ({reason.strip().splitlines()[0]})"
        "; try data.size=224, or for small images model=resnet18 or model=wrn40x2"
    )
