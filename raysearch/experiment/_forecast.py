"""What an experiment will cost, within seconds and without training."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raysearch.experiment._count import Plain, plain_cost
from raysearch.experiment._entries import places_of
from raysearch.results import duration, plural

if TYPE_CHECKING:
    from raysearch.engine import Capacity, Place
    from raysearch.experiment._plan import Part, Plan

PROPOSAL_SECONDS = 0.05  # a proposal's own overhead; see benchmarks/trial_overhead.py
START_SECONDS = 12.0  # Ray, its workers, the report
LONG_SECONDS = 2 * 3600.0  # beyond which a person is told before the start
FIXED_BYTES = 8 * 2**20  # of an experiment's folder: log, page, pictures
TRIAL_BYTES = 2**18  # that a finished trial leaves


@dataclass(frozen=True)
class Group:
    """Trials that are alike.

    Attributes:
        method, stage: whose they are.
        count: how many.
        proposals: of each.
        place: what a proposal holds; None where a cluster decides.
        equivalents: epoch-equivalents of each.
        seconds: of each on one thread of this machine's CPU, all proposals in turn.
        parallel: proposals of one trial that can run at once.
        described: what it is made of, in words.
    """

    method: str
    stage: str
    count: int
    proposals: int
    place: Place | None
    equivalents: float
    seconds: float
    parallel: int
    described: str


@dataclass(frozen=True)
class Forecast:
    """What all trials will cost.

    Attributes:
        groups: the trials.
        given: epoch-equivalents of shared checkpoints that were given.
        bytes_needed: room that is needed on the disk, roughly.
    """

    groups: tuple[Group, ...]
    given: float
    bytes_needed: int

    @property
    def sizes(self) -> dict[tuple[str, str], float]:
        """The cost of a trial in trainings, by method and stage."""
        one = next((g.seconds for g in self.groups if g.stage == "evaluation"), None)
        return {(g.method, g.stage): g.seconds / one for g in self.groups} if one else {}

    @property
    def equivalents(self) -> float:
        """Epoch-equivalents of everything."""
        return self.given + sum(group.count * group.equivalents for group in self.groups)

    @property
    def seconds(self) -> float | None:
        """Of all groups, on this machine's CPU; None on GPUs or a cluster."""
        work, chains = 0.0, dict.fromkeys((g.method for g in self.groups), 0.0)
        for group in self.groups:
            place = group.place
            if place is None or place.share.device != "cpu":
                return None
            each = group.seconds / place.share.threads
            work += group.count * each / place.at_once
            chains[group.method] += each / min(group.parallel, place.at_once)
        return START_SECONDS + max([work, *chains.values()])

    def advice(self, side: int) -> str | None:
        """What to say of a long experiment before it starts: how long, and what would shorten it.

        Args:
            side: of the images, in pixels.
        """
        total = self.seconds
        if total is None or total <= LONG_SECONDS:
            return None
        stages: dict[str, float] = {}
        for group in self.groups:
            stages[group.stage] = stages.get(group.stage, 0.0) + group.count * group.seconds
        stage = max(stages, key=lambda name: stages[name])
        how = f"a lower {stage}.epochs= shortens it"
        if side >= 64:
            how = f"data.size={side // 2} would take about a quarter of that"
        return (
            f"this takes about {duration(total)} on this machine, most of it for the {stage}: "
            f"{how}; a smaller model= or data.limit= shortens it too"
        )


def forecast(plan: Plan, capacity: Capacity | None, done: Collection[str] = ()) -> Forecast:
    """Find out what is left of a plan, and what that costs.

    Args:
        plan: what is to be done.
        capacity: what there is; None where a cluster decides, of which nothing is known yet.
        done: methods that have been carried out already.

    Raises:
        RaysearchError: a method or a network does not take what it is given, or not even one
            trial fits.
    """
    first, *_ = plan.parts.values()
    parts = [part for name, part in plan.parts.items() if name not in done]
    setup = plan.setup(first, "cpu")(dataset=plan.dataset, seed=0)
    settings = first.configuration.settings
    plain = plain_cost(setup, settings.evaluation.batch_size)
    groups = tuple(g for part in parts for g in _groups(plan, part, plain, capacity))
    given = sum(
        float(checkpoint["metrics"]["epoch_equivalents"])
        for part in parts
        for checkpoint in part.given.values()
    )
    return Forecast(groups, given, _bytes(groups, plain))


def _groups(plan: Plan, part: Part, plain: Plain, capacity: Capacity | None) -> Iterator[Group]:
    settings = part.configuration.settings
    places: Mapping[str, Place] = places_of(part, capacity) if capacity else {}
    setup = plan.setup(part, "cpu")(dataset=plan.dataset, seed=(part.seeds or (0,))[0])
    unit = setup.search_images()
    epoch = unit * plain.seconds  # an epoch-equivalent
    if part.seeds:
        place = places.get(part.rounds_stage)
        expected = part.method.forecast(setup, part.context)
        count, words = len(part.seeds), expected.described
        if expected.proposals == 1:
            words = _of(count, settings.search.epochs)
        elif count > 1:
            words = f"{count} searches of {words}"
        yield Group(
            method=part.name,
            stage="search",
            count=count,
            proposals=expected.proposals,
            place=place,
            equivalents=expected.equivalents,
            seconds=expected.equivalents * epoch + expected.proposals * PROPOSAL_SECONDS,
            parallel=expected.parallel,
            described=words,
        )
    if part.rows:
        evaluation = settings.evaluation
        images = len(plan.dataset.full_train())
        whole = min(images, max(1, images // evaluation.batch_size) * evaluation.batch_size)
        equivalents = evaluation.epochs * whole * evaluation.enlarge_batch / unit
        count = len(part.rows) * len(evaluation.seeds)
        yield Group(
            method=part.name,
            stage="evaluation",
            count=count,
            proposals=1,
            place=places.get("evaluation"),
            equivalents=equivalents,
            seconds=equivalents * epoch,
            parallel=1,
            described=_of(count, evaluation.epochs),
        )


def _of(trials: int, epochs: int) -> str:
    return f"{plural(trials, 'trial')} of {plural(epochs, 'epoch')}"


def _bytes(groups: tuple[Group, ...], plain: Plain) -> int:
    """Checkpoints of what runs at once, files that rounds go on from, and what is kept."""
    state = 8 * plain.parameters  # weights and momentum
    running = sum(3 * state * min(g.count, g.place.at_once if g.place else 1) for g in groups)
    rounds = sum(4 * state * g.count * g.parallel for g in groups if g.proposals > 1)
    kept = sum(g.count * TRIAL_BYTES for g in groups)
    searches = sum(4 * state * g.count for g in groups if g.stage == "search")
    return FIXED_BYTES + running + rounds + searches + kept
