"""A trained network as a file, and back."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raysearch import models, tasks
from raysearch.errors import RaysearchError, one_line
from raysearch.states import load
from raysearch.training._setup import Setup

KEYS = ("model", "classes", "channels", "size", "mean", "std", "weights")
LARGEST = 8192  # pixels of a side


class TrainedNetwork(nn.Module):
    """A network with the normalisation of the data that it was trained on.

    Args:
        document: what `network_document` gave.
        builder: what built the network, where that was a function and not a name.

    Attributes:
        task: what was predicted, by its name; see `raysearch.tasks`.
        classes: class names, in the order of the outputs.
        size: height and width, in pixels, of the images that it was trained on.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, document: Mapping[str, Any], builder: models.Builder | None = None) -> None:
        super().__init__()
        self.classes = tuple(document["classes"])
        self.size = tuple(document["size"])
        self.task = document.get("task", "classification")
        self.network = tasks.find(self.task).model(
            builder or document["model"],
            classes=len(self.classes),
            channels=document["channels"],
            size=(self.size[0], self.size[1]),
            weights=document["weights"],
        )
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(document[name])[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes] from images [B, C, H, W], uint8 or floating point in [0, 1].

        The probabilities of the classes are their softmax where `task` is "classification", their
        sigmoid, one by one, where it is "multi_label".
        """
        levels = images if images.is_floating_point() else images / 255
        logits: Tensor = self.network((levels - self.mean) / self.std)
        return logits


def network_document(model: nn.Module, setup: Setup) -> dict[str, Any]:
    """All that `TrainedNetwork` needs: tensors, numbers and words."""
    data = setup.dataset
    return {
        "model": models.name_of(setup.model),
        "task": setup.task.name,
        "classes": list(data.classes),
        "channels": data.channels,
        "size": list(data.size),
        "mean": list(data.mean),
        "std": list(data.std),
        "weights": {name: tensor.cpu() for name, tensor in model.state_dict().items()},
    }


def load_network(
    path: str | os.PathLike[str], builder: models.Builder | None = None
) -> TrainedNetwork:
    """The network in a file of a run's `networks/`, on the CPU, in eval mode.

    Args:
        path: e.g. `runs/my-run/networks/bilevel/seed-0.pt`.
        builder: what built the network, where the run was given a function and not a name; a file
            holds no code.

    Raises:
        RaysearchError: the file is missing or is not such a network. Nothing in it is executed.
    """
    path = Path(path)
    try:
        document = load(path)
    except OSError as error:
        raise RaysearchError(f"{path}: {error.strerror or error}") from None
    missing = [key for key in KEYS if key not in document]
    if missing:
        raise RaysearchError(f"{path}: not a network of raysearch (no {missing[0]!r})")
    try:
        _check(document)
        return TrainedNetwork(document, builder).eval()
    except Exception as error:  # whatever a file may hold
        raise RaysearchError(f"{path}: not a network of raysearch ({one_line(error)})") from None


def _check(document: Mapping[str, Any]) -> None:
    """That the sizes are those of a network, before anything of these sizes is allocated."""
    classes, channels, size = document["classes"], document["channels"], document["size"]
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("'classes' is no list of names")
    if channels not in (1, 3):
        raise ValueError("'channels' is neither 1 nor 3")
    if len(size) != 2 or not all(type(side) is int and 0 < side <= LARGEST for side in size):
        raise ValueError(f"'size' is not two numbers of pixels up to {LARGEST}")
    for key in ("mean", "std"):
        values = document[key]
        if len(values) != channels or not all(
            type(v) is float and math.isfinite(v) for v in values
        ):
            raise ValueError(f"{key!r} is not a number for each channel")
