"""The names of Ray that it does not promise to keep, all in one place; a test asks for each."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray._private import authentication, ray_constants
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

UV_HOOK = "RAY_ENABLE_UV_RUN_RUNTIME_ENV"  # a variable, and a constant of Ray's


@contextmanager
def on_loopback() -> Iterator[None]:
    """The servers of a cluster that is started within listen on 127.0.0.1 alone.

    So they do by default on macOS and Windows. On Linux Ray wants to be joined by other machines:
    its servers listen on every interface, and `ray.init` replaces a loopback address that it is
    given by the machine's public one.
    """
    # It warns that it wants the token that it has been given.
    logging.getLogger(authentication.__name__).setLevel(logging.ERROR)
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def no_uv_hook() -> Iterator[None]:
    """Under `uv run` processes start in this environment, and nothing is packed for them.

    Ray would pack the working directory, data and all, to make the environment anew; it asks for
    the variable when it is imported. What the user has set stays.
    """
    if UV_HOOK in os.environ:
        yield
        return
    before = getattr(ray_constants, UV_HOOK)
    setattr(ray_constants, UV_HOOK, False)
    try:
        yield
    finally:
        setattr(ray_constants, UV_HOOK, before)


def controller_of(given: Any) -> TuneController:
    """The controller itself, of which schedulers are handed a wrapper."""
    controller: TuneController = getattr(given, "_tune_controller", given)
    return controller


def waiting_trials(controller: TuneController) -> list[Any]:
    """The trials that have not started, in order."""
    trials = controller.get_trials()  # type: ignore[no-untyped-call]
    return [trial for trial in trials if trial.status == Trial.PENDING]


def waits_for_a_process(controller: TuneController, trial: Any) -> bool:
    """Whether a process has been asked for, for this trial."""
    return trial in controller._trial_to_actor


class IdleProcesses:
    """How many idle processes Tune keeps for later trials, by what they hold.

    Of the processes that no pending trial is waiting for, Tune keeps one (`reuse_actors`). While a
    round's last trial runs there is no pending one, so all others would be ended and have to be
    started anew, 3 to 6 s each.
    """

    def __init__(self) -> None:
        self._kept: dict[Any, int] = {}

    def keep(self, controller: TuneController, holding: Any, count: int) -> None:
        """Let so many that hold this stay."""
        if (more := count - self._kept.get(holding, 0)) > 0:
            controller._actor_cache.increase_max(holding, by=more)
            self._kept[holding] = count

    def let_go(self, controller: TuneController, wanted: Any) -> None:
        """Let those go that hold something else than a trial needs which cannot start."""
        for holding, count in self._kept.items():
            if holding != wanted and count:
                controller._actor_cache.decrease_max(holding, by=count)
                self._kept[holding] = 0
