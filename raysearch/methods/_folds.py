"""The training images of a search in folds, each of which is held out in turn."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raysearch.data import Split, grouped_folds, strata
from raysearch.errors import RaysearchError
from raysearch.training import Setup, derive_seed


def fold_splits(setup: Setup, count: int) -> list[tuple[Split, Split]]:
    """For each fold of the train split the others, in that split's order, and itself.

    Each class is spread evenly over the folds.

    Args:
        setup: whose images and seed.
        count: of folds.

    Raises:
        RaysearchError: there are fewer images, or groups, than folds.
    """
    images = setup.dataset.train
    stratum = strata(setup.task.stratum(images.targets))
    folds = stratified_folds(stratum, count, derive_seed(setup.seed, "folds"), images.groups)
    pairs = []
    for out, fold in enumerate(folds):
        others = [one for index, one in enumerate(folds) if index != out]
        pairs.append((images.subset(torch.cat(others).sort().values), images.subset(fold)))
    return pairs


def stratified_folds(
    labels: Tensor, count: int, seed: int, groups: npt.NDArray[np.int64] | None = None
) -> list[Tensor]:
    """Divide images into folds, each class spread evenly over them.

    Args:
        labels: int64 [N].
        count: of folds.
        seed: decides which images go where.
        groups: which images belong together, int64 [N]; a group is in one fold.

    Returns:
        Indices of each fold, int64, ascending.

    Raises:
        RaysearchError: there are fewer images, or groups, than folds.
    """
    if groups is not None:
        folds = torch.from_numpy(grouped_folds(labels.cpu().numpy(), groups, count, seed))
        return [(folds == i).nonzero()[:, 0] for i in range(count)]
    if len(labels) < count:
        raise RaysearchError(f"method.folds={count}: there are only {len(labels)} images")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels.cpu()[order].sort(stable=True).indices]  # by class, at random within it
    fold = torch.empty_like(order)
    fold[order] = torch.arange(len(order)) % count
    return [(fold == i).nonzero()[:, 0] for i in range(count)]
