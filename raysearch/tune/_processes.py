"""Worker processes that all start before the first trial, and go from one trial to the next."""

from __future__ import annotations

import time
from abc import abstractmethod
from typing import Any, ClassVar

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

from raysearch.tune._trainable import SharesJob, ready_worker

PATIENCE = 60.0  # seconds that started processes wait for others
READY_SECONDS = 0.1  # between signs of a process that waits for the others


def process_trial(index: int) -> dict[str, Any]:
    """The configuration of a trial that only starts a process."""
    return {"id": f"process-{index + 1}", "name": f"process {index + 1}", "process": True}


class KeptTrainable(tune.Trainable):
    """A trial of one step or few, in a process that the next one takes over.

    Its configuration is `{"trial": ...}`: what the trial is, or a `process_trial`.

    Attributes:
        metric: a key that every result has to have.
    """

    metric: ClassVar[str]

    def setup(self, config: dict[str, Any], job: SharesJob) -> None:  # type: ignore[override]
        ready_worker(job.share)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Let the next trial use this process."""
        self.trial: dict[str, Any] = new_config["trial"]
        return True

    def step(self) -> dict[str, Any]:
        """The trial's work; or, before the first, a sign that the process is there."""
        if self.trial.get("process"):
            time.sleep(READY_SECONDS)
            return {"ready": True, self.metric: 0.0, "done": False}
        return self.work()

    @abstractmethod
    def work(self) -> dict[str, Any]:
        """A step of the trial, and its result."""

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing that Tune has to know."""

    def load_checkpoint(self, checkpoint: str) -> None:  # type: ignore[override]
        """See `save_checkpoint`."""


class StartAll(FIFOScheduler):
    """First in, first out; a process that is free takes a trial for which none is starting.

    Tune would hand it the first trial that waits for its process to start, end that process, and
    start another for the next trial: with trials shorter than a process takes to start, one process
    does all the work beside a row of others that are ended before they have begun.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The first waiting trial for which no process has been asked; None if all have one."""
        controller = getattr(tune_controller, "_tune_controller", tune_controller)
        asked = getattr(controller, "_trial_to_actor", {})
        waiting = (trial for trial in controller.get_trials() if trial.status == Trial.PENDING)
        return next((trial for trial in waiting if trial not in asked), None)


class KeepWorkers(FIFOScheduler):
    """First in, first out, with idle processes kept between rounds.

    Of the processes that no pending trial is waiting for, Tune keeps one (`reuse_actors`). While
    a round's last trial runs there is no pending one, so all others would be ended and have to be
    started anew, 3 to 6 s each.

    Args:
        count: processes to keep.
        more: for the scheduler that it stands before in a class that inherits from both.
    """

    def __init__(self, count: int, **more: Any) -> None:
        super().__init__(**more)  # type: ignore[no-untyped-call]
        self._count, self._told = count, False
        self._ready: set[str] = set()  # trials that have started their process
        self._since = 0.0  # the first of them, on the monotonic clock

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Before the first trial, allow that many in Tune's cache of idle actors."""
        super().on_trial_add(tune_controller, trial)
        controller = getattr(tune_controller, "_tune_controller", tune_controller)
        cache = getattr(controller, "_actor_cache", None)
        if cache is not None and not self._told:
            cache.increase_max(trial.placement_group_factory, by=self._count)
        self._told = True

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Let no process go before all have started.

        Otherwise Tune hands the trial for which it starts a process to one that is free before
        the other has started, and ends that: with trials of a second there would only be one.
        """
        if not result.get("ready"):
            return str(super().on_trial_result(tune_controller, trial, result))
        self._since = self._since or time.monotonic()
        self._ready.add(trial.trial_id)
        late = time.monotonic() - self._since > PATIENCE
        return self.STOP if late or len(self._ready) >= self._count else self.CONTINUE
