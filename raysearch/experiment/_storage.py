"""Where results are copied to: a folder, or whatever fsspec reaches by a URL.

An experiment works in its folder under `runs_dir`; in a job on a cluster that may be a place that
nobody can look into later. `storage=` names one that its submitter can.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from raysearch.errors import RaysearchError
from raysearch.experiment._experiment import Experiment
from raysearch.experiment._folder import STATE, TRIALS
from raysearch.experiment._signals import interruptible

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

AGAIN = "--resume copies again"  # what to do when a copy does not work
CHECK_SECONDS = 30.0  # in which a place has to have taken and given up a small file
T = TypeVar("T")


def check_storage(experiment: Experiment, *, resumed: bool = False) -> None:
    """The run's `storage`, where it has one, can be written.

    Args:
        experiment: its settings.
        resumed: whether it is continued, so that its results may be there already.

    Raises:
        RaysearchError: it cannot, a package for it is missing, it has a run of that name, or
            nobody could reach it after the run.
    """
    settings = experiment.settings
    if settings.storage is None:
        return
    storage = Storage(settings.storage)
    if storage.local is not None:
        if storage.local.resolve() == Path(settings.runs_dir).resolve():
            raise RaysearchError(
                f"storage={storage.url} is runs_dir, where the run goes anyway: leave it out"
            )
        if _in_job() and not storage.is_absolute:
            raise RaysearchError(
                f"storage={storage.url} would be in the job's working directory, which goes with "
                "the job: give an absolute path or a URL"
            )
    storage.check(None if resumed else settings.name)


def copy_results(experiment: Experiment, folder: Path, again: str = AGAIN) -> str | None:
    """Copy a run's folder to the run's `storage`, where it has one; say where it is then.

    Args:
        experiment: its settings.
        folder: its folder.
        again: what to do when it does not work.

    Raises:
        RaysearchError: it could not be written.
    """
    url = experiment.settings.storage
    return None if url is None else Storage(url).copy(folder, again)


@contextlib.contextmanager
def copied(
    experiment: Experiment,
    folder: Path,
    begun: Callable[[], bool],
    *,
    say: Callable[[str], None],
    warn: Callable[[str], None],
    again: str = AGAIN,
) -> Iterator[None]:
    """Copy a folder to `storage` at the end of what is inside, however it ends; see `copy_results`.

    After an error or Ctrl-C another Ctrl-C ends the copying.

    Args:
        experiment, folder, again: see there.
        begun: whether there is anything to copy after an error.
        say: told where it is.
        warn: told, after an error, what is being done, and that it could not be.

    Raises:
        RaysearchError: what is inside has ended well, and it could not be written.
    """
    try:
        yield
    except BaseException:
        if experiment.settings.storage is not None and begun():
            warn(f"copying what there is to {experiment.settings.storage}; Ctrl-C ends it")
            try:
                with interruptible():
                    copy_results(experiment, folder, again)
            except RaysearchError as trouble:
                warn(str(trouble))
            except KeyboardInterrupt:
                warn(f"copying stopped ({folder} has it all, {again})")
        raise
    if stored := copy_results(experiment, folder, again):
        say(f"results copied to {stored}")


def warning(experiment: Experiment) -> str | None:
    """What to say of a job whose results nobody will find."""
    settings = experiment.settings
    if settings.storage is not None or not _in_job() or Path(settings.runs_dir).is_absolute():
        return None
    return (
        "the results will be in the job's working directory on the cluster, which goes with the "
        "job: storage= copies them to a folder or URL of yours"
    )


class Storage:
    """A folder or a URL under which each run has a folder of its name.

    Attributes:
        url: as it was given, without a slash at its end.
        local: the folder, where it is one of this machine.

    Raises:
        RaysearchError: it cannot be used from here.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") or "/"
        self._files, self._root = self._open()
        self.local = Path(self._root) if _is_local(self.url) else None

    @property
    def is_absolute(self) -> bool:
        """Whether it means the same in every working directory."""
        return not _is_local(self.url) or Path(self.url.removeprefix("file://")).is_absolute()

    def check(self, name: str | None) -> None:
        """Write a small file and remove it, within seconds.

        Args:
            name: of the run that will come here; None where that may be there already.

        Raises:
            RaysearchError: that does not work, or there is a run of that name.
        """
        if name is not None and self._within(lambda: self._exists(name)):
            raise RaysearchError(f"storage={self.url} has a run {name} already: choose another")
        self._within(self._probe)

    def copy(self, folder: Path, again: str = AGAIN) -> str:
        """Copy a run's files, each of them whole, but for its trials' checkpoints.

        `run.json`, which says how the run ended, comes last: when it says `complete`, all is there.

        Returns:
            Where they are now.

        Raises:
            RaysearchError: it could not be written; what is in the folder is untouched.
        """
        try:
            with self._said():
                for name in _results(folder):
                    self._put(folder / name, f"{folder.name}/{name}")
        except RaysearchError as error:
            raise RaysearchError(f"{error} ({folder} has it all, {again})") from error
        return f"{self.url}/{folder.name}"

    def _open(self) -> tuple[AbstractFileSystem, str]:
        from fsspec.core import url_to_fs

        protocol = self.url.partition("://")[0]
        url = self.url
        if _is_local(url):
            url = str(Path(url.removeprefix("file://")).expanduser().absolute())
        try:
            files, root = url_to_fs(url)
        except ImportError as error:
            raise RaysearchError(
                f"storage={self.url}: {protocol}:// needs a package that is not installed: {error}"
            ) from None
        except Exception as error:  # whatever a protocol's package raises
            raise RaysearchError(f"storage={self.url}: {_reason(error)}") from None
        return files, str(root).rstrip("/")

    def _exists(self, name: str) -> bool:
        return bool(self._files.exists(f"{self._root}/{name}"))

    def _probe(self) -> None:
        name = f".raysearch-{secrets.token_hex(8)}"
        made = []
        if self.local is not None:
            made = [path for path in (self.local, *self.local.parents) if not path.exists()]
        try:
            with tempfile.TemporaryDirectory() as place:
                probe = Path(place) / name
                probe.write_bytes(b"raysearch")
                self._put(probe, name)
            with contextlib.suppress(Exception):  # a place that lets nobody delete will do
                self._files.rm_file(f"{self._root}/{name}")
        finally:
            for path in made:
                with contextlib.suppress(OSError):
                    path.rmdir()

    def _put(self, source: Path, name: str) -> None:
        """Copy a file, which appears whole, as in object stores it does by itself."""
        target = f"{self._root}/{name}"
        if self.local is None:
            self._files.put_file(str(source), target)
            return
        folder, _, file = target.rpartition("/")
        self._files.makedirs(folder, exist_ok=True)
        temporary = f"{folder}/.{file}.{secrets.token_hex(4)}"
        try:
            self._files.put_file(str(source), temporary)
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _within(self, work: Callable[[], T]) -> T:
        """Do something that may hang, in `CHECK_SECONDS` at most."""
        done: list[T] = []
        failed: list[BaseException] = []

        def run() -> None:
            try:
                done.append(work())
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=run, name="storage-check", daemon=True)
        thread.start()
        thread.join(CHECK_SECONDS)
        with self._said():
            if failed:
                raise failed[0]
            if not done:
                raise TimeoutError(f"no answer in {CHECK_SECONDS:g} s")
        return done[0]

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        """Whatever goes wrong, in one line."""
        try:
            yield
        except Exception as error:  # whatever a protocol's package raises
            raise RaysearchError(
                f"storage={self.url} cannot be written: {_reason(error)}"
            ) from error


def _results(folder: Path) -> list[Path]:
    """The files of a run's folder that are results, as relative paths, `run.json` last."""
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    kept = [
        n for n in names if TRIALS not in n.parts[:-1] and not any(p[0] == "." for p in n.parts)
    ]
    return sorted(kept, key=lambda name: (name.name == STATE, name))


def _is_local(url: str) -> bool:
    return "://" not in url or url.startswith("file://")


def _in_job() -> bool:
    from raysearch.engine._cluster import JOB

    return JOB in os.environ


def _reason(error: Exception) -> str:
    known = isinstance(error, OSError) and error.strerror
    return " ".join(str(known or error or type(error).__name__).split())[:300]
