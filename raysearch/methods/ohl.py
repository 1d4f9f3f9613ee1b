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

import copy
import math
import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raysearch.errors import RaysearchError
from raysearch.methods._pair_search import PairSearch, PairSettings, TrialPairs
from raysearch.methods._ppo import PPOSettings
from raysearch.methods._shared import validated
from raysearch.methods._trials import Proposal, Values, file_of
from raysearch.policy import Pairs, Schedule
from raysearch.states import load, save_whole
from raysearch.training import Setup, Training, derive_seed, validation_cost

PHASES = 40  # of the policy at most; a longer search's rounds are put together
PROBABILITIES = 400_000  # in all phases together: below 10 MB as a file


@dataclass(frozen=True)
class OhlSettings(PairSettings):
    """Settings; `lr` and `betas` are Adam's for the policy's logits.

    Attributes:
        updates: of the policy at most, one after each round; see `interval`.
        parallel: replicas in a round, at least 2.
        same_order: whether the replicas of a round share all randomness but the pairs' draws.
    """

    updates: int
    parallel: int
    same_order: bool

    def conditions(self) -> Iterable[tuple[str, bool, str]]:
        """The values that each number may take."""
        return (
            *super().conditions(),
            ("updates", self.updates >= 1, "at least 1"),
            ("parallel", self.parallel >= 2, "at least 2"),
        )

    def interval(self, epochs: int) -> int:
        """Epochs of a round, of which the last may have fewer, where a search has so many."""
        return math.ceil(epochs / self.updates)


class Ohl(PairSearch):
    """The driver's part; see the module's text and `TrialSearch`.

    Metrics are means over a round's replicas; `spread` is the standard deviation of their rewards.
    """

    def __init__(self, seed: int, method: Values, training: Values) -> None:
        s = OhlSettings.of(method)
        self._epochs = int(training["epochs"])
        self._interval = s.interval(self._epochs)
        # the first step on a group is REINFORCE's: all ratios are 1, and nothing is clipped
        once = PPOSettings(
            s.lr, s.betas, warmup=0, clip=0.5, inner_updates=1, kl_limit=0.0, baseline_decay=0.0
        )
        rounds = math.ceil(self._epochs / self._interval)
        super().__init__(seed, s, once, rounds, training["parallel"])
        self._same_order = s.same_order
        self._best = ""  # the last round's replica from which this one's start
        n = len(self._uniform)
        phases = min(PHASES, rounds, max(1, PROBABILITIES // n**2))
        self._phases = torch.zeros(phases, n, n, dtype=torch.float64)  # sums over epochs

    @classmethod
    def uniform(cls, method: Values) -> Pairs:
        """All pairs of elements alike."""
        return OhlSettings.of(method).uniform

    @classmethod
    def worker(cls, setup: Setup, method: Values, training: Values, prepared: Values) -> Replica:
        """Trains replicas."""
        return Replica(setup, OhlSettings.of(method), training)

    @property
    def trainings(self) -> int:
        """Each round's trials are a part of as many trainings."""
        return self._group

    @property
    def proposals(self) -> int:
        """A part for each round."""
        return self.rounds * self._group

    @property
    def files(self) -> int:
        """The replicas of a round, and the one that they start from."""
        return self._group + 1

    def equivalents(self, setup: Setup) -> float:
        """A training for each replica, validated at the end of every round."""
        validation = validation_cost(*setup.search_splits())
        return self._group * (self._epochs + self.rounds * validation)

    def policy(self) -> Schedule:
        """The policies that were in force so far, in phases of as many epochs each."""
        begun = [phase for phase in self._phases if float(phase.sum()) > 0]
        parts = [self._uniform.with_probabilities(phase) for phase in begun]
        return Schedule(parts or [self._uniform])

    def needed(self) -> Collection[str]:
        """The best replica of the last round, until there is none to come."""
        return () if self.finished else (self._best,)

    def _values(self, proposal: str) -> Values:
        """The policy's draws are seeded by `seed`, all else by `order`."""
        seed = derive_seed(self.seed, "replica", proposal)
        order = derive_seed(self.seed, "round", self.round) if self._same_order else seed
        return {"seed": seed, "order": order, "start": self._best}

    def _move(self, counts: Tensor, rewards: Sequence[float]) -> dict[str, float]:
        """Note the policy that was in force, choose the best replica, take a REINFORCE step."""
        first = self.round * self._interval
        for epoch in range(first, min(first + self._interval, self._epochs)):
            phase = epoch * len(self._phases) // self._epochs
            self._phases[phase] += self._current().probabilities
        self._best = self._ids()[rewards.index(max(rewards))]
        in_force = self._moved()  # a round's metrics are of the policy that its replicas had
        moved = self._ppo.update(counts, normalised(rewards))
        return {**in_force, "spread": statistics.pstdev(rewards), "kl": moved["kl"]}

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


class Replica:
    """The worker's part: a round's training of one replica for each proposal.

    Args:
        setup: data, network, device and seed.
        settings: the method's.
        training: the fields of `SGDSettings`, of the training that all rounds make up together.
    """

    def __init__(self, setup: Setup, settings: OhlSettings, training: Values) -> None:
        self.setup, self.settings = setup, settings
        self._uniform = settings.uniform
        train, self._val = setup.search_splits()
        sgd = {**training, "label_smoothing": settings.label_smoothing}
        self._training = Training(setup, sgd, None, True, split=train)
        self._interval = settings.interval(self._training.epochs)
        self._validation = validation_cost(train, self._val)
        self._initial = copy.deepcopy(self._training.state_dict())

    def __call__(self, proposal: Proposal, folder: Path) -> dict[str, Any]:
        """Go on from the start for a round's epochs, validate, and keep where that led.

        Returns:
            `counts`, how often each pair was drawn, int32 [N·N]; `reward`; `val_loss` and
            `val_error` (percent), `train_loss` and `lr` of the last epoch, and the round's
            `epoch_equivalents`.

        Raises:
            RaysearchError: there is no file of the replica to start from.
            NonFiniteLossError: the loss became NaN or infinite.
        """
        policy = TrialPairs.of(self._uniform, proposal, self.settings.draws)
        training = self._training
        # with no draws of its own a replica is told apart by those of its images
        seed = proposal.values["order" if self.settings.draws else "seed"]
        training.setup, training.policy = replace(self.setup, seed=seed), policy
        training.load_state_dict(self._start(proposal.values["start"], folder))
        first = training.epoch
        last = min(first + self._interval, training.epochs)
        while training.epoch < last:
            metrics = training.step()
        error, loss = validated(training.model, self.setup, self._val, last)
        save_whole(file_of(folder, proposal.id), training.state_dict())
        trained = metrics["epoch_equivalents"] * (last - first) / last
        return {
            "counts": policy.counts,
            "reward": self.settings.reward_of(error, loss),
            "val_error": error,
            "val_loss": loss,
            **metrics,
            "epoch_equivalents": trained + self._validation,
        }

    def _start(self, replica: str, folder: Path) -> dict[str, Any]:
        """The state of a replica of the last round; before the first, that of a new network."""
        if not replica:
            return self._initial
        path = file_of(folder, replica)
        if not path.is_file():
            raise RaysearchError(
                f"{path} is gone, which the search goes on from; begin it anew, under another name"
            )
        return load(path)


METHOD = Ohl
