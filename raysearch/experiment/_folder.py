"""An experiment's folder: its settings, how far it is, its log and what it has found."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raysearch import __version__
from raysearch.errors import RaysearchError, near
from raysearch.experiment._compose import to_yaml
from raysearch.experiment._experiment import Experiment, read_experiment
from raysearch.files import lock, remove_unfinished, write_whole
from raysearch.settings import leaves

if TYPE_CHECKING:
    from raysearch.data import Dataset

CONFIG, STATE, LOCK, LOG, TRIALS = "config.yaml", "run.json", ".lock", "raysearch.log", "trials"
MEAN_TOLERANCE = 1e-4  # of colours on the scale of 0 to 1, that other machines may compute
BY_NAME = ("seconds", "searching", "methods", "mlflow")  # groups of the state
BY_METHOD = ("networks", "policies", "shared")  # folders with one for each method
KEEP_SECONDS = 1.0  # between two times that the seconds so far are written


class Folder:
    """`runs/<name>/`, held by one process at a time.

    Attributes:
        path: the folder.
        experiment: its settings.
        state: what a later process needs besides the settings: `status` (running, interrupted,
            failed or complete), `methods` (each one's status), `mlflow` (runs, by method),
            `seconds` per stage, `searching` (seconds, by method), `device`, `directory` (where it
            began, from which relative paths go on), and `data`, by which images are known again.
        anew: methods of which `configure` forgets what has been computed.

    Args:
        held: what `_lock` returned for the path; `release` gives it up.
    """

    def __init__(
        self, path: Path, experiment: Experiment, state: dict[str, Any], held: int
    ) -> None:
        self.path, self.experiment = path, experiment
        self.anew: Collection[str] = ()
        self.state = {key: dict[str, Any]() for key in BY_NAME} | {"version": __version__} | state
        self._made: list[Path] = []
        self._written = 0.0  # when seconds were last written, on the monotonic clock
        self._lock: int | None = held

    @property
    def begun(self) -> bool:
        """Whether anything has been computed, and be it that nobody has been told yet."""
        from raysearch.engine import has_work  # which imports PyTorch

        return bool(self.state["seconds"]) or has_work(self.trials)

    @property
    def complete(self) -> list[str]:
        """The methods that have been carried out."""
        return [name for name, status in self.state["methods"].items() if status == "complete"]

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        return set(self.experiment.methods) <= set(self.complete)

    @property
    def failed(self) -> list[str]:
        """The methods that could not go on."""
        return [name for name, status in self.state["methods"].items() if status == "failed"]

    @property
    def trials(self) -> Path:
        """Where the engine keeps what it needs to go on, until all is done."""
        return self.path / TRIALS

    def go_where_it_began(self) -> None:
        """Take the process to the directory from which relative paths go, if it is there."""
        began = self.state.get("directory")
        if isinstance(began, str) and Path(began).is_dir() and not Path.cwd().samefile(began):
            self.path = self.path.absolute()
            os.chdir(began)

    def configure(self, experiment: Experiment) -> None:
        """Go on with other settings: a method more or less, or other resources."""
        for method in self.anew:  # first: what is there must never count as the new settings'
            self._forget_method(method)
        self.experiment = experiment
        write_whole(self.path / CONFIG, to_yaml(experiment.document()).encode())

    def keep_data(self, data: Dataset) -> None:
        """Note the images with which the experiment begins, or see that it goes on with them.

        Raises:
            RaysearchError: there are others now.
        """
        now = {"images": data.counts, "classes": list(data.classes), "mean": list(data.mean)}
        before = self.state.get("data")
        change = None if before is None else _change(before, now)
        if change is not None:
            raise RaysearchError(
                f"the images are others than when {self.path} began ({change}): put them back, or "
                "begin with another name="
            )
        self.state["data"] = now

    def save(self, **changes: Any) -> None:
        """Change and write the state."""
        self.state |= changes
        write_whole(self.path / STATE, (json.dumps(self.state, indent=1) + "\n").encode())

    def mark(self, methods: Iterable[str], status: str) -> None:
        """Note how methods have ended."""
        self.state["methods"].update(dict.fromkeys(methods, status))
        self.save()

    def count(self, seconds: float, stages: Iterable[str], methods: Iterable[str]) -> None:
        """Add to the time of stages, and of methods' searches.

        It is kept now and then: the process may be killed.
        """
        spent, searching = self.state["seconds"], self.state["searching"]
        for stage in (*stages, "total"):
            spent[stage] = spent.get(stage, 0.0) + seconds
        for method in methods:
            searching[method] = searching.get(method, 0.0) + seconds
        now = time.monotonic()
        if now - self._written >= KEEP_SECONDS:
            self._written = now
            with contextlib.suppress(OSError):  # not worth a trial
                self.save()

    def _forget_method(self, method: str) -> None:
        """Remove what there is of a method, so that it begins anew."""
        found = [self.path / kind / method for kind in BY_METHOD]
        for kind in ("search", "evaluation"):
            for name in (f"{method}", f"{method}-method"):  # see `TrialInfo.id`
                found += self.trials.glob(f"{kind}-{name}-seed-*")
        for path in found:
            shutil.rmtree(path, ignore_errors=True)
        for group in BY_NAME:
            self.state[group].pop(method, None)
        self.save()

    def forget_trials(self, entries: Iterable[str]) -> None:
        """Remove what the engine needed to go on; all of it, unless a method has failed.

        Args:
            entries: the ids of those that have ended.
        """
        if not self.failed:
            shutil.rmtree(self.trials, ignore_errors=True)
        for entry in entries:
            shutil.rmtree(self.trials / entry, ignore_errors=True)

    def discard(self) -> None:
        """Remove the folder of what could not begin, and the folders made for it."""
        self.release()  # NFS and Windows do not let go of an open file
        shutil.rmtree(self.path, ignore_errors=True)
        _remove_empty(self._made)

    def release(self) -> None:
        """Let another process have the folder; again, it does nothing."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def create(experiment: Experiment) -> Folder:
    """The folder of a new experiment, with its settings in it.

    Raises:
        RaysearchError: the name is taken, or the folder cannot be written.
    """
    settings = experiment.settings
    runs = Path(settings.runs_dir)
    made = [p for p in (runs, *runs.parents) if not p.exists()]
    path = None
    try:
        runs.mkdir(parents=True, exist_ok=True)
        path = _new_folder(runs, experiment)
        folder = Folder(path, experiment.changed(name=path.name), {}, _lock(path))
        folder._made = made
        folder.configure(folder.experiment)
        created = datetime.now().astimezone().isoformat()
        folder.save(status="running", created=created, directory=str(Path.cwd()))
    except FileExistsError as error:
        raise RaysearchError(f"runs_dir={runs} is not a folder") from error
    except OSError as error:
        if path is not None:
            shutil.rmtree(path, ignore_errors=True)
        _remove_empty(made)
        raise RaysearchError(f"runs_dir={runs} cannot be written: {error.strerror}") from error
    return folder


def _new_folder(runs: Path, experiment: Experiment) -> Path:
    """A folder of the experiment's name, or of one that nobody has taken; raises RaysearchError."""
    settings = experiment.settings
    if settings.name is not None:
        path = runs / settings.name
        if not is_only_locked(path):
            check_free(experiment)
            path.mkdir(parents=True)  # another start that failed may just have removed `runs`
        return path
    stem = f"{settings.method.name}-{settings.data.name}-{datetime.now():%Y%m%d-%H%M%S}"
    if settings.storage is not None:  # where runs begun elsewhere in the same second are to come
        stem = f"{stem}-{secrets.token_hex(2)}"
    for number in itertools.count(1):
        path = runs / (stem if number == 1 else f"{stem}-{number}")
        with contextlib.suppress(FileExistsError):
            path.mkdir(parents=True)
            break
    return path


def resume(run: str, runs_dir: str) -> Folder:
    """The folder of an earlier experiment, by its path or by its name.

    Raises:
        RaysearchError: there is none, it is still going on, or it is of an earlier version.
    """
    for path in (Path(run).expanduser(), Path(runs_dir) / run):
        if (path / CONFIG).is_file():
            break
    else:
        present = sorted(p.parent.name for p in Path(runs_dir).glob(f"*/{CONFIG}"))
        hint = near(run, present) or f" (looked in {runs_dir}/ too)"
        raise RaysearchError(f"there is no run {run}{hint}")
    path = path.resolve() if path.is_absolute() else path
    held = _lock(path)  # first: another process that ends now changes what is read
    try:
        folder = Folder(path, read_experiment(path / CONFIG), _read_state(path), held)
        remove_unfinished(path)
        return folder
    except BaseException:
        os.close(held)
        raise


def _read_state(path: Path) -> dict[str, Any]:
    """The state that `Folder.save` wrote; raises RaysearchError where it is damaged."""
    try:
        state = json.loads((path / STATE).read_text())
    except FileNotFoundError:  # killed between the two files: nothing has been computed
        state = {"seconds": {}}
    except (OSError, ValueError, RecursionError) as error:
        raise RaysearchError(f"{path / STATE} cannot be read: {error}") from error
    if not isinstance(state, dict) or not isinstance(state.get("seconds"), dict):
        raise RaysearchError(f"{path / STATE} is not the state of a run")
    return state


def check_free(experiment: Experiment) -> None:
    """The experiment's name is not taken.

    Raises:
        RaysearchError: it is.
    """
    path = experiment.path
    if path is not None and path.exists() and not is_only_locked(path):
        raise RaysearchError(
            f"{path} exists already: choose another name, or continue that run with --resume {path}"
        )


def check_space(folder: Path, needed: int) -> None:
    """There is room for an experiment.

    Raises:
        RaysearchError: less than `needed` bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RaysearchError(
            f"no space left in {folder}: the run needs about {needed / 2**20:.0f} MiB, "
            f"{free / 2**20:.0f} MiB are free"
        )


def _change(before: Any, now: Mapping[str, Any]) -> str | None:
    """How the images differ from those before, as far as numbers and colours tell."""
    first, second = dict(leaves(before)), dict(leaves(now))
    if first.keys() != second.keys():
        return None
    for key, value in second.items():
        same = first[key] == value
        if key == "mean" and len(first[key]) == len(value):
            same = bool(np.allclose(first[key], value, rtol=0, atol=MEAN_TOLERANCE))
        if not same:
            return f"{key.removeprefix('images.')}: {first[key]!s:.200}, now {value!s:.200}"
    return None


def _lock(folder: Path) -> int:
    """Have a folder alone; closing the descriptor, or the process's end, lets others have it.

    Raises:
        RaysearchError: another process has it.
    """
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    if not lock(descriptor):
        os.close(descriptor)
        raise RaysearchError(f"{folder.name} is still going on in another process")
    return descriptor


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders that were made for another, as far as they are empty."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def is_only_locked(path: Path) -> bool:
    """Whether the folder is that of a process which was killed before it wrote anything else."""
    return path.is_dir() and [file.name for file in path.iterdir()] == [LOCK]
