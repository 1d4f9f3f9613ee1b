"""Files that appear whole or not at all, and files that end."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path


def check_regular(path: str | os.PathLike[str]) -> None:
    """`path` can be read to an end: a pipe may keep its reader waiting, a device never ends.

    Raises:
        OSError: it is missing, or a folder, a pipe, a socket or a device.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "a pipe or a device, not a file", os.fspath(path))


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path` through a temporary file in the same folder and a rename.

    Raises:
        OSError: the folder does not exist, cannot be written or is full; `path` is untouched.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        with contextlib.suppress(OSError):  # a file system without modes
            os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def sqlite_address(path: Path) -> str:
    """A SQLite file as SQLAlchemy's address, in which % and ? of a name mean something else."""
    return "sqlite:///" + str(path).replace("%", "%25").replace("?", "%3F")


def lock(descriptor: int) -> bool:
    """Have a file or folder alone until its descriptor is closed, or the process ends.

    Returns:
        Whether nobody else has it, as far as the system and the file system can tell: Windows
        locks files only, many network file systems nothing.
    """
    try:
        import fcntl
    except ImportError:
        return _lock_on_windows(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # it cannot lock
        pass
    return True


def _lock_on_windows(descriptor: int) -> bool:
    try:
        import msvcrt
    except ImportError:
        return True
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EDEADLK)
    return True


def remove_unfinished(folder: Path) -> None:
    """Remove what `write_whole` had begun, anywhere below a folder, when its process was killed."""
    for path in folder.rglob(".*.????????"):
        path.unlink(missing_ok=True)
