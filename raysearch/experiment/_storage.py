"""Where results are copied to: a folder, or whatever fsspec reaches by a URL.

An experiment works in its folder under `runs_dir`; in a job on a cluster that may be a place that
nobody can look into later. `storage=` names one that its submitter can.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TYPE_CHECKING

from raysearch.errors import RaysearchError
from raysearch.experiment._experiment import Experiment
from raysearch.experiment._folder import STATE, TRIALS, Folder
from raysearch.experiment._signals import interruptible
from raysearch.files import write_whole

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

    from raysearch.results import Display

CHECK_SECONDS = 30.0  # in which a place has to have taken and given up a small file


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
        given = Path(storage.url.removeprefix("file://"))
        if _in_job() and not given.is_absolute():
            raise RaysearchError(
                f"storage={storage.url} would be in the job's working directory, which goes with "
                "the job: give an absolute path or a URL"
            )
    storage.check(None if resumed else settings.name)


def copy_results(folder: Folder) -> str | None:
    """Copy a run's folder to the run's `storage`, where it has one; say where it is then.

    Raises:
        RaysearchError: it could not be written; the message says how to copy it again.
    """
    url = folder.experiment.settings.storage
    try:
        return None if url is None else Storage(url).copy(folder.path)
    except RaysearchError as error:
        raise RaysearchError(f"{error} ({_again(folder)})") from error


@contextlib.contextmanager
def copied(folder: Folder, display: Display) -> Iterator[None]:
    """Copy a folder to `storage` at the end of what is inside, however it ends; see `copy_results`.

    After an error or Ctrl-C another Ctrl-C ends the copying.

    Args:
        folder: the experiment's.
        display: told where the copy is, or why there is none.

    Raises:
        RaysearchError: what is inside has ended well, and it could not be written.
    """
    try:
        yield
    except BaseException:
        url = folder.experiment.settings.storage
        if url is not None and folder.begun:
            display.warning(f"copying what there is to {url}; Ctrl-C ends it")
            try:
                with interruptible():
                    copy_results(folder)
            except RaysearchError as trouble:
                display.warning(str(trouble))
            except KeyboardInterrupt:
                display.warning(f"copying stopped ({_again(folder)})")
        raise
    if stored := copy_results(folder):
        display.message(f"results copied to {stored}")


def _again(folder: Folder) -> str:
    """What to do when a copy does not work."""
    how = "the same command" if folder.experiment.compared else "--resume"
    return f"{folder.path} has it all, {how} copies again"


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

    def check(self, name: str | None) -> None:
        """Write a small file and remove it, within seconds.

        Args:
            name: of the run that will come here; None where that may be there already.

        Raises:
            RaysearchError: that does not work, or there is a run of that name.
        """
        self._within(lambda: self._probe(name))

    def copy(self, folder: Path) -> str:
        """Copy a run's files, each of them whole, but for its trials' checkpoints.

        `run.json`, which says how the run ended, comes last: when it says `complete`, all is there.

        Returns:
            Where they are now.

        Raises:
            RaysearchError: it could not be written; what is in the folder is untouched.
        """
        with self._said():
            for name in _results(folder):
                self._put(folder / name, f"{folder.name}/{name}")
        return f"{self.url}/{folder.name}"

    def _open(self) -> tuple[AbstractFileSystem, str]:
        from fsspec.core import url_to_fs

        local = _is_local(self.url)
        path = str(Path(self.url.removeprefix("file://")).expanduser().absolute())
        try:
            files, root = url_to_fs(path if local else self.url)
        except ImportError as error:
            protocol = self.url.partition("://")[0]
            raise RaysearchError(
                f"storage={self.url}: {protocol}:// needs a package that is not installed: {error}"
            ) from None
        except Exception as error:  # whatever a protocol's package raises
            raise RaysearchError(f"storage={self.url}: {_reason(error)}") from None
        return files, str(root).rstrip("/")

    def _probe(self, name: str | None) -> None:
        if name is not None and self._files.exists(f"{self._root}/{name}"):
            raise RaysearchError(f"storage={self.url} has a run {name} already: choose another")
        if self.local is not None:
            self.local.mkdir(parents=True, exist_ok=True)
        probe = f"{self._root}/.raysearch-{secrets.token_hex(8)}"
        self._files.pipe_file(probe, b"raysearch")
        with contextlib.suppress(Exception):  # a place that lets nobody delete will do
            self._files.rm_file(probe)

    def _put(self, source: Path, name: str) -> None:
        """Copy a file, which appears whole, as in object stores it does by itself."""
        target = f"{self._root}/{name}"
        if self.local is None:
            self._files.put_file(str(source), target)
        else:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            write_whole(Path(target), source.read_bytes())

    def _within(self, work: Callable[[], None]) -> None:
        """Do something that may hang, in `CHECK_SECONDS` at most."""
        done: Future[None] = Future()

        def run() -> None:
            try:
                work()
                done.set_result(None)
            except BaseException as error:
                done.set_exception(error)

        # A pool's thread would keep the process from ending.
        threading.Thread(target=run, name="storage-check", daemon=True).start()
        with self._said():
            if not wait([done], CHECK_SECONDS).done:
                raise TimeoutError(f"no answer in {CHECK_SECONDS:g} s")
            done.result()

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        """Whatever goes wrong, in one line."""
        try:
            yield
        except RaysearchError:
            raise
        except Exception as error:  # whatever a protocol's package raises
            raise RaysearchError(
                f"storage={self.url} cannot be written: {_reason(error)}"
            ) from error


def _results(folder: Path) -> list[Path]:
    """The files of a run's folder that are results, as relative paths, `run.json` last."""
    names = [path.relative_to(folder) for path in folder.rglob("[!.]*") if path.is_file()]
    kept = [name for name in names if TRIALS not in name.parts[:-1]]
    return sorted(kept, key=lambda name: (name.name == STATE, name))


def _is_local(url: str) -> bool:
    return "://" not in url or url.startswith("file://")


def _in_job() -> bool:
    from raysearch.engine import JOB

    return JOB in os.environ


def _reason(error: Exception) -> str:
    known = isinstance(error, OSError) and error.strerror
    return " ".join(str(known or error or type(error).__name__).split())[:300]
