"""What this machine lets a process use: CPUs, memory, a user's name, a temporary folder.

Containers, shared computers and systems other than Linux lack some of what libraries take for
granted.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
USER_VARIABLES = ("LOGNAME", "USER", "LNAME", "USERNAME")  # where `getpass` looks first
LOOPBACK = ("localhost", "127.0.0.1", "::1", "0.0.0.0")  # the last is where servers say they are
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
SOCKET_BYTES = {"linux": 107, "win32": 32_000}.get(sys.platform, 103)  # of a socket's path
LONGEST_TEMPORARY = SOCKET_BYTES - len("/pymp-12345678/listener-12345678")  # `multiprocessing`


def usable_cpus() -> int:
    """How many CPU cores this process may use: its affinity, and its container's quota."""
    quota = cpu_quota()
    return _affinity() if quota is None else max(1, min(_affinity(), math.floor(quota + 1e-6)))


def cpu_limit() -> str | None:
    """Why a run uses fewer CPU cores than the machine has, in a line."""
    there, quota = os.cpu_count() or 1, cpu_quota()
    used = usable_cpus()
    if used >= there:
        return None
    if quota is not None and used < _affinity():
        why = f"the container's CPU quota is {quota:g}"
    else:
        why = "the process is bound to these"
    return f"{used} of the machine's {there} CPUs are used: {why}"


def cpu_quota(groups: Path | None = None, own: Path | None = None) -> float | None:
    """The CPU cores that control groups give this process; None: as many as there are.

    The smallest quota counts, of the process's group and of all that it is nested in.

    Args:
        groups: where control groups are mounted, of version 1 or 2; None is the system's place.
        own: the file that says in which of them this process is; likewise.
    """
    found = []
    for folder in _groups("cpu", groups or CGROUPS, own or OWN_CGROUPS):
        words = _words(folder / "cpu.max") or [
            *_words(folder / "cpu.cfs_quota_us"),
            *_words(folder / "cpu.cfs_period_us"),
        ]
        if len(words) == 2 and all(word.isdigit() and int(word) for word in words):
            found.append(int(words[0]) / int(words[1]))  # "max" and -1 are none
    return min(found, default=None)


def memory_limit(groups: Path | None = None, own: Path | None = None) -> int | None:
    """The bytes of memory that control groups give this process; see `cpu_quota`."""
    found = []
    for folder in _groups("memory", groups or CGROUPS, own or OWN_CGROUPS):
        words = _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")
        found += [int(word) for word in words if word.isdigit()]
    limit = min(found, default=None)
    return limit if limit is not None and limit < 1 << 60 else None  # version 1 has no "max"


def _groups(kind: str, mounted: Path, own: Path) -> Iterator[Path]:
    """The folders of the process's control group and of those above it."""
    try:
        lines = own.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, _, rest = line.partition(":")
        kinds, _, path = rest.partition(":")
        if kinds and kind not in kinds.split(","):
            continue
        # Within a container the path may be the one outside; its own group is the root then.
        roots = [mounted / kinds, mounted / kind] if kinds else [mounted, mounted / "unified"]
        for root in roots:
            group = Path(path.lstrip("/"))
            yield from (root / each for each in (group, *group.parents) if ".." not in each.parts)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except (OSError, ValueError):
        return []


def _affinity() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not Linux
        return os.cpu_count() or 1


def adapt() -> None:
    """Let this process, and those that it starts, work on the machine as it is."""
    bypass_proxies()
    mend_temporary_folder()
    limit_threads()


def limit_threads() -> None:
    """Let PyTorch use in this process as many threads as there are CPU cores to use."""
    import torch

    if torch.get_num_threads() > (cpus := usable_cpus()):
        torch.set_num_threads(cpus)


def provide_account() -> None:
    """Where the process's user id has no account, give libraries a user's name and a home.

    PyTorch, Ray and MLflow ask for them when they are imported, and end with a KeyError. Where the
    home cannot be written, Matplotlib has another folder; it would warn.
    """
    try:
        import pwd
    except ImportError:  # Windows
        return
    name = f"user-{os.getuid()}"
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        if not any(os.environ.get(variable) for variable in USER_VARIABLES):
            os.environ["USER"] = name
        if not os.environ.get("HOME"):
            os.environ["HOME"] = _private_folder(f"raysearch-{name}")
    if not os.access(os.path.expanduser("~"), os.W_OK) and "MPLCONFIGDIR" not in os.environ:
        os.environ["MPLCONFIGDIR"] = _private_folder(f"raysearch-{name}")


def _private_folder(name: str) -> str:
    """A temporary folder of this user's alone."""
    path = Path(tempfile.gettempdir()) / name
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        if path.stat().st_uid == os.getuid() and not path.is_symlink():
            return str(path)
    except OSError:
        pass
    return tempfile.mkdtemp(prefix=f"{name}-")


def bypass_proxies() -> None:
    """Reach servers on this machine without the proxy that the environment names."""
    if not any(os.environ.get(name) or os.environ.get(name.upper()) for name in PROXIES):
        return
    for name in ("no_proxy", "NO_PROXY"):
        known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        hosts = [host.strip() for host in known.split(",") if host.strip()]
        if "*" not in hosts:
            os.environ[name] = ",".join([*hosts, *(h for h in LOOPBACK if h not in hosts)])


def mend_temporary_folder() -> None:
    """Where TMPDIR cannot be used, or is too long for sockets in it, use another folder."""
    given = os.environ.get("TMPDIR")
    if given is None or can_hold_files(Path(given), LONGEST_TEMPORARY):
        return
    del os.environ["TMPDIR"]
    tempfile.tempdir = None
    for folder in temporary_folders():
        if can_hold_files(folder, LONGEST_TEMPORARY):
            os.environ["TMPDIR"] = str(folder)
            tempfile.tempdir = None
            return
    os.environ["TMPDIR"] = given  # as good as any


def temporary_folders() -> list[Path]:
    """Folders that systems have for temporary files, the likeliest first."""
    given = [os.environ.get(name) for name in ("RAY_TMPDIR", "TMPDIR")]
    known = ["/tmp", "/var/tmp", os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm"]
    if os.name == "nt":
        known = [tempfile.gettempdir()]
    return [Path(path) for path in dict.fromkeys([*given, *known]) if path]


def can_hold_files(folder: Path, longest: int) -> bool:
    """Whether a folder is there, can be written, and has a path of `longest` bytes at most."""
    if len(os.fsencode(folder)) > longest:
        return False
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 16))  # a full disk takes the name and not the content
            file.flush()
    except OSError:
        return False
    return True
