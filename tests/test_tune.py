"""Trials on Ray: packing, retries, errors and continuation, with work that costs nothing."""

from __future__ import annotations

import contextlib
import gc
import ipaddress
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from conftest import descendants
from ray import cloudpickle, tune
from ray.exceptions import ObjectStoreFullError, OutOfDiskError

from raysearch.errors import NonFiniteLossError, RaysearchError
from raysearch.tune import (
    Capacity,
    Job,
    Progress,
    Share,
    TrialError,
    Wish,
    cluster,
    local_capacity,
    run_stage,
    trial_share,
)
from raysearch.tune._checkpoints import (
    damaged_checkpoints,
    newest_checkpoint,
    read_progress,
    write_checkpoint,
)

SHARE = Share(cpus=0.5, gpus=0.0, device="cpu")


@pytest.fixture(scope="module", autouse=True)
def _by_value() -> Iterator[None]:
    """Ray's workers cannot import test modules."""
    module = __import__(__name__)
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture(scope="module")
def running() -> Iterator[Capacity]:
    """Ray with two CPUs and eight logical GPUs."""
    with cluster(Wish(device="cpu", cpus=2, gpus=8)) as capacity:
        yield capacity


@dataclass(frozen=True)
class Trial:
    """A trial as stages know it."""

    id: str
    seed: int
    policy: str | None = None

    @property
    def name(self) -> str:
        return self.id.replace("-", " ")


class Count:
    """Adds its seed every epoch; may be told to go wrong once, or always."""

    def __init__(self, seed: int, epochs: int, wrong: Callable[[int], None] | None) -> None:
        self.seed, self.epochs, self.epoch, self.total, self.wrong = seed, epochs, 0, 0, wrong

    def step(self) -> dict[str, float]:
        if self.wrong:
            self.wrong(self.epoch + 1)
        self.epoch += 1
        self.total += self.seed + self.epoch
        return {"total": self.total, "epoch_equivalents": self.epoch}

    def test(self) -> dict[str, float]:
        return {"test_error": 100.0 - self.total}

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "total": self.total}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epoch, self.total = state["epoch"], state["total"]


@dataclass(frozen=True)
class Build:
    """Makes a `Count`."""

    epochs: int = 6
    wrong: Callable[[int], None] | None = None

    def __call__(self, policy: str | None, seed: int) -> Count:
        return Count(seed, self.epochs, self.wrong)


class Notes:
    """Remembers what a stage says."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def stage_started(self, stage: str, trials: int, epochs: int, resumed: int = 0) -> None:
        self.said.append(("stage", stage, trials, resumed))

    def trial_started(self, trial: Trial) -> None:
        self.said.append(("started", trial.id))

    def trial_progress(self, trial: Trial, epoch: int, metrics: Mapping[str, float]) -> None:
        self.said.append(("epoch", trial.id, epoch))

    def trial_finished(self, trial: Trial, error: str | None, metrics: Mapping[str, float]) -> None:
        self.said.append(("finished", trial.id, error))

    def message(self, text: str) -> None:
        self.said.append(("message", text))

    def stage_finished(self, stage: str) -> None:
        self.said.append(("stage finished", stage))

    def of(self, kind: str) -> list[Any]:
        return [entry for entry in self.said if entry[0] == kind]


def stage(folder: Path, build: Build, trials: int = 1, notes: Notes | None = None) -> Any:
    """Run an evaluation stage of fake work."""
    return run_stage(
        "evaluation",
        [Trial(f"count-seed-{seed}", seed) for seed in range(trials)],
        Job(build, SHARE),
        folder=folder,
        epochs=build.epochs,
        max_failures=2,
        watchers=[notes] if notes else [],
    )


def expected(seed: int, epochs: int = 6) -> float:
    return sum(seed + epoch for epoch in range(1, epochs + 1))


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
def test_all_that_is_started_listens_on_loopback_only_and_wants_the_token(
    running: Capacity,
) -> None:
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


def test_trials_report_every_epoch_and_their_end(running: Capacity, tmp_path: Path) -> None:
    notes = Notes()
    outcomes = stage(tmp_path, Build(), trials=3, notes=notes)
    assert [o.progress.metrics["total"] for o in outcomes] == [expected(seed) for seed in range(3)]
    assert [o.progress.metrics["test_error"] for o in outcomes] == [
        100 - expected(seed) for seed in range(3)
    ]
    assert [h["epoch"] for h in outcomes[0].progress.history] == [1, 2, 3, 4, 5, 6]
    assert outcomes[0].progress.wall_seconds > 0
    progress = outcomes[1].progress
    assert progress.device_seconds == pytest.approx(SHARE.cpus * progress.wall_seconds)
    assert len(notes.of("epoch")) == 18
    assert len(notes.of("finished")) == 3
    assert notes.said[0] == ("stage", "evaluation", 3, 0)
    assert notes.said[-1] == ("stage finished", "evaluation")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_has_finished_is_not_run_again(running: Capacity, tmp_path: Path) -> None:
    first = stage(tmp_path, Build(), trials=2)
    notes = Notes()
    again = stage(tmp_path, Build(wrong=_always), trials=2, notes=notes)
    assert again == first
    assert notes.said[0] == ("stage", "evaluation", 2, 2)
    assert not notes.of("started")


def _always(epoch: int) -> None:
    raise RuntimeError("must not run")


@dataclass(frozen=True)
class KillOnce:
    """Kills the worker process with signal 9, the first time that an epoch is reached."""

    mark: str
    epoch: int

    def __call__(self, epoch: int) -> None:
        if epoch == self.epoch and not os.path.exists(self.mark):
            with open(self.mark, "w"):
                pass
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_retried_from_its_last_checkpoint(
    running: Capacity, tmp_path: Path
) -> None:
    notes = Notes()
    build = Build(wrong=KillOnce(str(tmp_path / "mark"), epoch=4))
    (outcome,) = stage(tmp_path / "trials", build, notes=notes)
    assert (tmp_path / "mark").exists()
    assert outcome.progress.metrics["total"] == expected(0)
    assert [h["epoch"] for h in outcome.progress.history] == [1, 2, 3, 4, 5, 6]
    assert [entry[2] for entry in notes.of("epoch")] == [1, 2, 3, 4, 5, 6]
    ((_, text),) = notes.of("message")
    assert "its worker process ended unexpectedly" in text
    assert "retry 1 of 2" in text


@dataclass(frozen=True)
class Diverge:
    """A loss that is not finite at epoch 3; counts how often it is asked."""

    mark: str

    def __call__(self, epoch: int) -> None:
        if epoch == 3:
            with open(self.mark, "a") as file:
                file.write("x")
            raise NonFiniteLossError("training", epoch, 17)


def test_a_loss_that_is_not_finite_is_not_retried(running: Capacity, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with pytest.raises(TrialError) as caught:
        stage(tmp_path / "trials", Build(wrong=Diverge(str(mark))))
    message = str(caught.value)
    assert mark.read_text() == "x"
    assert caught.value.expected
    assert "count seed 0 failed: training: the loss is not finite at epoch 3, step 17" in message
    last = Path(message.partition("last good checkpoint: ")[2].rstrip(")"))
    progress = read_progress(last)
    assert progress is not None
    assert progress.epoch == 2


def test_a_trial_that_dies_too_often_ends_the_stage(running: Capacity, tmp_path: Path) -> None:
    notes = Notes()
    with pytest.raises(TrialError, match="failed after 2 retries: RuntimeError: must not run"):
        stage(tmp_path, Build(wrong=_always), notes=notes)
    assert len(notes.of("message")) == 2
    ((_, _, error),) = notes.of("finished")
    assert error == "RuntimeError: must not run after 2 retries"


def test_work_that_cannot_be_built_is_an_error_at_once(running: Capacity, tmp_path: Path) -> None:
    def refuse(policy: str | None, seed: int) -> Count:
        raise RaysearchError("this data set has no images")

    trials = [Trial("a", 0)]
    with pytest.raises(TrialError, match="a failed: this data set has no images"):
        run_stage("search", trials, Job(refuse, SHARE), folder=tmp_path, epochs=1, max_failures=2)


class Crowd(tune.Trainable):
    """Notes who runs beside it and what it holds; light, so that 32 start quickly."""

    def setup(self, config: dict[str, Any], jobs: Any) -> None:
        self._config, self._folder = config, jobs[config["trial"]["id"]].folder

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._config = new_config
        return True

    def step(self) -> dict[str, Any]:
        name = self._config["trial"]["id"]
        mine = os.path.join(self._folder, "running", name)
        with open(mine, "w"):
            pass
        end = time.monotonic() + 120
        while len(os.listdir(os.path.join(self._folder, "running"))) < 32:
            if time.monotonic() > end or os.path.exists(os.path.join(self._folder, "full")):
                break
            time.sleep(0.1)
        else:
            with open(os.path.join(self._folder, "full"), "w"):
                pass
        beside = len(os.listdir(os.path.join(self._folder, "running")))
        time.sleep(1.0)
        os.remove(mine)
        held = ray.get_runtime_context().get_assigned_resources()
        return {
            "epoch": 1,
            "metrics": {
                "beside": beside,
                "gpu": held.get("GPU", 0.0),
                "cpu": held.get("CPU", 0.0),
                "visible": len(ray.get_gpu_ids()),
            },
            "wall_seconds": 0.0,
            "device_seconds": 0.0,
            "done": True,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        progress = {"epochs": 1, "epoch": 1}
        with open(os.path.join(checkpoint_dir, "progress.json"), "w") as file:
            json.dump(progress, file)


@pytest.mark.slow
def test_eight_logical_gpus_run_32_trials_at_once(
    running: Capacity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raysearch.tune._stage.WorkTrainable", Crowd)
    (tmp_path / "running").mkdir()
    share, at_once = trial_share("search", running, None, 0.25)
    assert at_once == 32
    seen: list[Mapping[str, float]] = []

    class Listen(Notes):
        def trial_progress(self, trial: Trial, epoch: int, metrics: Mapping[str, float]) -> None:
            seen.append(metrics)

    run_stage(
        "search",
        [Trial(f"crowd-{i}", i) for i in range(34)],
        # Nothing of raysearch, for whose sake 32 processes would import PyTorch.
        SimpleNamespace(share=SimpleNamespace(**vars(share)), folder=str(tmp_path)),
        folder=tmp_path / "trials",
        epochs=1,
        max_failures=0,
        watchers=[Listen()],
    )
    assert len(seen) == 34
    assert max(metrics["beside"] for metrics in seen) == 32
    assert {metrics["gpu"] for metrics in seen} == {0.25}
    assert {metrics["visible"] for metrics in seen} == {1}
    assert {metrics["cpu"] for metrics in seen} == {2 / 32}


@pytest.mark.parametrize(
    ("capacity", "cpus", "gpus", "share", "at_once"),
    [
        (Capacity(2, 0, "cpu"), None, None, (1, 0), 2),
        (Capacity(16, 8, "cuda"), None, None, (1, 1), 8),
        (Capacity(16, 8, "cuda"), None, 0.25, (0.5, 0.25), 32),
        (Capacity(64, 8, "cuda"), 2, 0.25, (2, 0.25), 32),
        (Capacity(16, 8, "cuda"), 2, 0.25, (2, 0.25), 8),
        (Capacity(16, 1, "cuda"), None, 0.3, (1, 0.3), 3),
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
    got, count = trial_share("search", capacity, cpus, gpus)
    assert (got.cpus, got.gpus) == share
    assert count == at_once


def test_capacity_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import raysearch.tune._cluster as module

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


def test_the_newest_whole_checkpoint_counts(tmp_path: Path) -> None:
    for attempt, number, epoch in ((1, 6, 7), (1, 7, 8), (2, 0, 9), (2, 1, 10)):
        folder = tmp_path / f"search-{attempt}" / "a" / f"checkpoint_{number:06}"
        folder.mkdir(parents=True)
        history = [{"epoch": float(e + 1)} for e in range(epoch)]
        progress = Progress(epochs=20, epoch=epoch, history=history)
        write_checkpoint(folder, progress, {"epoch": epoch}, None)
    torn = tmp_path / "search-2" / "a" / "checkpoint_000001"
    os.truncate(torn / "state.pt", 10)
    last = tmp_path / "search-2" / "a" / "checkpoint_000002"  # finished, its policy cut short
    last.mkdir()
    write_checkpoint(last, Progress(epochs=20, epoch=20), None, {"format": "raysearch-policy"})
    os.truncate(last / "policy.json", 5)
    found = newest_checkpoint(tmp_path, "search", "a")
    assert found is not None
    assert found[1].epoch == 9
    assert found[0].parent.parent.name == "search-2"
    assert newest_checkpoint(tmp_path, "search", "b") is None
    assert damaged_checkpoints(tmp_path, "search", "a", found[0]) == [torn, last]
    assert damaged_checkpoints(tmp_path, "search", "a", last) == []
