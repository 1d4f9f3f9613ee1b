"""What an epoch of a trial costs, from a few steps on the driver's CPU."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from raysearch.cli._plan import Plan
from raysearch.cli._schema import TrainingSettings
from raysearch.data import Dataset, Split, rank_in_class
from raysearch.errors import RaysearchError
from raysearch.methods import PreparedTrialSearch
from raysearch.training import Training
from raysearch.tune import Work

BATCHES = 4  # that are timed, after as many to warm up
FIRST_BATCH = 16  # images; tells whether whole batches can be timed at all


@dataclass(frozen=True)
class Cost:
    """What an epoch of a trial costs.

    Attributes:
        equivalents: plain training epochs on the search's train split.
        seconds: on one thread of this machine's CPU.
    """

    equivalents: float
    seconds: float


Build = Callable[[Plan, int], Work]


def search(plan: Plan, batch_size: int) -> Work:
    """What a search trains: itself, what it begins with, or one of its many trials."""
    trials = plan.trial_search
    if trials is not None and not issubclass(trials, PreparedTrialSearch):
        setup = plan.setting("cpu").setup(plan.search[0].seed)
        sgd = {**plan.training(1), "batch_size": batch_size}
        return Training(setup, sgd, plan.uniform(), True, split=setup.search_splits()[0])
    job = plan.search_job("cpu")
    method = {**job.method, **({"warmup": 0.0} if "warmup" in job.method else {})}
    job = replace(job, search={**job.search, "batch_size": batch_size}, method=method)
    return job(None, plan.search[0].seed)  # or the shared training of such a batch size


def member(plan: Plan, batch_size: int) -> Work:
    """A member that augments, as all soon do, and does not validate in the epochs timed."""
    job = plan.member_job("cpu")
    search = {**job.search, "batch_size": batch_size, "epochs": 4}
    job = replace(job, search=search, method={**job.method, "interval": 3})
    trial = plan.search[0]
    first, population = job(trial.seed, 0), plan.populations[trial.id]
    first.follow(population.explore(population.start(0), 0, 0))
    return first


def evaluation(plan: Plan, batch_size: int) -> Work:
    """A training of the evaluation, with the last policy."""
    trial = plan.evaluation[-1]
    job = plan.evaluation_job("cpu", None)
    job = replace(job, evaluation={**job.evaluation, "batch_size": batch_size})
    return job(trial.policy, trial.seed)


def timed(plan: Plan, settings: TrainingSettings, build: Build, patience: float) -> Cost | None:
    """Time some steps of a trial on some of the images; None where that does not work.

    Args:
        plan: whose trial it is.
        settings: of its stage.
        build: builds it.
        patience: seconds that timing whole batches may take.
    """
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
    if build is evaluation:
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
    return split.subset((rank_in_class(split.targets) < count).nonzero()[:, 0])
