"""What the methods share that move a policy over operations by per-image rewards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from raysearch.errors import NonFiniteLossError
from raysearch.hypergrad import Network, OneStep, one_step_rewards
from raysearch.methods._settings import Operations
from raysearch.methods._single_pass import SinglePass
from raysearch.policy import Policy
from raysearch.settings import BelowOne, NotNegative, Positive
from raysearch.training import Loop, Setup

RATE = 0.1  # of the running moments of rewards


@dataclass(frozen=True)
class RewardMethod(SinglePass):
    """A method that moves a policy over operations by per-image rewards.

    Attributes:
        operations: names of the operations that are searched, two or more.
        sampling: a choice per `image`, or choices for the whole `batch` as the papers' code has it.
        lr: Adam's learning rate for the policy's logits.
        betas: Adam's decay rates.
        prior_strength: T ≥ 0; see the methods' texts.
        difference: `forward` or `central` differences along v; `auto` is forward on the CPU and
            central on a GPU, where a forward difference is no cheaper.
        epsilon: length of the step along v, in weight space.
        warmup: share of the search's epochs, in [0, 1), that train with the starting policy
            before the policy begins to move; they cost one epoch-equivalent each.
    """

    operations: Operations
    sampling: Literal["image", "batch"]
    lr: Positive
    betas: tuple[BelowOne, BelowOne]
    prior_strength: NotNegative
    difference: Literal["auto", "forward", "central"]
    epsilon: Positive
    warmup: BelowOne


class RewardScale:
    """Turns per-image rewards into costs: minus the reward, centred, in standard deviations.

    Centring takes nothing from the image itself and scaling nothing from the batch, but for the
    very first, so that estimators of a policy's gradient stay unbiased (given v and the batch
    statistics of normalisation, through which a choice touches its neighbours).

    Attributes:
        mean: running mean of the rewards.
        scale: running standard deviation within a batch; 0 before the first.
    """

    def __init__(self) -> None:
        self.mean = self.scale = 0.0

    def per_image(self, rewards: Tensor) -> Tensor:
        """Costs of images that each drew their own choice, from rewards [n]; both on the CPU.

        The centre is the mean of the other images' rewards.
        """
        n = len(rewards)
        if n == 1:
            return self.of_batch(rewards)
        centred = (rewards - rewards.mean()) * (n / (n - 1))
        return -centred / self._before(rewards)[1]

    def of_batch(self, rewards: Tensor) -> Tensor:
        """The cost of one choice for all images, [1], from rewards [n].

        The centre is the running mean of earlier batches.
        """
        mean, scale = self._before(rewards)
        return -(rewards.mean() - mean).reshape(1) / scale

    def _before(self, rewards: Tensor) -> tuple[float, float]:
        """The moments that earlier batches left, and then this batch's share in them."""
        mean = float(rewards.mean())
        scale = float(rewards.std()) if len(rewards) > 1 else abs(mean - self.mean)
        scale += 1e-12
        before = (self.mean, self.scale) if self.scale else (mean, scale)
        self.mean = before[0] + RATE * (mean - before[0])
        self.scale = before[1] + RATE * (scale - before[1])
        return before

    def state_dict(self) -> dict[str, float]:
        """The running moments."""
        return {"mean": self.mean, "scale": self.scale}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from `state_dict`."""
        self.mean, self.scale = state["mean"], state["scale"]


def warmup_epochs(settings: RewardMethod, epochs: int) -> int:
    """Epochs in which images augmented by the starting policy train the classifier, and no more.

    The policy's signal then comes from late training.
    """
    return min(epochs - 1, round(settings.warmup * epochs))


def one_step_cost(settings: RewardMethod, setup: Setup, rows: int = 1) -> tuple[float, int]:
    """What rewards cost, in plain steps, without those for pixels; passes of the difference.

    Args:
        settings: the method's.
        setup: data, network, device and seed.
        rows: how often each image is in a step.
    """
    passes = 1 if setup.device.type == "cpu" and settings.difference != "central" else 2
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
    settings: RewardMethod,
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
