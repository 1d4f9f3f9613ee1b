"""Weight sharing: the one training from which every fine-tune trial starts (AWS, section 3.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from raysearch.data import Split
from raysearch.errors import RaysearchError
from raysearch.methods._validated import ValidatedTraining, snapshot
from raysearch.models import name_of
from raysearch.policy import Policy
from raysearch.protocol import Answer
from raysearch.training import Setup, Training

FORMAT = "raysearch-shared-checkpoint"


class SharedTraining(ValidatedTraining):
    """A training with one policy throughout on the search's train split, as work.

    What it leaves is the shared checkpoint: weights with batch normalisation's statistics, the
    optimiser's state, what it cost and what it was made with.

    Args:
        setup: data, network, device and seed.
        search: the fields of `SGDSettings`.
        policy: augments the images; the uniform one minimises the expected divergence between
            the shared training and those that would have had a policy of their own (section 3.2).
            None is no augmentation, the predefined one neither.
        made: what else a search that uses the checkpoint must have in common with it.
    """

    def __init__(
        self,
        setup: Setup,
        search: Mapping[str, Any],
        policy: Policy | None,
        made: Mapping[str, Any],
    ) -> None:
        train, val = setup.search_splits()
        super().__init__(Training(setup, search, policy, policy is not None, split=train), val)
        self._made = {**made_with(setup, search), **made}

    def answer(self) -> Answer:
        """The metrics of the last epoch; the shared checkpoint is the file."""
        state = self.training.state_dict()
        checkpoint = {
            "format": FORMAT,
            "made": self._made,
            "model": snapshot(state["model"]),
            "optimizer": snapshot(state["optimizer"]),
            "metrics": self.metrics,
        }
        return Answer(self.metrics, file=checkpoint)


def made_with(setup: Setup, search: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint was made with, by the names that a person knows it by."""
    train, val = setup.search_splits()
    keys = ("epochs", "batch_size", "lr", "momentum", "nesterov", "weight_decay")
    return {
        "model": name_of(setup.model),
        "classes": list(setup.dataset.classes),
        "image size": list(setup.dataset.size),
        "channels": setup.dataset.channels,
        "training images": fingerprint(train),
        "validation images": fingerprint(val),
        "predefined augmentation": vars(setup.predefined).copy(),
        **{f"search.{key}": search[key] for key in keys},
    }


def fingerprint(split: Split) -> str:
    """How many images a split has, and a digest of its labels and first images."""
    digest = hashlib.sha256(split.targets.cpu().numpy().tobytes())
    images, _, _ = next(iter(split.batches(64, device=torch.device("cpu"), generator=None)))
    digest.update(images.contiguous().numpy().tobytes())
    return f"{len(split)} ({digest.hexdigest()[:16]})"


def check_fits(checkpoint: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """That a checkpoint was made with what a search has.

    Raises:
        RaysearchError: it was not; the message says what differs.
    """
    if not isinstance(checkpoint, Mapping) or checkpoint.get("format") != FORMAT:
        raise RaysearchError("not a shared checkpoint of raysearch")
    for key in ("made", "model", "optimizer", "metrics"):
        if not isinstance(checkpoint.get(key), Mapping):
            raise RaysearchError(f"not a shared checkpoint of raysearch (no {key!r})")
    if not isinstance(checkpoint["metrics"].get("epoch_equivalents"), int | float):
        raise RaysearchError("not a shared checkpoint of raysearch (it does not say what it cost)")
    for key, value in made.items():
        theirs = checkpoint["made"].get(key)
        if isinstance(theirs, Tensor) or theirs != value:
            why = " (another seed divides the images otherwise)" if key.endswith(" images") else ""
            raise RaysearchError(f"it was made with {key} {theirs!s:.200}, not {value}{why}")
