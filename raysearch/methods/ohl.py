"""OHL-Auto-Aug: online hyper-parameter learning (Lin et al., ICCV 2019).

One network is trained in rounds. In each, several replicas go on from the same weights for some
epochs with images augmented by the policy as it stands, a distribution over ordered
pairs of elements, and are validated. REINFORCE over these trajectories moves the policy (section
3.3), and the next round's replicas all start from the weights of the best one: the policy is
learned while the network is trained, for the stage of training that it is in.

The policy that the search returns is the schedule of those that were in force, replayed over the
matching parts of a training.

Beyond the paper are the settings `draws` and `reward` (see `_pair_search`) and `same_order`:
replicas see the same images in the same order, so that what differs between them is what they drew
from the policy.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field

from raysearch.data import Split
from raysearch.methods._base import Context, Expected
from raysearch.methods._pair_search import PairMethod, PairSearch, PairTraining, TrialPairs
from raysearch.methods._ppo import PPOSettings
from raysearch.methods._validated import reward, snapshot
from raysearch.policy import Schedule
from raysearch.protocol import Answer, Build, Metrics, Proposal, Values
from raysearch.settings import Count, wrong
from raysearch.training import Setup, Training, derive_seed, validation_cost

PHASES = 40  # of the policy at most; a longer search's rounds are put together
PROBABILITIES = 400_000  # in all phases together: below 10 MB as a file


@dataclass(frozen=True)
class Ohl(PairMethod):
    """The method; `lr` and `betas` are Adam's for the policy's logits.

    Attributes:
        updates: of the policy at most, one after each round; see `interval`.
        parallel: replicas in a round, at least 2.
        same_order: whether the replicas of a round share all randomness but the pairs' draws; not
            without `draws`, as nothing else would tell replicas apart.
    """

    title: ClassVar[str] = "OHL"
    updates: Count
    parallel: Annotated[int, Field(ge=2)]
    same_order: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.same_order and not self.draws:
            raise wrong("method.same_order", self.same_order, "false with method.draws=0")

    def interval(self, epochs: int) -> int:
        """Epochs of a round, of which the last may have fewer, where a search has so many."""
        return math.ceil(epochs / self.updates)

    def rounds(self, epochs: int) -> int:
        """Of a search of so many epochs."""
        return math.ceil(epochs / self.interval(epochs))

    def search(self, seed: int, context: Context) -> OhlSearch:
        """See `OhlSearch`."""
        return OhlSearch(seed, self, context.epochs)

    def build(self, setup: Setup, context: Context) -> Build:
        """Makes replicas; one training, which all rounds make up together, is used for them."""
        train, val = setup.search_splits()
        sgd = {**context.search, "label_smoothing": self.label_smoothing}
        training = Training(setup, sgd, None, True, split=train)
        initial = snapshot(training.state_dict())

        def built(proposal: Proposal, files: Mapping[str, Values]) -> Replica:
            # with no draws of its own a replica is told apart by those of its images
            seed = proposal.values["order" if self.draws else "seed"]
            training.setup = replace(setup, seed=seed)
            start = next((files[id] for id in proposal.needs), initial)
            training.load_state_dict(snapshot(start))
            policy = TrialPairs.of(self.uniform, proposal, self.draws)
            return Replica(training, policy, val, self)

        return built

    def forecast(self, setup: Setup, context: Context) -> Expected:
        """A training for each replica, in parts; validated at the end of every round."""
        epochs, group = context.epochs, self.parallel
        rounds = self.rounds(epochs)
        validation = validation_cost(*map(len, setup.search_splits()))
        return Expected(
            group * (epochs + rounds * validation),
            rounds * group,
            group,
            f"{rounds} updates from {group} trials each",
        )


class OhlSearch(PairSearch):
    """Asks for the replicas of each round.

    A round's metrics are means over its replicas; `reward_std` is the standard deviation of their
    rewards.
    """

    def __init__(self, seed: int, settings: Ohl, epochs: int) -> None:
        s, ppo = settings, PPOSettings(settings.lr, settings.betas)
        super().__init__(seed, s.rounds(epochs), s, ppo, s.parallel)
        self._epochs, self._interval = epochs, s.interval(epochs)
        self._same_order = s.same_order
        self._best = ""  # the last round's replica from which this one's start
        n = len(self.start)
        phases = min(PHASES, self.rounds, max(1, PROBABILITIES // n**2))
        self._phases = torch.zeros(phases, n, n, dtype=torch.float64)  # sums over epochs

    def propose(self) -> Sequence[Proposal]:
        """The replicas of a round."""
        return self.trials(self.round + 1, (self._best,) if self._best else (), "search")

    def values(self, id: str) -> Values:
        """The policy's draws are seeded by `seed`, all else by `order`."""
        seed = derive_seed(self.seed, "replica", id)
        order = derive_seed(self.seed, "round", self.round) if self._same_order else seed
        return {"seed": seed, "order": order}

    def end_round(self, answers: Sequence[Values | None]) -> Sequence[Metrics]:
        """Note the policy that was in force, choose the best replica, take a REINFORCE step."""
        first = self.round * self._interval
        for epoch in range(first, min(first + self._interval, self._epochs)):
            phase = epoch * len(self._phases) // self._epochs
            self._phases[phase] += self.current().probabilities
        counts, rewards, metrics = self.outcome(answers)
        metrics |= self.figures()  # of the policy that the replicas had
        ended = [i for i, one in enumerate(answers) if one is not None]
        self._best = self.proposals[max(ended, key=lambda i: rewards[i])].id  # the first of several
        moved = self.ppo.update(counts, normalised(rewards))
        metrics |= {"reward_std": statistics.pstdev(rewards), "kl": moved["kl"]}
        return [self.row(metrics)]

    def policy(self) -> Schedule:
        """The policies that were in force so far, in phases of as many epochs each."""
        begun = [phase for phase in self._phases if float(phase.sum()) > 0]
        parts = [self.start.with_probabilities(phase) for phase in begun]
        return Schedule(parts or [self.start])

    def state_dict(self) -> dict[str, Any]:
        """See `PairSearch.state_dict`; the policies of rounds gone by, and the best replica."""
        return {**super().state_dict(), "phases": self._phases.clone(), "best": self._best}

    def load_state_dict(self, state: Values) -> None:
        """See `PairSearch.load_state_dict`."""
        super().load_state_dict(state)
        self._phases, self._best = state["phases"].clone(), state["best"]


def normalised(rewards: Sequence[float]) -> list[float]:
    """Rewards less their mean, over their standard deviation; all 0 where they are alike."""
    mean, deviation = statistics.fmean(rewards), statistics.pstdev(rewards)
    return [(reward - mean) / deviation if deviation > 0 else 0.0 for reward in rewards]


class Replica(PairTraining):
    """A round's epochs of one replica, validated at the end, as work.

    Args:
        training, policy, val: see `PairTraining`.
        settings: the method.
    """

    def __init__(self, training: Training, policy: TrialPairs, val: Split, settings: Ohl) -> None:
        super().__init__(training, policy, val, settings.interval(training.epochs))
        self._by = settings.reward

    def answer(self) -> Answer:
        """How it went; the training's state is the file.

        Its values are `counts`, how often each pair was drawn, int32 [N·N]; `reward`; `val_loss`
        and the task's other figures, `train_loss` and `lr` of the last epoch, and the round's
        `epoch_equivalents`.
        """
        found = reward(self._by, self.metrics, self.training.setup.task.metric)
        values = {"counts": self.policy.counts, "reward": found, **self.metrics}
        return Answer(values, file=snapshot(self.training.state_dict()))


METHOD = Ohl
