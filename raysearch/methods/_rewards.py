"""What the methods share that move a policy over operations by per-image rewards."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from raysearch.errors import NonFiniteLossError
from raysearch.hypergrad import Network, OneStep, one_step_rewards
from raysearch.methods._settings import RewardSettings
from raysearch.policy import Policy
from raysearch.training import Loop, Setup, SGDSettings


def search_loop(setup: Setup, settings: SGDSettings) -> Loop:
    """The classifier's training on the part of the images that a search trains on."""
    train, val = setup.search_splits()
    return Loop(setup, settings, train, val, where="search")


def warmup_epochs(settings: RewardSettings, epochs: int) -> int:
    """Epochs in which images augmented by the starting policy train the classifier, and no more.

    The policy's signal then comes from late training.
    """
    return min(epochs - 1, round(settings.warmup * epochs))


def one_step_cost(settings: RewardSettings, setup: Setup, rows: int = 1) -> tuple[float, int]:
    """What rewards cost, in plain steps, without those for pixels; passes of the difference.

    Args:
        settings: the method's.
        setup: data, network, device and seed.
        rows: how often each image is in a step.
    """
    difference = settings.difference
    if difference == "auto":
        difference = "forward" if setup.device.type == "cpu" else "central"
    passes = 1 if difference == "forward" and setup.device.type == "cpu" else 2
    return (3 * rows + 3 + passes * rows) / 3, passes


def warm_up(loop: Loop, policy: Policy, images: Tensor, targets: Tensor) -> None:
    """A plain step on images augmented by the whole policy.

    Args:
        loop: the classifier's.
        policy: the starting one.
        images: uint8 [B, C, H, W], as they are.
        targets: theirs.
    """
    augmented = loop.setup.augment(images, policy, True, loop.generators)
    images = loop.setup.normalise(augmented)
    loop.update(*loop.cost.counted("plain", loop.plain_step, images, targets))


def next_rewards(
    loop: Loop,
    network: Network,
    train: tuple[Tensor, Tensor],
    settings: RewardSettings,
    *,
    with_pixels: bool = False,
    weights: Tensor | None = None,
) -> OneStep:
    """`one_step_rewards` against the next validation images, with the rewards on the CPU.

    Args:
        loop, network: the classifier.
        train: augmented, normalised images [B, C, H, W] and their targets.
        settings: the method's.
        with_pixels, weights: see `one_step_rewards`.

    Raises:
        NonFiniteLossError: a reward is NaN or infinite.
    """
    found = one_step_rewards(
        network,
        train,
        loop.val_batch(),
        loop.lr,
        difference=settings.difference,
        epsilon=settings.epsilon,
        with_pixels=with_pixels,
        weights=None if weights is None else weights.to(train[0].device),
    )
    rewards, pixels = found.rewards.cpu(), found.pixel_rewards
    if not bool(rewards.isfinite().all()):
        raise NonFiniteLossError(loop.where, loop.epoch + 1, loop.step + 1)
    loop.note_validation(found.val_loss, found.val_wrong)
    return replace(found, rewards=rewards, pixel_rewards=None if pixels is None else pixels.cpu())
