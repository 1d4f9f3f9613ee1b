"""Ray Tune's events, told to those who watch the run; and the end of a run that cannot go on."""

from __future__ import annotations

import errno
import logging
import pickle
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ray import tune
from ray.exceptions import ActorDiedError

from raysearch.errors import RaysearchError

_log = logging.getLogger(__name__)


class TrialLike(Protocol):
    """What a stage needs to know about a trial before it runs."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def policy(self) -> str | None: ...
    @property
    def seed(self) -> int: ...


T = TypeVar("T", bound=TrialLike)
T_contra = TypeVar("T_contra", bound=TrialLike, contravariant=True)


class Watcher(Protocol[T_contra]):
    """Called on the driver, in the order in which things happen."""

    def stage_started(self, stage: str, trials: int, epochs: int, resumed: int = 0) -> None: ...
    def trial_started(self, trial: T_contra) -> None: ...
    def trial_progress(self, trial: T_contra, epoch: int, metrics: Mapping[str, float]) -> None: ...
    def trial_finished(
        self, trial: T_contra, error: str | None, metrics: Mapping[str, float]
    ) -> None: ...
    def message(self, text: str) -> None: ...
    def stage_finished(self, stage: str) -> None: ...


class TrialError(RaysearchError):
    """A trial cannot go on, and the run with it.

    Attributes:
        reason: which, and why.
        last: where its last good checkpoint is; in the message, beside the reason.
        expected: whether a `RaysearchError` was the cause, i.e. something the user can mend.
        trial: its id; None where a search proposed it.
        disk_full: whether that was the cause, so that no other can go on either.
    """

    def __init__(
        self, reason: str, last: str, expected: bool, trial: str | None, disk_full: bool
    ) -> None:
        super().__init__(f"{reason} (last good checkpoint: {last})")
        self.reason, self.last, self.expected = reason, last, expected
        self.trial, self.disk_full = trial, disk_full


class Failures(tune.Callback):
    """How a stage ends when a trial cannot go on.

    A trial that ends in a `RaysearchError` (a loss that is not finite, say) is not retried: the
    same would happen again. It ends the stage, as does a trial that has died too often.

    Attributes:
        error: why the stage has to end, or None.
    """

    def __init__(self, watchers: Sequence[Watcher[T]], retries: int) -> None:
        self._watchers = list(watchers)
        self._retries = retries
        self._died: dict[str, int] = {}
        self.error: Exception | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles callbacks for a restore of its own, which is not used."""
        return {}

    def name(self, trial: Any) -> str:
        """What people call the trial."""
        return str(trial.config["trial"]["name"])

    def deaths(self, trial: Any) -> int:
        """How often it has died and was retried."""
        return self._died.get(self.name(trial), 0)

    def ended(self, trial: Any, reason: str) -> None:
        """Tell the watchers that a trial has failed for good."""
        return

    def retried(self, trial: Any, cause: BaseException, how: str) -> None:
        """Tell the watchers that a trial has died and what becomes of it.

        Args:
            trial: Tune's.
            cause: what it died of.
            how: what happens now, e.g. "it is repeated".
        """
        name = self.name(trial)
        count = self._died[name] = self._died.get(name, 0) + 1
        _log.warning("%s failed: %s", name, cause)
        for watcher in self._watchers:
            watcher.message(
                f"{name} died ({_first_line(cause)}); {how} (retry {count} of {self._retries})"
            )

    def end(self, trial: Any, cause: BaseException) -> None:
        """End the stage, because a trial cannot go on."""
        name = self.name(trial)
        _log.error("%s failed: %s", name, cause)
        expected = for_the_user(cause)
        again = "" if expected else f" after {self.deaths(trial)} retries"
        reason, last = _first_line(cause), _last_checkpoint(trial)
        self.error = TrialError(
            f"{name} failed{again}: {reason}",
            last,
            expected,
            trial.config["trial"].get("id"),
            _disk_full(cause),
        )
        self.ended(trial, f"{reason}{again}")
        raise self.error


class Events(Failures):
    """Translates Tune's callbacks about trials of many epochs, each known beforehand."""

    def __init__(self, trials: Sequence[T], watchers: Sequence[Watcher[T]], retries: int) -> None:
        super().__init__(watchers, retries)
        self._trials = {trial.id: trial for trial in trials}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        for watcher in self._watchers:
            watcher.trial_started(self._known(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        for watcher in self._watchers:
            watcher.trial_progress(self._known(trial), result["epoch"], result["metrics"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        _keep_only(Path(trial.checkpoint.path))
        result = trial.last_result
        metrics = {
            **result["metrics"],
            "wall_seconds": result["wall_seconds"],
            "device_seconds": result["device_seconds"],
        }
        for watcher in self._watchers:
            watcher.trial_finished(self._known(trial), None, metrics)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        cause = cause_of(trial)
        if for_the_user(cause):
            self.end(trial, cause)
        self.retried(trial, cause, f"it goes on from {_last_checkpoint(trial)}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.end(trial, cause_of(trial))

    def ended(self, trial: Any, reason: str) -> None:
        """See `Failures.ended`."""
        for watcher in self._watchers:
            watcher.trial_finished(self._known(trial), reason, {})

    def _known(self, trial: Any) -> Any:
        return self._trials[trial.config["trial"]["id"]]


def say_damaged(name: str, path: Path, instead: str, watchers: Sequence[Watcher[T]]) -> None:
    """Tell the watchers that a trial cannot go on from what is on disk.

    Args:
        name: the trial's, for people.
        path: what is damaged.
        instead: from where it goes on.
        watchers: told.
    """
    _log.warning("%s is not whole: %s goes on from %s", path, name, instead)
    for watcher in watchers:
        watcher.message(f"{name}: {path} is damaged; it goes on from {instead}")


def cause_of(trial: Any) -> BaseException:
    """The exception that a trial died of, without Ray's wrapping."""
    if trial.pickled_error_file is None:
        return RuntimeError(f"see {trial.error_file}")
    error = pickle.loads(Path(trial.pickled_error_file).read_bytes())
    while isinstance(inner := getattr(error, "cause", None), BaseException):
        error = inner
    assert isinstance(error, BaseException)
    return error


def for_the_user(cause: BaseException) -> bool:
    """Whether a person has to mend something before it makes sense to go on."""
    return isinstance(cause, RaysearchError) or _disk_full(cause)


def _disk_full(cause: BaseException) -> bool:
    full = (errno.ENOSPC, errno.EDQUOT)
    return isinstance(cause, OSError) and (cause.errno in full or "No space left" in str(cause))


def _keep_only(checkpoint: Path) -> None:
    """Remove a finished trial's earlier checkpoints, which hold all that is large."""
    for folder in checkpoint.parent.glob("checkpoint_*"):
        if folder.name != checkpoint.name:
            shutil.rmtree(folder, ignore_errors=True)


def _first_line(error: BaseException) -> str:
    """An exception in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, RaysearchError):
        return lines[0]
    if _disk_full(error):
        return "no space left for its checkpoint"
    if isinstance(error, ActorDiedError):
        started = "creation task" not in lines[0]
        return "its worker process ended unexpectedly" if started else lines[-1]
    return ": ".join([type(error).__name__, *lines[:1]])


def _last_checkpoint(trial: Any) -> str:
    """Where the last good checkpoint of a trial lies, or where it started from."""
    path = trial.checkpoint.path if trial.checkpoint else trial.config["trial"].get("checkpoint")
    return str(path) if path else "its start"
