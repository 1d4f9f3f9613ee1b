"""The one training loop, which every training and every single-pass search uses by composition."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from raysearch.data import Batch, Split
from raysearch.training._cost import CostAccount
from raysearch.training._setup import Setup, seeded
from raysearch.training._sgd import SGDSettings, autocast, finite_mean

Gradient = Mapping[str, Tensor | None]
"""Of the train loss, by parameter name."""

CPU = torch.device("cpu")


class Loop:
    """One network's training: batches, learning rate, updates, losses, cost and position.

    An epoch looks so; what happens to a batch is the owner's to say:

        with loop.one_epoch() as batches:
            for images, targets, _ in batches:
                loop.update(*loop.plain_step(setup.normalise(images), targets))
        metrics = loop.finish_epoch()

    Its state can be taken after every epoch and, from within `between_batches`, after every batch;
    restored, the training goes on bit for bit on the CPU.

    Args:
        setup: data, network, device and seed.
        settings: how the network is trained.
        train: what an epoch goes over.
        val: what `val_batch` comes from.
        where: what is being done, for messages.
        unit: images of the plain epoch that cost is counted in; None: those of `train`.

    Attributes:
        setup, train, val: as given; may be replaced between two epochs.
        settings, unit: as given.
        model: the network.
        parameters: its trainable parameters by name.
        optimizer: the network's.
        epoch: epochs done.
        step: batches done in this epoch.
        generators: the epoch's sources of randomness for augmentation.
        cost: the account of a search's arithmetic.
        between_batches: called between two batches of an epoch, where the state can be taken.
        holding: set by the owner while it keeps what no state can hold (a graph for a later step);
            `between_batches` is not called then.
    """

    def __init__(
        self,
        setup: Setup,
        settings: SGDSettings,
        train: Split,
        val: Split | None = None,
        *,
        where: str,
        unit: int | None = None,
    ) -> None:
        self.setup, self.settings = setup, settings
        self.train, self.val = train, val
        self.where = where
        self.model = setup.build_model()
        self.parameters = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self.optimizer = settings.optimizer(self.model)
        self.unit = unit or len(train)
        self.cost = CostAccount(setup, settings.batch_size, self.unit)
        self.between_batches: Callable[[], None] | None = None
        self.holding = False
        self.epoch = 0
        self._last_val: dict[str, float] = {}  # not known before anything is validated
        self._begin()

    def _begin(self) -> None:
        """Stand at the beginning of the epoch `self.epoch`."""
        self.step = 0
        self.generators = self.setup.generators(self.epoch)
        self._random: Mapping[str, Tensor] = {}  # states of the global generators, when restored
        self._losses: list[Tensor] = []
        self._validated: list[tuple[Tensor, Tensor]] = []  # loss, share wrong
        self._validation: Iterator[Batch] | None = None
        self._val_batches = 0  # taken in this epoch

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return self.settings.steps(len(self.train))

    @property
    def epochs(self) -> int:
        """Epochs of the whole training."""
        return self.settings.epochs

    @property
    def lr(self) -> float:
        """ζ, the learning rate of the step that comes now."""
        return self.settings.lr_at(self.epoch, self.step, self.steps)

    @property
    def progress(self) -> float:
        """The share of the training that is done, in [0, 1)."""
        return (self.epoch + self.step / self.steps) / self.epochs

    @contextmanager
    def one_epoch(self) -> Iterator[Iterator[Batch]]:
        """The batches of an epoch, or those that are left of it.

        Yields:
            Batches of `train` as they are, on the setup's device. Inside, PyTorch's global
            generators are the epoch's own.
        """
        if self.step == 0:
            self._begin()
        self.model.train()
        with seeded(self.setup.seed, "dropout", self.epoch):
            if "cpu" in self._random:
                torch.set_rng_state(self._random["cpu"])
            if "cuda" in self._random:
                torch.cuda.set_rng_state(self._random["cuda"])
            yield self._batches(self.step)

    def _batches(self, done: int) -> Iterator[Batch]:
        order = self.setup.generator("order", self.epoch, device=CPU)
        for batch in itertools.islice(self._pass(self.train, order), done, None):
            yield batch
            self.step += 1
            if self.between_batches is not None and self.step < self.steps and not self.holding:
                self.between_batches()

    def _pass(self, split: Split, order: torch.Generator) -> Iterator[Batch]:
        size = self.settings.batch_size
        return split.batches(
            size, device=self.setup.device, generator=order, drop_last=len(split) >= size
        )

    def val_batch(self) -> tuple[Tensor, Tensor]:
        """The next normalised validation images and their targets; there is no end to them."""
        if self._validation is None:
            self._validation = self._val_passes(self._val_batches)
        images, targets, _ = next(self._validation)
        self._val_batches += 1
        return self.setup.normalise(images), targets

    def _val_passes(self, done: int) -> Iterator[Batch]:
        """Batches of passes without end, each in an order of its own, from the batch `done` on."""
        assert self.val is not None
        passes, batches = divmod(done, self.settings.steps(len(self.val)))
        for count in itertools.count(passes):
            order = self.setup.generator("val", self.epoch, count, device=CPU)
            yield from itertools.islice(self._pass(self.val, order), batches, None)
            batches = 0

    def plain_step(
        self,
        images: Tensor,
        targets: Tensor,
        observe: Callable[[Tensor], None] | None = None,
    ) -> tuple[Gradient, Tensor]:
        """Gradient of a batch's mean loss at the network's weights, and that loss.

        Args:
            images: normalised, [B, C, H, W].
            targets: theirs.
            observe: told the network's outputs.
        """
        with autocast(images.device):
            outputs = self.model(images)
        if observe is not None:
            observe(outputs.detach())
        smoothing = self.settings.label_smoothing
        loss = self.setup.task.losses(outputs, targets, smoothing).mean()
        found = torch.autograd.grad(loss, list(self.parameters.values()), allow_unused=True)
        return dict(zip(self.parameters, found, strict=True)), loss.detach()

    def update(self, gradient: Gradient, loss: Tensor) -> None:
        """One step of the network's optimiser.

        Args:
            gradient: of the train loss.
            loss: a detached scalar, for the epoch's mean.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        for name, parameter in self.parameters.items():
            parameter.grad = gradient[name]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._losses.append(loss)

    def note_validation(self, loss: Tensor, wrong: Tensor) -> None:
        """Keep what a validation batch has shown: mean loss and `Task.wrong`, detached scalars."""
        self._validated.append((loss, wrong))

    def finish_epoch(self) -> dict[str, float]:
        """Count the epoch as done.

        Returns:
            `train_loss`; `val_loss` and the task's validation figures, once there are any, as of
            the last epoch that had them; `lr`, of the last step.

        Raises:
            NonFiniteLossError: a loss was NaN or infinite.
        """
        metrics = {"train_loss": finite_mean(self._losses, self.where, self.epoch)}
        if self._validated:
            losses, wrong = zip(*self._validated, strict=True)
            figures = {
                "loss": finite_mean(losses, self.where, self.epoch),
                **self.setup.task.of_wrong(float(torch.stack(wrong).mean())),
            }
            self._last_val = {f"val_{name}": value for name, value in figures.items()}
        lr = self.settings.lr_at(self.epoch, self.steps - 1, self.steps)
        self.epoch += 1
        self._begin()
        return {**metrics, **self._last_val, "lr": lr}

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on after the last finished batch."""
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "cost": self.cost.state_dict(),
            "last_val": dict(self._last_val),
            "within": self._within() if self.step else {},
        }

    def _within(self) -> dict[str, Any]:
        """The position within the epoch; to be taken where the global generators are its own."""
        random = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            random["cuda"] = torch.cuda.get_rng_state()
        return {
            "step": self.step,
            "images": self.generators.images.get_state(),
            "policy": self.generators.policy.get_state(),
            "random": random,
            "losses": list(self._losses),
            "validated": [list(pair) for pair in self._validated],
            "val_batches": self._val_batches,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the `state_dict` of a loop with the same arguments.

        What a state does not have, but for `epoch`, `model` and `optimizer`, is as at the
        beginning of a training.
        """
        self.epoch = state["epoch"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.cost.load_state_dict(state.get("cost", {}))
        self._last_val = dict(state.get("last_val", {}))
        self._begin()
        within = state.get("within")
        if not within:
            return
        self.step = within["step"]
        self.generators.images.set_state(within["images"])
        self.generators.policy.set_state(within["policy"])
        self._random = within["random"]
        device = self.setup.device
        self._losses = [loss.to(device) for loss in within["losses"]]
        self._validated = [(a.to(device), b.to(device)) for a, b in within["validated"]]
        self._val_batches = within["val_batches"]
