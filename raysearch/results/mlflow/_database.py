"""MLflow's data base in a file: checked, and made whole or not at all, by any number of runs."""

from __future__ import annotations

import contextlib
import os
import shlex
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from raysearch.errors import RaysearchError
from raysearch.files import lock, sqlite_address

LOCK_SECONDS = 5.0  # that another program may lock a data base
TURN_SECONDS = 50.0  # that runs wait for each other, as one makes the data base
_TURN_PAUSE = 0.05


def check_database(path: Path) -> None:
    """Find out now, not after the search, that the file cannot be used; nothing is changed.

    Raises:
        RaysearchError: it is no data base of this MLflow's, is locked, or cannot be written.
    """
    where = f"the MLflow data base {path}"
    if not path.parent.is_dir():
        raise RaysearchError(f"{where}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise RaysearchError(f"{where} is a folder; tracking.uri must name a file")
    try:
        if not path.exists():
            with tempfile.TemporaryFile(dir=path.parent):
                return
        with contextlib.closing(
            sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None)
        ) as connection:
            connection.execute("BEGIN IMMEDIATE")
            version = _version(connection)
            connection.execute("ROLLBACK")
    except (OSError, sqlite3.DatabaseError) as error:
        raise RaysearchError(
            f"{where} cannot be used ({error}); move it away or choose another tracking.uri"
        ) from None
    if version is not None:
        _check_version(path, version)


def _version(connection: sqlite3.Connection) -> str | None:
    """Of the data base's layout; None where nothing has been made in it."""
    known = "SELECT name FROM sqlite_master WHERE name = 'alembic_version'"
    if connection.execute(known).fetchone() is None:
        return None
    found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(found[0]) if found else None


def _check_version(path: Path, version: str) -> None:
    """MLflow would change the layout of an older data base without being asked."""
    import mlflow
    from alembic.script import ScriptDirectory

    migrations = Path(mlflow.__file__).parent / "store" / "db_migrations"
    scripts = ScriptDirectory(str(migrations))
    if version in scripts.get_heads():
        return
    where, now = f"the MLflow data base {path}", f"MLflow {mlflow.__version__}"
    if any(script.revision == version for script in scripts.walk_revisions()):
        command = f"mlflow db upgrade {shlex.quote(sqlite_address(path))}"
        raise RaysearchError(
            f"{where} is of an older version than {now}: copy it, then upgrade it with `{command}`,"
            " or choose another tracking.uri"
        )
    raise RaysearchError(
        f"{where} is of a newer version than {now}: update MLflow, or choose another tracking.uri"
    )


def make_database(path: Path) -> None:
    """Make the data base where there is none, or an empty file.

    It is made under another name and then given its own, so that a run which is killed leaves none
    that is half made, and of several that make it at once all go on with the same.

    Raises:
        OSError: the folder cannot be written.
    """
    if _has_content(path):
        return
    with _in_turn(path.parent):
        if not _has_content(path):
            _make(path)


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _make(path: Path) -> None:
    """Let MLflow make a data base, unless another process is first."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        _fill(sqlite_address(Path(name)), path.parent / "mlruns")
        with contextlib.suppress(OSError):  # a file system without modes
            os.chmod(name, 0o644)  # mkstemp makes it private
        with contextlib.suppress(FileExistsError):
            _give_name(name, path)
    finally:
        for each in (name, f"{name}-journal"):
            Path(each).unlink(missing_ok=True)


def _fill(uri: str, artifacts: Path) -> None:
    """Make MLflow's tables in an empty data base."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(uri, artifacts.as_uri())  # type: ignore[no-untyped-call]
    store.engine.dispose()


def _give_name(name: str, path: Path) -> None:
    """Move a file to where none is, or an empty one; raises FileExistsError where one is."""
    if path.exists() and not _has_content(path):
        os.replace(name, path)
        return
    try:
        os.link(name, path)
    except FileExistsError:
        raise
    except (OSError, AttributeError, NotImplementedError):  # a file system without hard links
        if os.name != "nt" and path.exists():
            raise FileExistsError(path) from None
        os.rename(name, path)


@contextlib.contextmanager
def _in_turn(folder: Path) -> Iterator[None]:
    """One run at a time, where the system and the folder's file system can lock."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows
        yield
        return
    try:
        until = time.monotonic() + TURN_SECONDS
        while not lock(descriptor) and time.monotonic() < until:
            time.sleep(_TURN_PAUSE)
        yield
    finally:
        os.close(descriptor)
