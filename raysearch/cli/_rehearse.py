"""One search and one training are built before anything starts, to find what cannot be."""

from __future__ import annotations

import io
from collections.abc import Mapping

import torch

from raysearch.cli._plan import Place, Plan
from raysearch.methods import PreparedTrialSearch, TrialSearch
from raysearch.tune import Work


def rehearse(plan: Plan, places: Mapping[str, Place] | None) -> int:
    """Build one search and one training on the driver's CPU, and drop them again.

    What they do not take (a method's setting, images too small for a network, too few images of
    a class) is found here rather than in a trial.

    Args:
        plan: the run's.
        places: what its trials hold; None when a running cluster decides.

    Returns:
        Bytes that the run needs on disk, roughly.

    Raises:
        RaysearchError: one of them cannot be built.
    """
    sizes, trials = [0], plan.trial_search
    prepared = trials is not None and issubclass(trials, PreparedTrialSearch)
    if plan.search and (trials is None or prepared):
        sizes = [_state_bytes(plan.search_job("cpu")(None, plan.search[0].seed))]
    if plan.evaluation:
        job = plan.evaluation_job("cpu", None)
        sizes.append(_state_bytes(job("predefined", plan.evaluation[0].seed)))
    at_once = max(p.at_once for p in places.values()) if places else 1
    files = 0
    if plan.search and trials is not None:
        size, files = _rehearse_trials(plan, trials, at_once)
        sizes.append(size)
    most = max(len(plan.search), len(plan.evaluation))
    finished = len(plan.search) + len(plan.evaluation)
    finished_bytes = 2 * files * max(sizes)  # weights and momentum
    if prepared:  # of each checkpoint, in its trial and in the run's folder
        finished_bytes += 4 * sizes[0] * len(plan.search)
    # populations run one after the other, in which a member may keep three checkpoints, then one
    members = max((population.size for population in plan.populations.values()), default=0)
    finished_bytes += (4 + 2 * len(plan.populations)) * members * sizes[0]
    return finished_bytes + 8 * 2**20 + 3 * max(sizes) * min(at_once, most) + finished * 2**18


def _rehearse_trials(plan: Plan, trials: type[TrialSearch], at_once: int) -> tuple[int, int]:
    """Build a search of many trials and its worker.

    Returns:
        Bytes of its state, and how many files the trials of all searches keep at a time.
    """
    method, seed = plan.configuration.values["method"], plan.search[0].seed
    training = plan.training(plan.parallel(at_once))
    plan.worker_job("cpu", training, plan.given)(seed)
    search = trials(seed, method, training)
    return _state_bytes(search), search.files * len(plan.search)


def _state_bytes(work: Work | TrialSearch) -> int:
    buffer = io.BytesIO()
    torch.save(work.state_dict(), buffer)
    return buffer.getbuffer().nbytes
