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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from raysearch.data import Split
from raysearch.errors import RaysearchError
from raysearch.methods._base import Context, Expected, Method
from raysearch.methods._population import Levels, exploit
from raysearch.methods._rounds import RoundSearch, operation_figures, trial_id
from raysearch.methods._settings import SomeOperations
from raysearch.methods._validated import Goal, ValidatedTraining, reward, snapshot
from raysearch.policy import RandomOrder, Schedule
from raysearch.protocol import Answer, Build, Metrics, Proposal, Values
from raysearch.settings import Count, NotNegative, Probability
from raysearch.training import Setup, Training, derive_seed, validation_cost

MAX_LEVEL = 127  # levels are kept in a byte


Levelled = Annotated[int, Field(ge=1, le=MAX_LEVEL)]


def _sum_to_one(counts: tuple[float, ...]) -> tuple[float, ...]:
    if len(counts) < 2 or not math.isclose(sum(counts), 1):
        raise ValueError("expected two or more that sum to 1")
    return counts


@dataclass(frozen=True)
class Pba(Method):
    """The method; see the module's text.

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
        score: by what members are compared, on the validation images: the task's `metric` (of
            classification, in the paper: accuracy) or minus the `loss`.
    """

    title: ClassVar[str] = "PBA"
    operations: SomeOperations
    copies: Count
    counts: Annotated[tuple[NotNegative, ...], AfterValidator(_sum_to_one)]
    probability_levels: Levelled
    magnitude_levels: Levelled
    population: Annotated[int, Field(ge=2)]
    interval: Count
    quantile: Annotated[float, Field(gt=0, le=0.5)]
    resample: Probability
    change: Count
    score: Goal

    @property
    def entries(self) -> tuple[str, ...]:
        """The operation of each entry of a policy."""
        return tuple(name for name in self.operations for _ in range(self.copies))

    @property
    def tops(self) -> tuple[int, int]:
        """The highest levels of probabilities and of magnitudes."""
        return self.probability_levels, self.magnitude_levels

    @property
    def start(self) -> Levels:
        """The policy with which every member begins: all zero."""
        return [[0] * len(self.entries) for _ in self.tops]

    def policy(self, levels: Levels) -> RandomOrder:
        """The policy of levels: probabilities and magnitudes of the entries."""
        probability, magnitude = torch.tensor(levels).double()
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

    def search(self, seed: int, context: Context) -> PbaSearch:
        """See `PbaSearch`."""
        return PbaSearch(seed, self, context.epochs)

    def build(self, setup: Setup, context: Context) -> Build:
        """Makes intervals; one training is used for all that go on from another."""
        train, val = setup.search_splits()
        # the images are divided by the search's seed, all else follows from the member's own
        divided = replace(setup, dataset=replace(setup.dataset, train=train, val=val))
        training: Training | None = None

        def built(proposal: Proposal, files: Mapping[str, Values]) -> Interval:
            nonlocal training
            seed = derive_seed(setup.seed, "member", proposal.values["member"])
            own = replace(divided, seed=seed)
            if training is None or not proposal.needs:
                training = Training(own, context.search, None, True, split=train)
            training.setup = own
            for id in proposal.needs:
                training.load_state_dict(snapshot(files[id]))
            training.policy = self.policy(proposal.values["levels"])
            return Interval(training, val, self)

        return built

    def forecast(self, setup: Setup, context: Context) -> Expected:
        """A training for each member, in parts; validated at the end of every interval."""
        epochs, size = context.epochs, self.population
        rounds = math.ceil(epochs / self.interval)
        validation = validation_cost(*map(len, setup.search_splits()))
        times = "once" if rounds == 2 else f"{rounds - 1} times"
        return Expected(
            size * (epochs + rounds * validation),
            size * rounds,
            size,
            f"{size} members that copy and explore {times}",
        )


def explore(levels: Tensor, settings: Pba, generator: torch.Generator) -> Tensor:
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


class PbaSearch(RoundSearch):
    """Asks for an interval of every member, then lets the worst copy the best and explore.

    A member that failed copies too. The history has a row for every epoch: that of the member
    that was best at the end of its interval, with the cost of all.
    """

    def __init__(self, seed: int, settings: Pba, epochs: int) -> None:
        interval, size = settings.interval, settings.population
        if epochs <= interval:
            raise RaysearchError(
                f"method.interval={interval}: members copy none in "
                f"search.epochs={epochs}; expected fewer"
            )
        super().__init__(seed, math.ceil(epochs / interval))
        self.settings, self._epochs = settings, epochs
        self._levels = [settings.start] * size
        self._starts = [""] * size  # the proposals that members go on from
        self._lineages: list[list[Levels]] = [[] for _ in range(size)]  # of the rounds gone by
        self._best = 0

    @property
    def rows(self) -> int:
        """One for every epoch of the best members."""
        return self._epochs

    def propose(self) -> Sequence[Proposal]:
        """An interval of every member."""
        return [
            Proposal(
                trial_id(self.round + 1, member),
                self.round,
                {"member": member, "levels": levels},
                (start,) if start else (),
            )
            for member, (levels, start) in enumerate(zip(self._levels, self._starts, strict=True))
        ]

    def end_round(self, answers: Sequence[Values | None]) -> Sequence[Metrics]:
        """Members are compared; before the last round, they exploit and explore."""
        for lineage, levels in zip(self._lineages, self._levels, strict=True):
            lineage.append(levels)
        scores = [None if one is None else float(one["score"]) for one in answers]
        order, copies = exploit(scores, self.settings.quantile)
        self._best = order[-1]
        rows = self._rows(answers)
        if self.round + 1 < self.rounds:
            epoch = (self.round + 1) * self.settings.interval
            self._starts = [proposal.id for proposal in self.proposals]
            for member, best in copies.items():
                self._copy(choose(self.seed, best, member, epoch), member, epoch)
        return rows

    def _copy(self, parent: int, member: int, epoch: int) -> None:
        """A member goes on from another one's interval, with a policy near that one's."""
        self._starts[member] = self.proposals[parent].id
        self._lineages[member] = list(self._lineages[parent])
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "explore", epoch, member))
        levels = torch.tensor(self._levels[parent])
        self._levels[member] = explore(levels, self.settings, generator).tolist()

    def _rows(self, answers: Sequence[Values | None]) -> list[Metrics]:
        """The best member's epochs, each with the cost of all and its interval's validation."""
        best, levels = answers[self._best], self._levels[self._best]
        assert best is not None
        found = {key: value for key, value in best["rows"][-1].items() if key.startswith("val_")}
        policy = self.settings.policy(levels)
        found |= {"score": best["score"], **operation_figures(policy, self.settings.operations)}
        found["operations_per_image"] = policy.operations_per_image()
        members = [(best if one is None else one)["rows"] for one in answers]
        rows = []
        for i, row in enumerate(best["rows"]):
            cost = self.equivalents  # after the round, less what was yet to come
            for one in members:
                cost -= one[-1]["epoch_equivalents"] - one[i]["epoch_equivalents"]
            epoch = self.round * self.settings.interval + i + 1
            rows.append({**row, **found, "epoch": epoch, "epoch_equivalents": cost})
        return rows

    def policy(self) -> Schedule:
        """The policies of the best member's lineage, epoch by epoch; at first, its policy."""
        lineage, interval = self._lineages[self._best], self.settings.interval
        epochs = [
            levels
            for i, levels in enumerate(lineage)
            for _ in range(i * interval, min((i + 1) * interval, self._epochs))
        ]
        return Schedule(
            [self.settings.policy(levels) for levels in epochs or [self._levels[self._best]]]
        )

    def state_dict(self) -> dict[str, Any]:
        """The members besides."""
        return {
            **super().state_dict(),
            "levels": list(self._levels),
            "starts": list(self._starts),
            "lineages": torch.tensor(self._lineages, dtype=torch.int8),
            "best": self._best,
        }

    def load_state_dict(self, state: Values) -> None:
        """Go on from `state_dict`."""
        super().load_state_dict(state)
        self._levels, self._starts = list(state["levels"]), list(state["starts"])
        self._lineages, self._best = state["lineages"].tolist(), state["best"]


def choose(seed: int, best: Sequence[int], member: int, epoch: int) -> int:
    """Which of the best a member copies after an epoch: each alike."""
    return best[derive_seed(seed, "exploit", epoch, member) % len(best)]


class Interval(ValidatedTraining):
    """An interval of a member's training with one policy, validated at the end, as work.

    Args:
        training, val: see `ValidatedTraining`.
        settings: the method.
    """

    def __init__(self, training: Training, val: Split, settings: Pba) -> None:
        super().__init__(training, val, settings.interval)
        self._by = settings.score

    def answer(self) -> Answer:
        """How it went; the training's state is the file, but for the last interval.

        Its values are `score`, higher is better; `rows`, the metrics of the interval's epochs; and
        the interval's `epoch_equivalents`.
        """
        score = reward(self._by, self.metrics, self.training.setup.task.metric)
        cost = self.metrics["epoch_equivalents"]
        values = {"score": score, "rows": self.rows, "epoch_equivalents": cost}
        more = self.training.epoch < self.training.epochs
        return Answer(values, file=snapshot(self.training.state_dict()) if more else None)


METHOD = Pba
