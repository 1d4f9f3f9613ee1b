"""Ray itself: what is started listens here alone, what trials hold, and how Ray ends."""

from __future__ import annotations

import contextlib
import gc
import ipaddress
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import ray
from conftest import descendants
from ray.exceptions import ObjectStoreFullError, OutOfDiskError

from raysearch.engine import Capacity, Wish, cluster, local_capacity, trial_share
from raysearch.errors import RaysearchError


def listening(pids: set[int]) -> list[Any]:
    """The addresses on which processes accept connections."""
    sockets = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    sockets.add(os.readlink(descriptor))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                words = bytes.fromhex(fields[1].partition(":")[0])
                # each 32 bits in this machine's order
                turned = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
                found.append(ipaddress.ip_address(turned))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_all_that_is_started_listens_on_loopback_only_and_wants_the_token() -> None:
    with cluster(Wish("cpu", cpus=2)):
        look_around()


def look_around() -> None:
    class Worker:
        def pid(self) -> int:
            return os.getpid()

    worker = ray.remote(num_cpus=0)(Worker).remote()
    started = dict(descendants(os.getpid()))
    assert ray.get(worker.pid.remote()) in dict(descendants(os.getpid()))
    addresses = listening({os.getpid(), *dict(descendants(os.getpid()))})
    assert len(addresses) >= 5  # the control store, the node's two and its agent, this, the worker
    assert all((getattr(a, "ipv4_mapped", None) or a).is_loopback for a in addresses)
    token = os.environ["RAY_AUTH_TOKEN"]
    assert not any(token in command for command in started.values())
    address = ray.get_runtime_context().gcs_address
    program = f"from ray._raylet import GcsClient; GcsClient(address={address!r}); print('in')"
    for known, told in ((token, "in"), ("0" * 64, "")):
        environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": known}
        result = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True
        )
        assert result.stdout.strip() == told
    assert "AuthenticationError" in result.stderr


@pytest.mark.parametrize(
    ("capacity", "cpus", "gpus", "share", "at_once"),
    [
        (Capacity(2, 0, "cpu"), None, None, (1, 0), 2),
        (Capacity(16, 8, "cuda"), None, None, (2, 1), 8),
        (Capacity(16, 8, "cuda"), None, 0.25, (0.5, 0.25), 32),
        (Capacity(64, 8, "cuda"), None, None, (8, 1), 8),
        (Capacity(64, 8, "cuda"), None, 0.5, (4, 0.5), 16),
        (Capacity(26, 2, "cuda", ((16, 1), (10, 1))), None, None, (10, 1), 2),
        (Capacity(64, 8, "cuda"), 2, 0.25, (2, 0.25), 32),
        (Capacity(16, 8, "cuda"), 2, 0.25, (2, 0.25), 8),
        (Capacity(16, 1, "cuda"), None, 0.3, (5, 0.3), 3),
        (Capacity(3, 0, "cpu"), 0.5, None, (0.5, 0), 6),
    ],
)
def test_shares(
    capacity: Capacity,
    cpus: float | None,
    gpus: float | None,
    share: tuple[float, float],
    at_once: int,
) -> None:
    place = trial_share("search", capacity, cpus, gpus)
    assert (place.share.cpus, place.share.gpus) == share
    assert place.at_once == at_once


def test_capacity_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import raysearch.engine._cluster as module

    monkeypatch.setattr(module, "_cuda_devices", lambda: 4)
    assert local_capacity(Wish("auto", cpus=8)) == Capacity(8, 4, "cuda")
    assert local_capacity(Wish("auto", cpus=8, gpus=2)) == Capacity(8, 2, "cuda")
    assert local_capacity(Wish("auto", cpus=8, gpus=0)) == Capacity(8, 0, "cpu")
    assert local_capacity(Wish("cpu", cpus=8)) == Capacity(8, 0, "cpu")
    assert local_capacity(Wish("cpu", cpus=8, gpus=16)) == Capacity(8, 16, "cpu")
    with pytest.raises(RaysearchError, match="--num-gpus 5: this machine has 4 GPUs"):
        local_capacity(Wish("auto", gpus=5))
    monkeypatch.setattr(module, "_cuda_devices", lambda: 0)
    assert local_capacity(Wish("auto", cpus=8)) == Capacity(8, 0, "cpu")
    with pytest.raises(RaysearchError, match="device=cuda: this machine has no GPU"):
        local_capacity(Wish("cuda"))


@pytest.mark.parametrize("error", [ObjectStoreFullError, OutOfDiskError])
def test_an_object_store_without_room_is_one_line(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(ray, "init", asked.update)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with (
        pytest.raises(RaysearchError, match="object store is full"),
        cluster(Wish("cpu", cpus=2)),
    ):
        raise error("of 4 MiB")
    assert asked["address"] == "local"  # not what `ray start` may have left a note of


def test_nothing_of_rays_is_freed_while_ray_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Held:
        """As an `ObjectRef` in a cycle, which only the collector finds."""

    held = Held()
    held.itself = held  # type: ignore[attr-defined]
    known = weakref.ref(held)
    seen = []

    def shutdown() -> None:
        seen.append((known() is None, gc.isenabled()))

    monkeypatch.setattr(ray, "init", lambda **options: None)
    monkeypatch.setattr(ray, "shutdown", shutdown)
    gc.disable()  # so that it is there until the end
    try:
        with cluster(Wish(device="cpu", cpus=1)):
            del held
            gc.enable()
    finally:
        gc.enable()
    assert seen == [(True, False)]
    assert gc.isenabled()


def test_the_environment_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    name = "CUDA_VISIBLE_DEVICES"
    monkeypatch.setattr(ray, "init", lambda **options: seen.append(os.environ[name]))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    for before in (None, "3"):
        monkeypatch.delenv(name, raising=False)
        if before:
            monkeypatch.setenv(name, before)
        with cluster(Wish("cpu", cpus=2, gpus=2)):
            pass
        assert os.environ.get(name) == before
    assert seen == ["0,1", "0,1"]
