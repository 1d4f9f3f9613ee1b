"""A run's folder: its configuration, how far it is, its log and its checkpoints."""

from __future__ import annotations

import contextlib
import difflib
import errno
import fcntl
import json
import os
import secrets
import shutil
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysearch import __version__
from raysearch.cli._compose import Configuration, load, to_yaml
from raysearch.errors import RaysearchError
from raysearch.files import remove_unfinished, write_whole

if TYPE_CHECKING:
    from raysearch.data import Dataset

CONFIG, STATE, LOCK, LOG, TRIALS = "config.yaml", "run.json", ".lock", "raysearch.log", "trials"
MEAN_TOLERANCE = 1e-4  # of colours on the scale of 0 to 1, that other machines may compute
KEEP_SECONDS = 1.0  # between two times that a running stage's seconds are written


class RunFolder:
    """`runs/<name>/`, held by one process at a time.

    Attributes:
        path: the folder.
        configuration: the run's.
        state: what `--resume` needs besides the configuration: `status` (running, interrupted,
            failed or complete), `mlflow_run_id`, `seconds` per stage, and `data`, by which
            images are known again.
    """

    def __init__(self, path: Path, configuration: Configuration, state: dict[str, Any]) -> None:
        self.path, self.configuration, self.state = path, configuration, state
        self._made: list[Path] = []
        self._stage = ""  # whose clock runs
        self._counted = 0.0  # until when its time is in the state, on the monotonic clock
        self._written = 0.0  # when that was last written
        self._lock = lock(path)

    @property
    def begun(self) -> bool:
        """Whether anything has been computed."""
        return bool(self.state["seconds"])

    @property
    def log(self) -> Path:
        """The log file."""
        return self.path / LOG

    @property
    def trials(self) -> Path:
        """Checkpoints of trials, until the run is complete."""
        return self.path / TRIALS

    def configure(self, configuration: Configuration) -> None:
        """Go on with other settings than the run was begun with."""
        self.configuration = configuration
        write_whole(self.path / CONFIG, to_yaml(configuration).encode())

    def keep_data(self, data: Dataset) -> None:
        """Note the images with which the run begins, or see that it goes on with them.

        Raises:
            RaysearchError: there are others now.
        """
        check_unchanged(self.path, data)
        self.state["data"] = _described(data)

    def save_state(self, **changes: Any) -> None:
        """Change and write the state."""
        self.state |= changes
        write_whole(self.path / STATE, (json.dumps(self.state, indent=1) + "\n").encode())

    def begin_stage(self, stage: str) -> None:
        """Start a stage's clock, which goes on from the seconds of earlier attempts."""
        self._stage, self._counted = stage, time.monotonic()
        self.state["seconds"].setdefault(stage, 0.0)
        self._write_seconds()

    def tick(self) -> None:
        """Count the stage's time so far, and keep that now and then: a driver may be killed."""
        if not self._stage:
            return
        now = time.monotonic()
        self.state["seconds"][self._stage] += now - self._counted
        self._counted = now
        if now - self._written >= KEEP_SECONDS:
            with contextlib.suppress(OSError):  # not worth a trial
                self._write_seconds()

    def end_stage(self) -> None:
        """Stop the stage's clock."""
        self.tick()
        self._stage = ""
        self._write_seconds()

    def _write_seconds(self) -> None:
        self._written = time.monotonic()
        self.save_state()

    def discard(self) -> None:
        """Remove the folder of a run that could not begin, and the folders made for it."""
        shutil.rmtree(self.path, ignore_errors=True)
        for parent in self._made:
            try:
                parent.rmdir()
            except OSError:
                break

    def release(self) -> None:
        """Let another process have the folder."""
        os.close(self._lock)


def check_unchanged(folder: Path, data: Dataset) -> None:
    """The images are those with which a run began, as far as numbers and colours tell.

    Args:
        folder: the run's; one that is not there, or that notes nothing of them, is passed over.
        data: the images now.

    Raises:
        RaysearchError: they are others.
    """
    before, now = _state(folder).get("data"), _described(data)
    if not isinstance(before, dict) or before.keys() != now.keys():
        return
    if before["images"] != now["images"]:
        change = "; ".join(
            f"{split}: {before['images'].get(split)}, now {count}"
            for split, count in now["images"].items()
            if before["images"].get(split) != count
        )
    elif before["classes"] != now["classes"]:
        change = "the classes have other names"
    elif len(before["mean"]) != len(now["mean"]):
        change = "as many, with other colour channels"
    elif any(abs(a - b) > MEAN_TOLERANCE for a, b in zip(before["mean"], now["mean"], strict=True)):
        change = f"as many, their mean colour was {before['mean']}, now {now['mean']}"
    else:
        return
    raise RaysearchError(
        f"the images are others than when {folder} began ({change}): put them back, or begin "
        "with another name="
    )


def _described(data: Dataset) -> dict[str, Any]:
    return {"images": data.counts, "classes": list(data.classes), "mean": list(data.mean)}


def _state(folder: Path) -> dict[str, Any]:
    """What a run's folder keeps of it; nothing where that cannot be read."""
    try:
        state = json.loads((folder / STATE).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return state if isinstance(state, dict) else {}


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a run that has ended well, with its report."""
    return _state(folder).get("status") == "complete"


def has_failed(folder: Path) -> bool:
    """Whether a folder holds a run that could not go on."""
    return _state(folder).get("status") == "failed"


def lock(folder: Path) -> int:
    """Have a folder alone; closing the descriptor, or the process's end, lets others have it.

    Raises:
        RaysearchError: another process has it.
    """
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise RaysearchError(f"{folder.name} is still going on in another process") from None
    return descriptor


def check_free(configuration: Configuration) -> None:
    """The run's name is not taken.

    Raises:
        RaysearchError: it is.
    """
    settings = configuration.settings
    if settings.name and (path := Path(settings.runs_dir) / settings.name).exists():
        raise RaysearchError(
            f"{path} exists already: choose another name, or continue that run with --resume {path}"
        )


def create(configuration: Configuration) -> RunFolder:
    """A new run's folder, with its configuration in it.

    Raises:
        RaysearchError: the name is taken, or the folder cannot be written.
    """
    values, settings = configuration.values, configuration.settings
    runs = Path(settings.runs_dir)
    made = [p for p in (runs, *runs.parents) if not p.exists()]
    stem = f"{settings.method.name}-{settings.data.name}"
    name = settings.name or _free_name(runs, stem, shared=settings.storage is not None)
    path = runs / name
    values = {**values, "name": name}
    try:
        runs.mkdir(parents=True, exist_ok=True)
        path.mkdir()
        named = Configuration(values, settings.model_copy(update={"name": name}))
        folder = RunFolder(path, named, {"version": __version__, "seconds": {}})
        folder._made = made
        write_whole(path / CONFIG, to_yaml(named).encode())
        folder.save_state(status="running", created=datetime.now().astimezone().isoformat())
    except FileExistsError as error:
        if settings.name is None and runs.is_dir():  # another run took the name just now
            return create(configuration)
        check_free(Configuration(values, settings.model_copy(update={"name": name})))
        raise RaysearchError(f"runs_dir={runs} is not a folder") from error
    except OSError as error:
        if path.exists() and error.errno in (errno.ENOSPC, errno.EDQUOT):
            shutil.rmtree(path, ignore_errors=True)
        raise RaysearchError(f"runs_dir={runs} cannot be written: {error.strerror}") from error
    return folder


def check_space(folder: Path, needed: int) -> None:
    """There is room for a run.

    Raises:
        RaysearchError: less than `needed` bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RaysearchError(
            f"no space left in {folder}: the run needs about {needed / 2**20:.0f} MiB, "
            f"{free / 2**20:.0f} MiB are free"
        )


def resume(run: str, runs_dir: str) -> RunFolder:
    """The folder of an earlier run, by its path or by its name.

    Raises:
        RaysearchError: there is none, or it is still going on.
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
    configuration = load(path / CONFIG)
    try:
        state = json.loads((path / STATE).read_text())
    except FileNotFoundError:  # killed between the two files: nothing has been computed
        state = {"version": __version__, "seconds": {}}
    except (OSError, ValueError, RecursionError) as error:
        raise RaysearchError(f"{path / STATE} cannot be read: {error}") from error
    if not isinstance(state, dict) or not isinstance(state.get("seconds"), dict):
        raise RaysearchError(f"{path / STATE} is not the state of a run")
    folder = RunFolder(path, configuration, state)
    remove_unfinished(path)
    return folder


def _free_name(runs: Path, stem: str, shared: bool) -> str:
    """A name of its own; also where runs begun elsewhere in the same second are to come."""
    base = name = f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"
    base = name = f"{base}-{secrets.token_hex(2)}" if shared else base
    count = 2
    while (runs / name).exists():
        name, count = f"{base}-{count}", count + 1
    return name
