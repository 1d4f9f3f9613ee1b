"""Rewards of one batch as costs in a unit that does not change over a search."""

from __future__ import annotations

from torch import Tensor

_RATE = 0.1  # of the running moments


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
        self.mean = before[0] + _RATE * (mean - before[0])
        self.scale = before[1] + _RATE * (scale - before[1])
        return before

    def state_dict(self) -> dict[str, float]:
        """The running moments."""
        return {"mean": self.mean, "scale": self.scale}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from `state_dict`."""
        self.mean, self.scale = state["mean"], state["scale"]
