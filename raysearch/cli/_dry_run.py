"""What a run would do and cost, without doing it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from raysearch.cli._compose import to_yaml
from raysearch.cli._plan import Place, Plan
from raysearch.cli._schema import TrainingSettings
from raysearch.data import Dataset, Split
from raysearch.errors import RaysearchError
from raysearch.methods import PreparedTrialSearch, TrialSearch
from raysearch.training import Training, validation_cost
from raysearch.tune import Work

BATCHES = 4  # that are timed, after as many to warm up
FIRST_BATCH = 16  # images; tells whether whole batches can be timed at all
PATIENCE = 10.0  # seconds that timing whole batches may take
TRIAL_SECONDS = 0.05  # a proposed trial's own overhead; see benchmarks/trial_overhead.py
INTERVAL_SECONDS = 0.05  # a member's own overhead in an interval, as measured on digits
START_SECONDS = 12.0  # Ray, its workers, the report


@dataclass(frozen=True)
class Cost:
    """What an epoch of a trial costs.

    Attributes:
        equivalents: plain training epochs on the search's train split.
        seconds: on one thread of this machine's CPU.
    """

    equivalents: float
    seconds: float


def describe(plan: Plan, places: Mapping[str, Place] | None) -> str:
    """The composed configuration, the trials, what they hold, and an estimate of the cost.

    Args:
        plan: the trials.
        places: what they hold; None when a running cluster decides.
    """
    lines = [to_yaml(plan.configuration).rstrip(), "", "# trials"]
    seconds: float | None = START_SECONDS
    total = 0.0
    for group in groups(plan, places):
        place = group.place
        lines.append(
            f"{group.stage}: {_plural(group.count, 'trial')} of {_plural(group.epochs, 'epoch')}, "
            f"{_holding(place)}"
        )
        lines.append("  " + _names(group.names))
        if group.cost is None:
            seconds = None
            lines.append("  cost: not known before it runs")
            continue
        equivalents = group.cost.equivalents * group.epochs
        total += equivalents * group.count
        lines.append(
            f"  cost: {equivalents:.1f} epoch-equivalents each, "
            f"{equivalents * group.count:.1f} in all; {_duration(group.cost.seconds)} an epoch on "
            "one CPU thread of this machine"
        )
        if place is None or place.share.device != "cpu":
            seconds = None
        elif seconds is not None:
            rounds = math.ceil(group.count / place.at_once)
            seconds += rounds * group.epochs * group.cost.seconds / _speed_up(place)
    for seed, given in plan.given.items():
        equivalents = given["metrics"]["epoch_equivalents"]
        total += equivalents
        lines.append(
            f"shared checkpoint of seed {seed}, given: {equivalents:.1f} epoch-equivalents"
        )
    lines += ["", "# cost", f"{total:.0f} epoch-equivalents (one: a plain training epoch on the"]
    lines[-1] += " search's train split)"
    if seconds is not None:
        lines.append(f"about {_duration(seconds)}, from a few training steps timed just now")
    else:
        lines.append("time: depends on the GPUs or the cluster, which were not asked")
    return "\n".join(lines)


@dataclass(frozen=True)
class Group:
    """Like trials.

    Attributes:
        stage: their stage.
        names: what they are called.
        count: how many they are.
        epochs: of each.
        place: what they hold; None when a running cluster decides.
        cost: of an epoch; None where it cannot be told.
    """

    stage: str
    names: list[str]
    count: int
    epochs: int
    place: Place | None
    cost: Cost | None


def groups(
    plan: Plan, places: Mapping[str, Place] | None, patience: float = PATIENCE
) -> Iterator[Group]:
    """A run's trials, those that are alike together, with what they cost; times a few steps.

    Args:
        plan: the trials.
        places: what they hold; None when a running cluster decides.
        patience: seconds that timing whole batches may take, for each kind of trials; 0 is enough
            for the arithmetic.
    """
    settings = plan.configuration.settings
    for stage, trials, group, build in (
        ("shared", plan.shared, settings.search, _search),
        ("search", plan.search, settings.search, _search),
        ("evaluation", plan.evaluation, settings.evaluation, _evaluation),
    ):
        if stage == "search" and plan.search and plan.trial_search is not None:
            yield _proposed(plan, plan.trial_search, places, patience)
        elif stage == "search" and plan.members is not None:
            yield _members(plan, places, patience)
        elif trials:
            cost = _timed(plan, group, build, patience)
            if cost is not None and stage == "search":
                cost = _with_warmup(cost, plan)
            place = places["evaluation" if stage == "evaluation" else "search"] if places else None
            names = [trial.name for trial in trials]
            yield Group(stage, names, len(trials), group.epochs, place, cost)


def _proposed(
    plan: Plan,
    trials: type[TrialSearch],
    places: Mapping[str, Place] | None,
    patience: float,
) -> Group:
    """The trials of searches that propose them."""
    values, settings = plan.configuration.values, plan.configuration.settings
    group = settings.finetune or settings.search
    place = places[plan.trials_group] if places else None
    parallel = plan.parallel(place.at_once if place else 1)
    search = trials(plan.search[0].seed, values["method"], plan.training(parallel))
    known = place is not None or plan.asked_parallel is not None
    each = search.describe() if known else "as many trials at a time as fit"
    names = [f"{trial.name}: {each}" for trial in plan.search]
    cost = _timed(plan, group, _search, patience) if known else None
    if cost is not None:
        # `cost` is that of an epoch of plain training with a policy
        epochs = search.trainings * group.epochs
        more = search.equivalents(plan.setting("cpu").task(plan.search[0].seed)) / epochs
        overhead = TRIAL_SECONDS * search.proposals / epochs
        cost = Cost(cost.equivalents * more, cost.seconds * more + overhead)
    count = len(plan.search) * search.trainings
    return Group("search", names, count, group.epochs, place, cost)


def _members(plan: Plan, places: Mapping[str, Place] | None, patience: float) -> Group:
    """The members of populations, which validate at the end of every interval."""
    settings, populations = plan.configuration.settings.search, plan.populations
    one = populations[plan.search[0].id]
    cost = _timed(plan, settings, _member, patience)
    if cost is not None:
        splits = plan.setting("cpu").task(plan.search[0].seed).search_splits()
        more = 1 + validation_cost(*splits) / one.interval
        overhead = INTERVAL_SECONDS / one.interval
        cost = Cost(cost.equivalents * more, cost.seconds * more + overhead)
    names = [f"{trial.name}: {_plural(one.size, 'member')}" for trial in plan.search]
    place = places["search"] if places else None
    if place is not None:  # populations run one after the other
        place = replace(place, at_once=min(place.at_once, one.size))
    return Group("search", names, one.size * len(plan.search), settings.epochs, place, cost)


def _plural(count: int, what: str) -> str:
    return f"{count} {what}" + ("s" if count != 1 else "")


def _holding(place: Place | None) -> str:
    if place is None:
        return "as many at once as the cluster has room for"
    share = place.share
    gpus = f" and {share.gpus:g} GPU" if share.gpus else ""
    return f"{place.at_once} at once, each with {share.cpus:g} CPU{gpus}, on {share.device}"


def _names(names: list[str]) -> str:
    return ", ".join(names if len(names) <= 8 else [*names[:6], "...", names[-1]])


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _speed_up(place: Place) -> float:
    """How much faster than one thread a trial runs, at best."""
    return float(place.share.threads)


Build = Callable[[Plan, int], Work]


def _search(plan: Plan, batch_size: int) -> Work:
    trials = plan.trial_search
    if trials is not None and not issubclass(trials, PreparedTrialSearch):
        task = plan.setting("cpu").task(plan.search[0].seed)
        sgd = {**plan.training(1), "batch_size": batch_size}
        return Training(task, sgd, plan.uniform(), True, split=task.search_splits()[0])
    job = plan.search_job("cpu")
    method = {**job.method, **({"warmup": 0.0} if "warmup" in job.method else {})}
    job = replace(job, search={**job.search, "batch_size": batch_size}, method=method)
    return job(None, plan.search[0].seed)  # or the shared training of such a batch size


def _member(plan: Plan, batch_size: int) -> Work:
    """A member that augments, as all soon do, and does not validate in the epochs timed."""
    job = plan.member_job("cpu")
    search = {**job.search, "batch_size": batch_size, "epochs": 4}
    job = replace(job, search=search, method={**job.method, "interval": 3})
    trial = plan.search[0]
    member, population = job(trial.seed, 0), plan.populations[trial.id]
    member.follow(population.explore(population.start(0), 0, 0))
    return member


def _with_warmup(cost: Cost, plan: Plan) -> Cost:
    """The mean over a search's epochs where the first only train the classifier."""
    share = float(plan.configuration.values["method"].get("warmup", 0.0))
    mean = share + (1 - share) * cost.equivalents
    return Cost(mean, cost.seconds * mean / cost.equivalents)


def _evaluation(plan: Plan, batch_size: int) -> Work:
    trial = plan.evaluation[-1]
    job = plan.evaluation_job("cpu", None)
    job = replace(job, evaluation={**job.evaluation, "batch_size": batch_size})
    return job(trial.policy, trial.seed)


def _timed(plan: Plan, settings: TrainingSettings, build: Build, patience: float) -> Cost | None:
    """Time some steps on some of the images; None where that does not work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = settings.batch_size
        small = min(FIRST_BATCH, whole)
        cost, took = _time(plan, small, build, whole)
        if small < whole and took * whole / small < patience:
            cost, _ = _time(plan, whole, build, whole)
    except RaysearchError:
        return None
    finally:
        torch.set_num_threads(threads)
    return cost


def _time(plan: Plan, batch_size: int, build: Build, whole: int) -> tuple[Cost, float]:
    """The cost of an epoch with batches of `whole`, and how long it took to find out."""
    start = time.perf_counter()
    dataset = _part(plan.dataset, batch_size * BATCHES, plan)
    work = build(replace(plan, dataset=dataset), batch_size)
    before = work.step()["epoch_equivalents"]
    middle = time.perf_counter()
    after = work.step()["epoch_equivalents"] if work.epochs > 1 else 2 * before
    end = time.perf_counter()
    seconds = end - middle if work.epochs > 1 else middle - start
    scale = len(plan.dataset.train) / len(dataset.train)
    # fewer images than whole batches hold are left out of an epoch, of the part more than of all
    used = _used(plan.dataset, plan, build, whole) / _used(dataset, plan, build, batch_size)
    return Cost((after - before) * used, seconds * scale * used), end - start


def _used(dataset: Dataset, plan: Plan, build: Build, batch_size: int) -> float:
    """The share of the images that an epoch's whole batches hold."""
    if build is _evaluation:
        images = len(dataset.full_train())
    else:
        fraction = plan.configuration.settings.search.val_fraction
        images = len(dataset.search_splits(0, fraction)[0])
    return min(images, max(1, images // batch_size) * batch_size) / images


def _part(dataset: Dataset, images: int, plan: Plan) -> Dataset:
    """So few images of each class that a search trains on about as many as asked."""
    if dataset.val is None:
        images = math.ceil(images / (1 - plan.configuration.settings.search.val_fraction))
    each = max(4, math.ceil(images / len(dataset.classes)))
    val = None if dataset.val is None else _first_of_each(dataset.val, each)
    return replace(dataset, train=_first_of_each(dataset.train, each), val=val)


def _first_of_each(split: Split, count: int) -> Split:
    classes = range(int(split.labels.max()) + 1)
    chosen = [(split.labels == label).nonzero()[:count, 0] for label in classes]
    return split.subset(torch.cat(chosen).sort().values)
