"""What a machine lets a process use: quotas, accounts, folders, proxies."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
from conftest import ROOT

from raysearch import machine
from raysearch.engine import Wish, local_capacity
from raysearch.engine._files import Progress, ProposalFolder
from raysearch.engine._machine import check_memory, ray_folder
from raysearch.engine._ray import UV_HOOK, no_uv_hook
from raysearch.errors import RaysearchError
from raysearch.experiment._experiment import compose_run
from raysearch.experiment._folder import check_free, create, resume
from raysearch.experiment._quiet import quiet
from raysearch.protocol import Answer

GIB = 2**30


def made(folder: Path, files: dict[str, str], own: str) -> dict[str, Path]:
    """Control groups as a kernel shows them."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content + "\n")
    (folder / "own").write_text(own)
    return {"groups": folder, "own": folder / "own"}


@pytest.mark.parametrize(
    ("files", "own", "quota"),
    [
        ({"cpu.max": "200000 100000"}, "0::/\n", 2.0),
        ({"cpu.max": "50000 100000"}, "0::/\n", 0.5),
        ({"cpu.max": "max 100000"}, "0::/\n", None),
        ({}, "0::/\n", None),
        ({}, "", None),
        ({"cpu.max": ""}, "0::/\n", None),
        ({"cpu.max": "100000 0"}, "0::/\n", None),
        # nested: the smallest counts, wherever it is
        ({"a/cpu.max": "400000 100000", "a/b/cpu.max": "max 100000"}, "0::/a/b\n", 4.0),
        ({"a/cpu.max": "400000 100000", "a/b/cpu.max": "300000 100000"}, "0::/a/b\n", 3.0),
        # the path outside the container, whose own group is the root within
        ({"cpu.max": "150000 100000"}, "0::/kubepods/pod1/abc\n", 1.5),
        ({"cpu.max": "150000 100000"}, "0::/../../abc\n", 1.5),
        # version 1
        (
            {"cpu/cpu.cfs_quota_us": "600000", "cpu/cpu.cfs_period_us": "100000"},
            "5:memory:/x\n4:cpu,cpuacct:/x\n",
            6.0,
        ),
        (
            {"cpu,cpuacct/x/cpu.cfs_quota_us": "250000", "cpu,cpuacct/x/cpu.cfs_period_us": "1000"},
            "4:cpu,cpuacct:/x\n",
            250.0,
        ),
        (
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            "4:cpu,cpuacct:/\n",
            None,
        ),
        # both mounted
        ({"unified/cpu.max": "100000 100000"}, "4:cpu:/\n0::/\n", 1.0),
    ],
)
def test_a_quota_of_cpus_is_seen(
    tmp_path: Path, files: dict[str, str], own: str, quota: float | None
) -> None:
    assert machine.cpu_quota(**made(tmp_path, files, own)) == quota


@pytest.mark.parametrize(
    ("files", "own", "limit"),
    [
        ({"memory.max": str(GIB)}, "0::/\n", GIB),
        ({"memory.max": "max"}, "0::/\n", None),
        ({"a/memory.max": str(GIB), "a/b/memory.max": str(2 * GIB)}, "0::/a/b\n", GIB),
        ({"memory/memory.limit_in_bytes": str(3 * GIB)}, "7:memory:/\n", 3 * GIB),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, "7:memory:/\n", None),
    ],
)
def test_a_limit_of_memory_is_seen(
    tmp_path: Path, files: dict[str, str], own: str, limit: int | None
) -> None:
    assert machine.memory_limit(**made(tmp_path, files, own)) == limit


@pytest.fixture
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(48)), raising=False)


def quota_of(monkeypatch: pytest.MonkeyPatch, folder: Path, quota: str) -> None:
    places = made(folder, {"cpu.max": quota, "memory.max": str(GIB)}, "0::/\n")
    monkeypatch.setattr(machine, "CGROUPS", places["groups"])
    monkeypatch.setattr(machine, "OWN_CGROUPS", places["own"])


@pytest.mark.usefixtures("many_cores")
@pytest.mark.parametrize(
    ("quota", "cpus", "why"),
    [
        ("250000 100000", 2, "2 of the machine's 64 CPUs are used: the container's CPU quota is 2"),
        (
            "10000 100000",
            1,
            "1 of the machine's 64 CPUs are used: the container's CPU quota is 0.1",
        ),
        ("max 100000", 48, "48 of the machine's 64 CPUs are used: the process is bound to these"),
        ("5000000 100000", 48, "48 of the machine's 64 CPUs are used: the process is bound"),
    ],
)
def test_a_run_uses_what_the_quota_gives_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str, cpus: int, why: str
) -> None:
    quota_of(monkeypatch, tmp_path, quota)
    assert local_capacity(Wish("cpu")).cpus == cpus
    assert local_capacity(Wish("cpu", cpus=7)).cpus == 7
    assert (machine.cpu_limit() or "").startswith(why)


@pytest.mark.usefixtures("many_cores")
def test_pytorch_has_as_many_threads_as_the_quota_gives(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch

    quota_of(monkeypatch, tmp_path, "300000 100000")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(16)
        machine.limit_threads()
        assert torch.get_num_threads() == 3
        torch.set_num_threads(2)
        machine.limit_threads()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_images_that_the_container_has_no_memory_for_are_said_before_ray_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    quota_of(monkeypatch, tmp_path, "max 100000")
    check_memory(GIB // 2)
    with pytest.raises(RaysearchError, match="the container may use 1,024 MiB of memory"):
        check_memory(GIB)


def test_a_machine_without_control_groups_or_affinity(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # macOS, Windows
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "nothing")
    assert machine.usable_cpus() == 10
    assert machine.cpu_limit() is None
    assert machine.memory_limit() is None


WITHOUT_ACCOUNT = """
import os, pwd, sys
def unknown(uid): raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
import raysearch
raysearch.load_policy
import getpass, pathlib
print(getpass.getuser(), pathlib.Path.home(), os.path.expanduser("~/x"))
import torchvision, torch._inductor.codecache, torch._dynamo
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no user ids")
def test_a_user_id_without_an_account_can_import_all(tmp_path: Path) -> None:
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in (*machine.USER_VARIABLES, "HOME")
    }
    environment |= {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ACCOUNT], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    name, home, inside = done.stdout.split()
    assert name == f"user-{os.getuid()}"
    assert home == str(tmp_path / f"raysearch-{name}")
    assert inside == f"{home}/x"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no user ids")
def test_a_home_that_somebody_else_has_made_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import pwd

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("HOME")
    monkeypatch.setenv("USER", "ann")
    machine.provide_account()
    assert os.environ["USER"] == "ann"
    assert Path(os.environ["HOME"]).name.startswith("raysearch-user-54321-")


@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "all_proxy"])
def test_servers_on_this_machine_are_reached_without_the_proxy(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from requests.utils import should_bypass_proxies

    for each in (*machine.PROXIES, "no_proxy"):
        monkeypatch.delenv(each, raising=False)
        monkeypatch.delenv(each.upper(), raising=False)
    machine.bypass_proxies()
    assert "no_proxy" not in os.environ  # where there is no proxy, nothing is set
    monkeypatch.setenv(name, "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "intern.example")
    machine.bypass_proxies()
    machine.bypass_proxies()
    monkeypatch.setenv("no_proxy", expected := "intern.example,localhost,127.0.0.1,::1,0.0.0.0")
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == expected
    for host in ("127.0.0.1:1", "localhost:1", "[::1]:1", "0.0.0.0:1", "intern.example"):
        assert should_bypass_proxies(f"http://{host}/", no_proxy=None), host
    assert not should_bypass_proxies("http://mlflow.example/", no_proxy=None)


def folders(monkeypatch: pytest.MonkeyPatch, *found: Path) -> None:
    monkeypatch.setattr("raysearch.engine._machine.temporary_folders", lambda: list(found))


def test_ray_has_its_default_folder_where_that_will_do() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short, pytest.MonkeyPatch.context() as patch:
        folders(patch, Path(short))
        assert ray_folder() == f"{short}/ray"
        assert os.listdir(short) == []


def test_a_folder_of_rays_that_cannot_be_used_is_passed_over(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short, pytest.MonkeyPatch.context() as patch:
        other = Path(short)
        (other / "ray").write_text("in the way")  # as a folder of another user's would be
        folders(patch, tmp_path / ("x" * 90), tmp_path / "missing", other)
        assert ray_folder() == f"{short}/ray-{os.getuid()}"
        folders(patch, tmp_path / "missing", tmp_path / ("x" * 90))
        with pytest.raises(RaysearchError, match="set RAY_TMPDIR to a folder of yours"):
            ray_folder()
        assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(RaysearchError, match="are full"):
        ray_folder()


@pytest.mark.parametrize("kind", ["missing", "long", "a file"])
def test_a_temporary_folder_that_cannot_be_used_is_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    place = tmp_path / ("x" * 80 if kind == "long" else kind)
    if kind == "long":
        place.mkdir()
    elif kind == "a file":
        place.touch()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", None)
    machine.mend_temporary_folder()
    assert os.environ["TMPDIR"] == "/tmp" == tempfile.gettempdir()
    monkeypatch.setenv("TMPDIR", "/var/tmp")
    machine.mend_temporary_folder()
    assert os.environ["TMPDIR"] == "/var/tmp"


@pytest.mark.parametrize("wanted", [False, True])
def test_ray_does_not_pack_the_working_directory_under_uv(
    monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    from ray._private import worker
    from ray._private.runtime_env import uv_runtime_env_hook

    monkeypatch.setattr(uv_runtime_env_hook, "_get_uv_run_cmdline", lambda: ["uv", "run", "python"])
    packed = {"working_dir": "/home/ann", "py_executable": "uv run"}
    monkeypatch.setattr(uv_runtime_env_hook, "hook", lambda _: packed)
    monkeypatch.delenv(UV_HOOK, raising=False)
    if wanted:
        monkeypatch.setenv(UV_HOOK, "1")
    with no_uv_hook():
        found = worker._maybe_modify_runtime_env(None, False)
    assert found == (packed if wanted else None)
    assert worker._maybe_modify_runtime_env(None, False) == packed


CODES = [errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.ENOLCK]


@pytest.mark.parametrize("code", CODES)
def test_a_file_system_without_locks_and_modes_has_runs_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    for module, name in ((fcntl, "flock"), (os, "chmod"), (os, "fsync"), (os, "link")):
        monkeypatch.setattr(module, name, refuse)
    experiment = compose_run([f"runs_dir={tmp_path}/runs", "name=bare"])
    folder = create(experiment)
    folder.save(status="running")
    proposal = ProposalFolder(folder.trials / "search" / "1-0")
    proposal.write_answer(Answer({"epoch_equivalents": 1.0}), Progress(1))
    assert proposal.answered
    folder.release()
    resume("bare", f"{tmp_path}/runs").discard()
    assert [path.name for path in tmp_path.rglob("*")] == ["runs"]


def test_a_folder_is_held_by_one_process(tmp_path: Path) -> None:
    folder = create(compose_run([f"runs_dir={tmp_path}/runs", "name=one"]))
    with pytest.raises(RaysearchError, match="one is still going on in another process"):
        resume("one", f"{tmp_path}/runs")
    folder.release()
    resume("one", f"{tmp_path}/runs").release()


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.ENOSPC, errno.ENOSYS])
def test_a_failed_start_leaves_nothing_that_makes_the_next_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    experiment = compose_run([f"runs_dir={tmp_path}/some/runs", "name=next"])
    for place in ("raysearch.experiment._folder.write_whole", "raysearch.experiment._folder._lock"):
        with monkeypatch.context() as broken:
            broken.setattr(place, refuse)
            with pytest.raises(RaysearchError, match="cannot be written"):
                create(experiment)
        assert list(tmp_path.iterdir()) == []
    check_free(experiment)
    create(experiment).discard()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_has_only_a_lock_is_free(tmp_path: Path) -> None:
    experiment = compose_run([f"runs_dir={tmp_path}", "name=killed"])
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / ".lock").touch()
    check_free(experiment)
    create(experiment).discard()


ELSEWHERE = """
import importlib, os, pkgutil, signal, sys
import ray, ray.tune, mlflow, torch, torchvision, kornia, optuna, hydra, pandas, matplotlib.pyplot
import mlflow.store.tracking.sqlalchemy_store, rich.console, sklearn, scipy.stats, jinja2
import multiprocessing.sharedctypes
for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"):
    sys.modules[name] = None
for module, names in ((os, ("sched_getaffinity", "getuid", "geteuid", "fork", "setsid", "link")),
                      (signal, ("SIGUSR1", "SIGHUP", "SIGKILL", "SIGQUIT", "pthread_sigmask"))):
    for name in names:
        delattr(module, name)
sys.platform = sys.argv[1]
import raysearch
for found in pkgutil.walk_packages(raysearch.__path__, "raysearch."):
    importlib.import_module(found.name)
from pathlib import Path
from raysearch import machine
from raysearch.engine import Wish, local_capacity
from raysearch.engine._machine import ray_folder
from raysearch.experiment._experiment import compose_run
from raysearch.experiment._folder import create, resume
from raysearch.experiment._signals import stop_on_signal
from raysearch.training import keep_freed_memory
with stop_on_signal():
    machine.adapt()
    keep_freed_memory()
    assert local_capacity(Wish("cpu")).cpus == os.cpu_count()
    assert Path(ray_folder()).name == "ray"
    create(compose_run(["name=here"])).release()
    resume("here", "runs").discard()
from raysearch.errors import RaysearchError
for name in ("nul", "COM1.x", "ends."):
    try:
        compose_run([f"name={name}"])
        print("taken")
    except RaysearchError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("platform", "said"), [("darwin", "taken"), ("win32", "Windows has no folder of this name")]
)
def test_what_linux_alone_has_is_not_needed(tmp_path: Path, platform: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, platform],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all(said in line for line in lines)
    assert [path.name for path in tmp_path.rglob("*")] == ["runs"]


def test_the_log_has_no_warnings_that_are_for_developers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with quiet(tmp_path / "log"):
        for category in (DeprecationWarning, FutureWarning, PendingDeprecationWarning):
            warnings.warn(f"a {category.__name__}", category, stacklevel=1)
        warnings.warn("worth a look", UserWarning, stacklevel=1)
    log = (tmp_path / "log").read_text()
    assert "worth a look" in log
    assert not {"DeprecationWarning", "FutureWarning"} & set(log.replace(":", " ").split())


def test_what_workers_have_written_has_begun_though_nobody_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = create(compose_run(["name=early"]))
    assert not folder.begun
    answer = folder.trials / "search-auto-seed-0" / "0001-01" / "answer"
    answer.mkdir(parents=True)
    assert not folder.begun
    (answer / "progress.json").write_text("{}")
    assert folder.begun
    folder.release()
