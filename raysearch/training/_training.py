"""The plain training loop that every evaluation uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raysearch.data import Split
from raysearch.errors import NonFiniteLossError
from raysearch.policy import Policy
from raysearch.training._setup import Setup, seeded


@dataclass(frozen=True)
class SGDSettings:
    """Stochastic gradient descent with a cosine schedule to zero, stepped every batch.

    Attributes:
        epochs: passes over the training split, at least 1.
        batch_size: images per step.
        lr: learning rate at the start.
        momentum: in [0, 1).
        nesterov: Nesterov's form of momentum.
        weight_decay: L2 coefficient on all parameters.
        label_smoothing: in [0, 1).
        enlarge_batch: how many times each image is in its batch, each time augmented anew (Enlarge
            Batch, Tian et al., NeurIPS 2020); the number of steps stays as it is.
    """

    epochs: int
    batch_size: int
    lr: float
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    enlarge_batch: int = 1

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> SGDSettings:
        """Pick the fields out of a configuration group that holds other things too."""
        return cls(**{f.name: settings[f.name] for f in fields(cls) if f.name in settings})

    def steps(self, images: int) -> int:
        """Steps per epoch over so many images: whole batches, or the one that there is."""
        return max(1, images // self.batch_size)

    def lr_at(self, epoch: int, step: int, steps: int) -> float:
        """The learning rate of a step (both counted from 0): half a cosine from `lr` to 0."""
        done = (epoch + step / steps) / self.epochs
        return self.lr * 0.5 * (1 + math.cos(math.pi * done))

    def optimizer(self, model: nn.Module) -> torch.optim.SGD:
        """The optimiser over all of a model's parameters."""
        return torch.optim.SGD(
            model.parameters(),
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov and self.momentum > 0,
            weight_decay=self.weight_decay,
        )


class Training:
    """Trains a network from scratch, with or without a policy.

    One `step` is one epoch, so that a scheduler can checkpoint, stop and restore between
    epochs; a restored training continues bit for bit on CPU.

    Args:
        setup: data, network, device, seed.
        settings: the fields of `SGDSettings`; others are ignored.
        policy: augments every training image, or None.
        predefined: whether the predefined augmentation is used.
        split: what to train on, instead of train + validation.
    """

    def __init__(
        self,
        setup: Setup,
        settings: Mapping[str, Any],
        policy: Policy | None,
        predefined: bool,
        *,
        split: Split | None = None,
    ) -> None:
        self.setup = setup
        self.settings = SGDSettings.of(settings)
        self.policy = policy
        self.predefined = predefined
        self.epochs = self.settings.epochs
        self.epoch = 0
        self._split = split or setup.dataset.full_train()
        self._reference = len(setup.search_splits()[0])  # the unit of epoch-equivalents
        self.model = setup.build_model()
        self.optimizer = self.settings.optimizer(self.model)

    def step(self) -> dict[str, float]:
        """Train for one epoch.

        Returns:
            `train_loss`, `lr` at the epoch's end and the cumulative `epoch_equivalents`.

        Raises:
            NonFiniteLossError: the loss became NaN or infinite.
        """
        setup, settings = self.setup, self.settings
        steps, copies = settings.steps(len(self._split)), settings.enlarge_batch
        used = min(len(self._split), steps * settings.batch_size)  # the rest of a batch is left out
        generators = setup.generators(self.epoch)
        batches = self._split.batches(
            settings.batch_size,
            device=setup.device,
            generator=setup.generator("order", self.epoch, device=torch.device("cpu")),
            drop_last=len(self._split) >= settings.batch_size,
        )
        self.model.train()
        losses: list[Tensor] = []
        with seeded(setup.seed, "dropout", self.epoch):
            for step, (images, labels, _) in enumerate(batches):
                for group in self.optimizer.param_groups:
                    group["lr"] = settings.lr_at(self.epoch, step, steps)
                progress = (self.epoch + step / steps) / self.epochs
                if copies > 1:
                    images, labels = images.repeat(copies, 1, 1, 1), labels.repeat(copies)
                images = setup.augment(images, self.policy, self.predefined, generators, progress)
                losses.append(self._update(setup.normalise(images), labels))
        loss = finite_mean(losses, "training", self.epoch)
        self.epoch += 1
        return {
            "train_loss": loss,
            "lr": settings.lr_at(self.epoch - 1, steps - 1, steps),
            "epoch_equivalents": self.epoch * used * copies / self._reference,
        }

    def _update(self, images: Tensor, labels: Tensor) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(images.device):
            logits = self.model(images)
        loss = F.cross_entropy(
            logits.float(), labels, label_smoothing=self.settings.label_smoothing
        )
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()

    def test(self) -> dict[str, float]:
        """Error (percent) and loss on the test split: `test_error`, `test_loss`."""
        error, loss = evaluate(self.model, self.setup, self.setup.dataset.test)
        return {"test_error": error, "test_loss": loss}

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to continue after the last finished epoch."""
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict` of a training with the same setup and settings."""
        self.epoch = state["epoch"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where it pays (CUDA), full precision elsewhere."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def finite_mean(losses: list[Tensor], where: str, epoch: int) -> float:
    """The mean of an epoch's losses, looked at once so that no step waits for the device.

    Raises:
        NonFiniteLossError: one of them is NaN or infinite; the first is named.
    """
    values = torch.stack(losses)
    if not bool(values.isfinite().all()):
        step = int((~values.isfinite()).nonzero()[0]) + 1
        raise NonFiniteLossError(where, epoch + 1, step)
    return float(values.mean())


@torch.no_grad()
def evaluate(
    model: nn.Module,
    setup: Setup,
    split: Split,
    batch_size: int = 512,
    *,
    before: Callable[[Tensor], Tensor] | None = None,
) -> tuple[float, float]:
    """Error in percent and mean cross-entropy of a network on a split, without augmentation.

    Args:
        model, setup, split, batch_size: what to evaluate, and on what.
        before: carried out on each batch before normalisation, for networks that are meant to be
            used with a transformation; from uint8 [B, C, H, W] to that or to [0, 1].
    """
    model.eval()
    wrong = torch.zeros((), device=setup.device)
    loss = torch.zeros((), device=setup.device)
    for images, labels, _ in split.batches(batch_size, device=setup.device, generator=None):
        images = images if before is None else before(images)
        with autocast(setup.device):
            logits = model(setup.normalise(images)).float()
        wrong += (logits.argmax(1) != labels).sum()
        loss += F.cross_entropy(logits, labels, reduction="sum")
    return 100 * float(wrong) / len(split), float(loss) / len(split)


@torch.no_grad()
def estimate_statistics(model: nn.Module, setup: Setup, split: Split, batch_size: int) -> None:
    """Set batch normalisation's running statistics to their mean over a split, as it is.

    A network that was trained on images transformed by an augmenter has the statistics of these;
    where the transformation is not carried out at test time, those of untouched images fit.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
    model.train()
    whole = len(split) >= batch_size
    for images, _, _ in split.batches(
        batch_size, device=setup.device, generator=None, drop_last=whole
    ):
        with autocast(setup.device):
            model(setup.normalise(images))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
