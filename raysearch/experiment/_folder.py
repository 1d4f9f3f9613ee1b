"""An experiment's folder: its settings, how far it is, its log and what it has found."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysearch import __version__
from raysearch.errors import RaysearchError
from raysearch.experiment._compose import to_yaml
from raysearch.experiment._experiment import Experiment, read_experiment
from raysearch.files import lock, remove_unfinished, write_whole

if TYPE_CHECKING:
    from raysearch.data import Dataset
    from raysearch.policy import Policy

CONFIG, STATE, LOCK, LOG, TRIALS = "config.yaml", "run.json", ".lock", "raysearch.log", "trials"
MEAN_TOLERANCE = 1e-4  # of colours on the scale of 0 to 1, that other machines may compute
KEEP_SECONDS = 1.0  # between two times that the seconds so far are written


class Folder:
    """`runs/<name>/`, held by one process at a time.

    Attributes:
        path: the folder.
        experiment: its settings.
        state: what a later process needs besides the settings: `status` (running, interrupted,
            failed or complete), `methods` (each one's status), `parallel` (proposals in a round,
            by method), `mlflow`, `seconds` per stage, `device`, and `data`, by which images are
            known again.
    """

    def __init__(self, path: Path, experiment: Experiment, state: dict[str, Any]) -> None:
        self.path, self.experiment, self.state = path, experiment, state
        self._made: list[Path] = []
        self._written = 0.0  # when seconds were last written, on the monotonic clock
        self._lock: int | None = _lock(path)

    @property
    def begun(self) -> bool:
        """Whether anything has been computed."""
        return bool(self.state["seconds"])

    @property
    def complete(self) -> list[str]:
        """The methods that have been carried out."""
        return [name for name, status in self._methods.items() if status == "complete"]

    @property
    def failed(self) -> list[str]:
        """The methods that could not go on."""
        return [name for name, status in self._methods.items() if status == "failed"]

    @property
    def log(self) -> Path:
        """The log file."""
        return self.path / LOG

    @property
    def trials(self) -> Path:
        """Where the engine keeps what it needs to go on, until all is done."""
        return self.path / TRIALS

    @property
    def _methods(self) -> dict[str, str]:
        found: dict[str, str] = self.state.setdefault("methods", {})
        return found

    def configure(self, experiment: Experiment) -> None:
        """Go on with other settings: a method more, or other resources."""
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

    def parallel(self, method: str, wanted: int) -> int:
        """A method's proposals in a round: as they are wanted now, or as they were at the start."""
        kept = self.state.setdefault("parallel", {})
        if method not in kept:
            kept[method] = wanted
            self.save()
        return int(kept[method])

    def keep_policies(self, method: str, policy: Policy, found: Mapping[int, Policy]) -> None:
        """Write what a method hands over, and what each search seed found, as soon as they are."""
        from raysearch.results import write_policies

        write_policies(self.path, method, policy, found, len(self.experiment.methods))

    def save(self, **changes: Any) -> None:
        """Change and write the state."""
        self.state |= changes
        write_whole(self.path / STATE, (json.dumps(self.state, indent=1) + "\n").encode())

    def mark(self, methods: Iterable[str], status: str) -> None:
        """Note how methods have ended."""
        self._methods.update(dict.fromkeys(methods, status))
        self.save()

    def count(self, seconds: float, stages: Iterable[str], methods: Iterable[str]) -> None:
        """Add to the time of stages, and of methods' searches.

        It is kept now and then: the process may be killed.
        """
        spent, searching = self.state["seconds"], self.state.setdefault("searching", {})
        for stage in (*stages, "total"):
            spent[stage] = spent.get(stage, 0.0) + seconds
        for method in methods:
            searching[method] = searching.get(method, 0.0) + seconds
        now = time.monotonic()
        if now - self._written >= KEEP_SECONDS:
            self._written = now
            with contextlib.suppress(OSError):  # not worth a trial
                self.save()

    def forget_method(self, method: str) -> None:
        """Let a method begin anew."""
        kept = self.state.setdefault("parallel", {})
        kept.pop(method, None)
        for kind in ("search", "evaluation"):
            for name in (f"{method}", f"{method}-method"):  # see `TrialInfo.id`
                for path in self.trials.glob(f"{kind}-{name}-seed-*"):
                    shutil.rmtree(path, ignore_errors=True)

    def forget_trials(self, entries: Iterable[str] | None = None) -> None:
        """Remove what the engine needed to go on.

        Args:
            entries: the ids of those that have ended; None is all of it.
        """
        if entries is None:
            shutil.rmtree(self.trials, ignore_errors=True)
            return
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
    stem = f"{settings.method.name}-{settings.data.name}"
    name = settings.name or _free_name(runs, stem, shared=settings.storage is not None)
    path, named = runs / name, experiment.changed(name=name)
    begun = False
    try:
        runs.mkdir(parents=True, exist_ok=True)
        if not _only_locked(path):
            path.mkdir()
        begun = True
        folder = Folder(path, named, {"version": __version__, "seconds": {}})
        folder._made = made
        folder.configure(named)
        folder.save(status="running", created=datetime.now().astimezone().isoformat())
    except FileExistsError as error:
        if settings.name is None and runs.is_dir():  # another run took the name just now
            return create(experiment)
        check_free(named)
        raise RaysearchError(f"runs_dir={runs} is not a folder") from error
    except OSError as error:
        if begun:
            shutil.rmtree(path, ignore_errors=True)
        _remove_empty(made)
        raise RaysearchError(f"runs_dir={runs} cannot be written: {error.strerror}") from error
    return folder


def resume(run: str, runs_dir: str) -> Folder:
    """The folder of an earlier experiment, by its path or by its name.

    Raises:
        RaysearchError: there is none, it is still going on, or it is of an earlier version.
    """
    for path in (Path(run), Path(runs_dir) / run):
        if (path / CONFIG).is_file():
            break
    else:
        present = sorted(p.parent.name for p in Path(runs_dir).glob(f"*/{CONFIG}"))
        near = difflib.get_close_matches(run, present, n=3, cutoff=0.5)
        hint = f": did you mean {' or '.join(near)}?" if near else f" (looked in {runs_dir}/ too)"
        raise RaysearchError(f"there is no run {run}{hint}")
    path = path.resolve() if Path(run).is_absolute() else path
    experiment = read_experiment(path / CONFIG)
    try:
        state = json.loads((path / STATE).read_text())
    except FileNotFoundError:  # killed between the two files: nothing has been computed
        state = {"version": __version__, "seconds": {}}
    except (OSError, ValueError, RecursionError) as error:
        raise RaysearchError(f"{path / STATE} cannot be read: {error}") from error
    if not isinstance(state, dict) or not isinstance(state.get("seconds"), dict):
        raise RaysearchError(f"{path / STATE} is not the state of a run")
    folder = Folder(path, experiment, state)
    remove_unfinished(path)
    return folder


def has_experiment(folder: Path) -> bool:
    """Whether a folder is an experiment's; of what earlier versions made, too."""
    return (folder / CONFIG).is_file() or any(folder.glob(f"*/{CONFIG}"))


def check_free(experiment: Experiment) -> None:
    """The experiment's name is not taken.

    Raises:
        RaysearchError: it is.
    """
    path = experiment.path
    if path is not None and path.exists() and not _only_locked(path):
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
    if not isinstance(before, dict) or before.keys() != now.keys():
        return None
    if before["images"] != now["images"]:
        return "; ".join(
            f"{split}: {before['images'].get(split)}, now {count}"
            for split, count in now["images"].items()
            if before["images"].get(split) != count
        )
    if before["classes"] != now["classes"]:
        return "the classes have other names"
    if len(before["mean"]) != len(now["mean"]):
        return "as many, with other colour channels"
    if any(abs(a - b) > MEAN_TOLERANCE for a, b in zip(before["mean"], now["mean"], strict=True)):
        return f"as many, their mean colour was {before['mean']}, now {now['mean']}"
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
    """Remove folders that were made for another, the innermost first."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            break


def _only_locked(path: Path) -> bool:
    """Whether the folder is that of a process which was killed before it wrote anything else."""
    return path.is_dir() and [file.name for file in path.iterdir()] == [LOCK]


def _free_name(runs: Path, stem: str, shared: bool) -> str:
    """A name of its own; also where runs begun elsewhere in the same second are to come."""
    base = name = f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"
    base = name = f"{base}-{secrets.token_hex(2)}" if shared else base
    count = 2
    while (runs / name).exists():
        name, count = f"{base}-{count}", count + 1
    return name
