"""A network judged on a split, and made ready for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from raysearch.data import Split
from raysearch.training._setup import Setup, seeded
from raysearch.training._sgd import autocast


@torch.no_grad()
def evaluate(
    model: nn.Module,
    setup: Setup,
    split: Split,
    batch_size: int = 512,
    *,
    before: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, float]:
    """What a network is worth on a split, without augmentation.

    Args:
        model, setup, split, batch_size: what to evaluate, and on what.
        before: carried out on each batch before normalisation, for networks that are meant to be
            used with a transformation; from uint8 [B, C, H, W] to that or to [0, 1].

    Returns:
        `loss`, the task's metric and its other figures; see `raysearch.tasks`.
    """
    measure = setup.task.measure()
    for outputs, targets in _outputs(model, setup, split, batch_size, before):
        measure.update(outputs, targets)
    return measure.result()


@torch.no_grad()
def image_losses(model: nn.Module, setup: Setup, split: Split, batch_size: int = 512) -> Tensor:
    """The loss of each image of a split, without augmentation: float32 [N] on the CPU."""
    outputs = _outputs(model, setup, split, batch_size, None)
    return torch.cat([setup.task.losses(out, targets).cpu() for out, targets in outputs])


def _outputs(
    model: nn.Module,
    setup: Setup,
    split: Split,
    batch_size: int,
    before: Callable[[Tensor], Tensor] | None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """A network's outputs, float32, and the targets, batch by batch; see `evaluate`."""
    model.eval()
    for images, targets, _ in split.batches(batch_size, device=setup.device, generator=None):
        images = images if before is None else before(images)
        with autocast(setup.device):
            outputs = model(setup.normalise(images))
        yield outputs.float(), targets


def estimate_statistics(model: nn.Module, setup: Setup, split: Split, batch_size: int) -> None:
    """Set batch normalisation's running statistics to their mean over a split, as it is.

    A network that was trained on images transformed by an augmenter has the statistics of these;
    where the transformation is not carried out at test time, those of untouched images fit.
    """
    whole = len(split) >= batch_size
    batches = split.batches(batch_size, device=setup.device, generator=None, drop_last=whole)
    # the generator is for dropout before a normalisation
    with seeded(setup.seed, "statistics"), autocast(setup.device):
        update_bn((setup.normalise(images) for images, _, _ in batches), model)


def evaluate_on_test(model: nn.Module, setup: Setup) -> dict[str, float]:
    """What a network is worth on the test split, as `test_loss`, `test_<metric>` and so on."""
    return {f"test_{k}": v for k, v in evaluate(model, setup, setup.dataset.test).items()}
