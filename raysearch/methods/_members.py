"""The members of PBA's population: intervals of their trainings, as work."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from raysearch.methods._population import Levels
from raysearch.methods._rounds import snapshot
from raysearch.methods._shared import reward, validated
from raysearch.policy import RandomOrder
from raysearch.protocol import Answer, Metrics, Proposal, Values
from raysearch.training import Setup, Training, derive_seed, validation_cost

if TYPE_CHECKING:
    from raysearch.methods.pba import PbaSettings


class Members:
    """Makes intervals of members; one training is used for all that go on from another.

    Args:
        setup: data, network, device and the search's seed, which divides the images.
        settings: the method's.
        search: the fields of `SGDSettings` for every member.
    """

    def __init__(self, setup: Setup, settings: PbaSettings, search: Values) -> None:
        self.settings, self._search = settings, search
        train, self.val = setup.search_splits()
        self.validation = validation_cost(train, self.val)
        self._train, self._seed = train, setup.seed
        self._setup = replace(setup, dataset=replace(setup.dataset, train=train, val=self.val))
        self._training: Training | None = None

    def __call__(self, proposal: Proposal, files: Mapping[str, Values]) -> Interval:
        """A member goes on from the interval that it needs, or else from a new network."""
        # the images are divided by the search's seed, all else follows from the member's own
        seed = derive_seed(self._seed, "member", proposal.values["member"])
        own = replace(self._setup, seed=seed)
        if self._training is None or not proposal.needs:
            self._training = Training(own, self._search, None, True, split=self._train)
        self._training.setup = own
        for id in proposal.needs:
            self._training.load_state_dict(snapshot(files[id]))
        return Interval(self, self._training, proposal.values["levels"])


class Interval:
    """An interval of a member's training with one policy, validated at the end, as work.

    Args:
        members: what it is one of.
        training: what it goes on from, until the next one does.
        levels: of the policy.
    """

    def __init__(self, members: Members, training: Training, levels: Levels) -> None:
        self._members, self.training, self.loop = members, training, training.loop
        self._interval = members.settings.interval
        training.policy = policy = members.settings.policy(levels)
        self._figures = figures(policy, members.settings.operations)
        self._first = training.epoch
        self._last = min(self._first + self._interval, training.epochs)
        self._rows: list[Metrics] = []

    @property
    def epochs(self) -> int:
        """Of the interval; fewer in the last one where they do not divide the search."""
        return self._last - self._first

    @property
    def epoch(self) -> int:
        """How many of them are done."""
        return self.training.epoch - self._first

    def step(self) -> Metrics:
        """One epoch; `epoch` and `epoch_equivalents` are the member's since its beginning."""
        members, training = self._members, self.training
        metrics = {"epoch": training.epoch + 1, **training.step()}
        validations = self._first // self._interval
        if training.epoch == self._last:
            metrics |= validated(training.model, training.setup, members.val, training.epoch)
            by, metric = members.settings.score, training.setup.task.metric
            metrics["score"] = reward(by, metrics, metric)
            validations += 1
        metrics["epoch_equivalents"] += validations * members.validation
        self._rows.append({**metrics, **self._figures})
        return dict(self._rows[-1])

    def answer(self) -> Answer:
        """How it went; the training's state is the file, but for the last interval.

        Its values are `score`, higher is better; `rows`, the metrics of the interval's epochs; and
        the interval's own `epoch_equivalents`.
        """
        last = self._rows[-1]
        before = self._first // self._interval * self._members.validation
        trained = last["epoch_equivalents"] - before - self._members.validation
        cost = trained * self.epochs / self._last + self._members.validation
        values = {"score": last["score"], "rows": list(self._rows), "epoch_equivalents": cost}
        more = self._last < self.training.epochs
        return Answer(values, file=snapshot(self.training.state_dict()) if more else None)

    def state_dict(self) -> dict[str, Any]:
        """The training's state, and the epochs' metrics."""
        return {"training": self.training.state_dict(), "rows": list(self._rows)}

    def load_state_dict(self, state: Values) -> None:
        """Continue from `state_dict`."""
        self.training.load_state_dict(state["training"])
        self._rows = [dict(row) for row in state["rows"]]


def figures(policy: RandomOrder, names: Sequence[str]) -> Metrics:
    """Entropy of the operations' shares, their divergence from uniform, and the shares.

    All are 0 where nothing is applied.
    """
    marginals = policy.marginals()
    shares = torch.tensor([marginals[name] for name in names], dtype=torch.float64)
    entropy = float(torch.special.entr(shares).sum())
    return {
        "entropy": entropy,
        "kl_uniform": max(0.0, float(shares.sum()) * math.log(len(names)) - entropy),
        "operations_per_image": policy.operations_per_image(),
        **{f"share/{name}": marginals[name] for name in names},
    }
