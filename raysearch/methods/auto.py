"""A race between what a good practitioner would try, judged on held-out training images.

Which augmentation is right differs completely between data sets. So candidates (see `_portfolio`)
train on the same folds from the same weights, short trainings first; the best go on to longer ones
and to other folds; see `_race`. A fold is trained in as many steps as all the images would be, as
the schedule decides otherwise. The best on the images held out is the result, or the simplest of
those that are as good. It is complete: what is predefined is a candidate as any other.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from raysearch.data import Split
from raysearch.methods._base import Context, Expected, Method
from raysearch.methods._folds import fold_splits
from raysearch.methods._portfolio import (
    Images,
    complete_policy,
    distinct,
    neighbours,
    richness,
    steps,
)
from raysearch.methods._race import (
    FAILED,
    Heat,
    Judged,
    check_budget,
    lay_out,
    scores,
    simplest,
    standing,
    trainings,
)
from raysearch.methods._rounds import RoundSearch, means, trial_id
from raysearch.methods._validated import ValidatedTraining, cost
from raysearch.policy import Basic, Policy, from_json
from raysearch.protocol import Answer, Build, Metrics, Proposal, Values
from raysearch.training import (
    Predefined,
    Setup,
    SGDSettings,
    Training,
    derive_seed,
    image_losses,
    validation_cost,
)

ROOM = 5  # entrants of a heat in which neighbours of the leader run too
FACTOR = 1.5  # between their strengths


def _candidates(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        steps(name)
    return names


@dataclass(frozen=True)
class Auto(Method):
    """Settings; what they are made into is `Race`.

    Attributes:
        budget: what the race may cost in full trainings, as `8x`; the experiment turns a time into
            that.
        candidates: names of policies, see `_portfolio`, those that matter most first.
        objective: what is judged by on the held-out images, the `loss`, the task's `metric`, or
            `both`, as the loss tells candidates apart where hardly any image is mistaken, and the
            metric where networks are too sure.
        folds: into so many parts the training images are divided, of which each is held out in
            turn, at least 2; where the data have validation images of their own, those are used.
    """

    title: ClassVar[str] = "auto"

    budget: Annotated[str, Field(min_length=1)]
    candidates: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_candidates)]
    objective: Literal["loss", "metric", "both"]
    folds: Annotated[int, Field(ge=2)]

    def __post_init__(self) -> None:
        check_budget(self.budget)

    @property
    def heats(self) -> list[Heat]:
        """The race's."""
        return lay_out(len(self.candidates), trainings(self.budget))

    @property
    def uniform(self) -> None:
        """None: it chooses between policies, and no operations."""

    def predefined(self, given: Predefined, size: tuple[int, int]) -> Predefined:
        """None of it beside a policy, which is complete."""
        return Predefined()

    def held_out(self, val_fraction: float) -> str:
        """A fold at a time."""
        return f"{self.folds} folds"

    def settled(self, setup: Setup) -> Auto:
        """Without the candidates that are the same as others on these images."""
        return replace(self, candidates=tuple(distinct(self.candidates, Images.of(setup))))

    def search(self, seed: int, context: Context) -> Race:
        """See `Race`."""
        return Race(seed, self)

    def build(self, setup: Setup, context: Context) -> Build:
        """Makes trainings on all folds but one."""
        images, data = Images.of(setup), HeatData(setup, self.folds)
        schedule = SGDSettings.of(context.search)

        def built(proposal: Proposal, files: Mapping[str, Values]) -> HeatTraining:
            values = proposal.values
            policy = complete_policy(values["candidate"], images)
            train, val = data.splits(values["heat"])
            epochs = data.epochs(schedule, len(train), values["length"])
            search = {**context.search, "epochs": epochs}
            own = data.setup(values["heat"])
            training = Training(own, search, policy, False, split=train)
            return HeatTraining(training, val)

        return built

    def forecast(self, setup: Setup, context: Context) -> Expected:
        """All heats."""
        data, schedule = HeatData(setup, self.folds), SGDSettings.of(context.search)
        equivalents, proposals, unit = 0.0, 0, setup.search_images()
        for index, heat in enumerate(self.heats):
            train, val = data.splits(index)
            epochs = data.epochs(schedule, len(train), heat.length)
            used = min(len(train), schedule.steps(len(train)) * schedule.batch_size)
            each = epochs * used / unit + validation_cost(unit, len(val))
            equivalents += heat.entrants * each
            proposals += heat.entrants
        stages = [(heat, len(list(same))) for heat, same in itertools.groupby(self.heats)]
        words = ", then ".join(
            f"{heat.entrants} at {heat.length:.0%} of the length" + (f" {n} times" if n > 1 else "")
            for heat, n in stages
        )
        words = f"a race: {words}"
        return Expected(equivalents, proposals, self.heats[0].entrants, words)


class Race(RoundSearch):
    """A round is a heat; see the module's text.

    Args:
        seed: everything random follows from it.
        settings: the method.

    Attributes:
        heats: those of the race.
        found: validation loss and the metric as a cost, by candidate, in each heat so far; infinite
            of who failed.
    """

    def __init__(self, seed: int, settings: Auto) -> None:
        self.heats = settings.heats
        super().__init__(seed, len(self.heats))
        self.candidates, self._objective = settings.candidates, settings.objective
        self.found: list[dict[str, Judged]] = []
        self._losses: list[dict[str, Tensor]] = []  # of each held-out image, likewise
        self._policies: dict[str, str] = {}  # of who has run, as JSON

    def propose(self) -> Sequence[Proposal]:
        """A training for everybody who is left."""
        heat = self.heats[self.round]
        return [
            Proposal(
                trial_id(self.round + 1, index),
                self.round,
                {"candidate": name, "heat": self.round, "length": heat.length},
            )
            for index, name in enumerate(self.entrants(heat))
        ]

    def entrants(self, heat: Heat) -> list[str]:
        """Who runs in the heat that comes.

        In the first at the full length, where it has room, a little weaker and a little stronger
        forms of the leader run instead of the last.
        """
        left = self.left()
        names = left[: heat.entrants]
        first = self.round and heat.length == 1 and self.heats[self.round - 1].length < 1
        if not first or heat.entrants < ROOM:
            return names
        new = [name for name in neighbours(left[0], FACTOR) if name not in left]
        return [*names[: heat.entrants - len(new)], *new]

    def left(self) -> list[str]:
        """Who is still in the race, the best first."""
        if not self.found:
            return list(self.candidates)
        counted = self._counted()
        order = list(standing([scores(self.found[heat], self._objective) for heat in counted]))
        if len(self.found) < self.rounds:
            return order
        losses = {
            name: torch.cat([self._losses[heat][name] for heat in counted]).double().numpy()
            for name in order
            if all(name in self._losses[heat] for heat in counted)
        }
        chosen = simplest(order, losses, richness)
        return [chosen, *(name for name in order if name != chosen)]

    def _counted(self) -> list[int]:
        """The heats that decide: the longest so far."""
        lengths = [heat.length for heat in self.heats[: len(self.found)]]
        return [heat for heat, length in enumerate(lengths) if length == max(lengths)]

    def end_round(self, answers: Sequence[Values | None]) -> Sequence[Metrics]:
        """Who goes on."""
        row: dict[str, float] = {}
        found: dict[str, Judged] = {}
        losses: dict[str, Tensor] = {}
        for proposal, answer in zip(self.proposals, answers, strict=True):
            name = proposal.values["candidate"]
            found[name] = FAILED if answer is None else (answer["val_loss"], answer["cost"])
            if answer is not None:
                self._policies[name], losses[name] = answer["policy"], answer["losses"]
                row |= {f"{key}/{name}": answer[key] for key in answer if key.startswith("val_")}
        self.found.append(found)
        self._losses.append(losses)
        left = self.left()
        order = [*left, *(name for name in found if name not in left)]
        row |= {f"rank/{name}": float(place + 1) for place, name in enumerate(order)}
        row |= {"entrants": float(len(found)), "length": self.heats[self.round].length}
        return [self.row({**means(answers), **row})]

    def policy(self) -> Policy:
        """The winner's so far; before there is one, images as they are."""
        known = [name for name in self.left() if name in self._policies]
        if not known:
            return Basic()
        return from_json(json.loads(self._policies[known[0]]))

    def state_dict(self) -> dict[str, Any]:
        """The scores besides."""
        return {
            **super().state_dict(),
            "found": [{name: list(one) for name, one in heat.items()} for heat in self.found],
            "losses": [dict(heat) for heat in self._losses],
            "policies": dict(self._policies),
        }

    def load_state_dict(self, state: Values) -> None:
        """Go on from `state_dict`."""
        super().load_state_dict(state)
        heats = state["found"]
        self.found = [{name: (one[0], one[1]) for name, one in heat.items()} for heat in heats]
        self._losses = [dict(heat) for heat in state["losses"]]
        self._policies = dict(state["policies"])


class HeatData:
    """What the heats of a race train on and are judged on.

    Heat h holds out fold h modulo the number of folds; where the data have validation images of
    their own, all hold out these. Every heat has weights and an order of the images of its own,
    which all who run in it share.

    Args:
        setup: data, network, device and seed.
        count: of folds.
    """

    def __init__(self, setup: Setup, count: int) -> None:
        self._setup, data = setup, setup.dataset
        if data.val is None:
            self._splits = fold_splits(setup, count)
        else:
            self._splits = [(data.train, data.val)]

    def splits(self, heat: int) -> tuple[Split, Split]:
        """What is trained on, and what is held out."""
        return self._splits[heat % len(self._splits)]

    def setup(self, heat: int) -> Setup:
        """The heat's, with a seed of its own; a complete policy stands for what is predefined."""
        seed = derive_seed(self._setup.seed, "heat", heat)
        return replace(self._setup, seed=seed, predefined=Predefined())

    def epochs(self, schedule: SGDSettings, images: int, length: float) -> int:
        """Epochs over so many images that make the steps of a part of a full training.

        Args:
            schedule: of the full training.
            images: of an epoch.
            length: the part, in (0, 1].
        """
        full = schedule.epochs * schedule.steps(len(self._setup.dataset.full_train()))
        return max(1, round(length * full / schedule.steps(images)))


class HeatTraining(ValidatedTraining):
    """A candidate's training in a heat, as work.

    Args:
        training, val: see `ValidatedTraining`.
    """

    def answer(self) -> Answer:
        """How it went.

        Its values are the metrics of the last epoch, the metric as a `cost`, `losses` of the
        held-out images, float32 [N], and the policy as JSON.
        """
        training = self.training
        assert training.policy is not None
        return Answer(
            {
                **self.metrics,
                "cost": cost("metric", self.metrics, training.setup.task.metric),
                "losses": image_losses(training.model, training.setup, self.val),
                "policy": json.dumps(training.policy.to_json()),
            }
        )


METHOD = Auto
