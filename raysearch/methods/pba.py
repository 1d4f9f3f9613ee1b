"""PBA: Population Based Augmentation (Ho et al., ICML 2019).

A population of members trains a network each. A member's policy is a list of operations, every one
of them `copies` times, each with a probability and a magnitude, which are whole numbers of levels;
at the start all are 0, that is, nothing is augmented. Every `interval` epochs the members are
compared on the validation images. Those of the worst quantile copy weights and policy of one drawn
from the best (exploit), and then change the policy at random (explore).

The result is the lineage of the member that is best at the end: the policies with which its network
was trained, epoch by epoch, through all the members that it descends from. As a schedule they are
replayed over the matching part of a later training.

Two things are not in the paper: the score may be the validation loss, which is finer than the
accuracy of a few images (`score`), and members draw from the seed's own random numbers, so that a
search is repeatable.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from raysearch.errors import RaysearchError
from raysearch.methods._population import Levels, Member
from raysearch.methods._settings import MethodSettings
from raysearch.methods._shared import validated
from raysearch.policy import RandomOrder, Schedule
from raysearch.training import Setup, Training, derive_seed, validation_cost

MAX_LEVEL = 127  # levels are kept in a byte


@dataclass(frozen=True)
class PbaSettings(MethodSettings):
    """Settings.

    Attributes:
        operations: names of the operations that policies are made of.
        copies: entries of each operation in a policy.
        counts: probabilities that 0, 1, ... operations are applied to an image at most.
        probability_levels: an entry's probability is 0 to this many levels, of as many.
        magnitude_levels: likewise its magnitude.
        population: members, at least 2.
        interval: epochs between two exploits.
        quantile: share of the members that copy, and share that may be copied.
        resample: probability that a number is drawn anew when a policy is explored.
        change: levels that a number otherwise moves by at most.
        score: by what members are compared, on the validation images: `accuracy` or minus `loss`.
    """

    FEWEST: ClassVar[int] = 1
    operations: tuple[str, ...]
    copies: int
    counts: tuple[float, ...]
    probability_levels: int
    magnitude_levels: int
    population: int
    interval: int
    quantile: float
    resample: float
    change: int
    score: Literal["accuracy", "loss"]

    def conditions(self) -> Iterable[tuple[str, bool, str]]:
        """The values that each number may take."""
        counts = len(self.counts) >= 2 and all(p >= 0 for p in self.counts)
        levels = ("probability_levels", "magnitude_levels")
        numbers = ("copies", "probability_levels", "magnitude_levels", "interval", "change")
        return (
            ("counts", counts and math.isclose(sum(self.counts), 1), "two or more that sum to 1"),
            *((key, getattr(self, key) >= 1, "at least 1") for key in numbers),
            *((key, getattr(self, key) <= MAX_LEVEL, f"at most {MAX_LEVEL}") for key in levels),
            ("population", self.population >= 2, "at least 2"),
            ("quantile", 0 < self.quantile <= 0.5, "above 0 and at most 0.5"),
            ("resample", 0 <= self.resample <= 1, "from 0 to 1"),
        )

    @property
    def entries(self) -> tuple[str, ...]:
        """The operation of each entry of a policy."""
        return tuple(name for name in self.operations for _ in range(self.copies))

    @property
    def tops(self) -> tuple[int, int]:
        """The highest levels of probabilities and of magnitudes."""
        return self.probability_levels, self.magnitude_levels

    def policy(self, levels: Tensor) -> RandomOrder:
        """The policy of levels, int64 [2, entries]: probabilities, magnitudes."""
        probability, magnitude = levels.double()
        return RandomOrder(
            self.entries,
            probability / self.probability_levels,
            magnitude / self.magnitude_levels,
            self.counts,
        )

    @property
    def uniform(self) -> RandomOrder:
        """Every operation alike: probability one half, its copies' magnitudes evenly spread."""
        half = torch.full((len(self.entries),), 0.5)
        spread = torch.arange(1, self.copies + 1) / (self.copies + 1)
        return RandomOrder(self.entries, half, spread.repeat(len(self.operations)), self.counts)


def explore(levels: Tensor, settings: PbaSettings, generator: torch.Generator) -> Tensor:
    """A policy near another: each number drawn anew, or moved up or down (algorithm 2).

    Args:
        levels: int64 [2, entries].
        settings: `resample`, the probability of the former; `change`, how far at most the latter
            moves, each distance from 0 on alike; the highest levels, to which results are clipped.
        generator: source of randomness on the CPU.

    Returns:
        A new tensor of the same shape.
    """
    shape = levels.shape
    anew = torch.rand(shape, generator=generator) < settings.resample
    drawn = torch.stack(
        [torch.randint(top + 1, shape[1:], generator=generator) for top in settings.tops]
    )
    distance = torch.randint(settings.change + 1, shape, generator=generator)
    sign = 2 * torch.randint(2, shape, generator=generator) - 1
    highest = torch.tensor(settings.tops)[:, None]
    moved = (levels + sign * distance).clamp_min(0).minimum(highest)
    return torch.where(anew, drawn, moved)


@dataclass(frozen=True)
class PbaPopulation:
    """The rules; see `Population`.

    Attributes:
        seed: the search's.
        settings: the method's.
        epochs: of each member.
    """

    seed: int
    settings: PbaSettings
    epochs: int

    @property
    def size(self) -> int:
        """How many members there are."""
        return self.settings.population

    @property
    def interval(self) -> int:
        """Epochs between two exploits."""
        return self.settings.interval

    @property
    def quantile(self) -> float:
        """Share of the members that copy, and share that may be copied."""
        return self.settings.quantile

    def start(self, member: int) -> Levels:
        """All zero."""
        zeros: Levels = torch.zeros(2, len(self.settings.entries), dtype=torch.int64).tolist()
        return zeros

    def choose(self, best: Sequence[int], member: int, epoch: int) -> int:
        """Each of the best alike."""
        return best[derive_seed(self.seed, "exploit", epoch, member) % len(best)]

    def explore(self, policy: Levels, member: int, epoch: int) -> Levels:
        """See `explore`."""
        seed = derive_seed(self.seed, "explore", epoch, member)
        generator = torch.Generator().manual_seed(seed)
        explored: Levels = explore(torch.tensor(policy), self.settings, generator).tolist()
        return explored


class Pba(Member):
    """A member: its training, and the policies that its network has seen; see `Member`."""

    def __init__(
        self,
        setup: Setup,
        search: Mapping[str, Any],
        method: Mapping[str, Any],
        member: int = 0,
    ) -> None:
        self.settings = PbaSettings.of(method)
        self.interval = self.settings.interval
        train, self._val = setup.search_splits()
        self._validation = validation_cost(train, self._val)
        # the images are divided by the search's seed, all else follows from the member's own
        data = replace(setup.dataset, train=train, val=self._val)
        own = replace(setup, dataset=data, seed=derive_seed(setup.seed, "member", member))
        self.training = Training(own, search, None, True, split=train)
        self.epochs = self.training.epochs
        self._lineage: list[Tensor] = []  # of every epoch, int8 [2, entries]
        self.follow(self.population(setup.seed, search, method).start(member))

    @classmethod
    def population(
        cls, seed: int, search: Mapping[str, Any], method: Mapping[str, Any]
    ) -> PbaPopulation:
        """See `Member.population`."""
        settings, epochs = PbaSettings.of(method), search["epochs"]
        if epochs <= settings.interval:
            raise RaysearchError(
                f"method.interval={settings.interval}: members copy none in "
                f"search.epochs={epochs}; expected fewer"
            )
        return PbaPopulation(seed, settings, epochs)

    @classmethod
    def uniform(cls, method: Mapping[str, Any]) -> RandomOrder:
        """Every operation alike."""
        return PbaSettings.of(method).uniform

    def follow(self, policy: Levels) -> None:
        """Train with this policy from here on."""
        self._levels = torch.tensor(policy, dtype=torch.int8)
        self.training.policy = self.settings.policy(self._levels)
        self._moved = self._metrics(self.training.policy)

    def step(self) -> dict[str, float]:
        """An epoch; see `Member`."""
        metrics = self.training.step()
        self.epoch = self.training.epoch
        self._lineage.append(self._levels)
        if self.epoch % self.interval == 0 or self.epoch == self.epochs:
            training = self.training
            error, loss = validated(training.model, training.setup, self._val, self.epoch)
            score = -loss if self.settings.score == "loss" else 1 - error / 100
            metrics |= {"val_error": error, "val_loss": loss, "score": score}
        validations = self.epoch // self.interval
        validations += self.epoch == self.epochs and self.epoch % self.interval > 0
        metrics["epoch_equivalents"] += validations * self._validation
        return {**metrics, **self._moved}

    def policy(self) -> Schedule:
        """The policies of the lineage's epochs; before the first, the one that is followed."""
        return Schedule([self.settings.policy(one) for one in self._lineage or [self._levels]])

    def _metrics(self, policy: RandomOrder) -> dict[str, float]:
        """Entropy of the operations' shares, their divergence from uniform, and the shares.

        All are 0 where nothing is applied.
        """
        marginals, names = policy.marginals(), self.settings.operations
        shares = torch.tensor([marginals[name] for name in names], dtype=torch.float64)
        entropy = float(torch.special.entr(shares).sum())
        return {
            "entropy": entropy,
            "kl_uniform": max(0.0, float(shares.sum()) * math.log(len(names)) - entropy),
            "operations_per_image": policy.operations_per_image(),
            **{f"share/{name}": marginals[name] for name in names},
        }

    def state_dict(self) -> dict[str, Any]:
        """The training's state, the policy and the lineage."""
        return {
            "training": self.training.state_dict(),
            "levels": self._levels.tolist(),
            "lineage": torch.stack(self._lineage) if self._lineage else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`, also from another member's."""
        self.training.load_state_dict(state["training"])
        self.epoch = self.training.epoch
        lineage = state["lineage"]
        self._lineage = [] if lineage is None else list(lineage.unbind())
        self.follow(state["levels"])


METHOD = Pba
