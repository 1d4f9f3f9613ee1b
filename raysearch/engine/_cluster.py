"""Ray itself: started here for a run, or found running; and what a trial may hold of it."""

from __future__ import annotations

import gc
import logging
import math
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import raysearch
from raysearch.engine._entries import Place, Share
from raysearch.engine._machine import check_memory, ray_folder
from raysearch.errors import RaysearchError
from raysearch.machine import bypass_proxies, usable_cpus

# Set before Ray is imported or started; what the user has set stays.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean the same in trials as on the driver
    "RAY_worker_niceness": "0",  # 15 otherwise: half the speed beside any other process
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # histories are in the checkpoints
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # A signal ends a run at once, as kill -9 would: Tune's last words wait a minute for a Ray that
    # has had the signal too.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Tune's own state is not used to continue a run
    "RAY_AIR_NEW_OUTPUT": "0",
}
JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set in the driver of a submitted job
STORE_BYTES = 256 * 2**20  # of Ray's object store, beside what is known to go there


@dataclass(frozen=True)
class Wish:
    """What the user asked for.

    Attributes:
        device: "auto", "cpu" or "cuda".
        cpus: CPU cores to use; None is all.
        gpus: GPUs to use; None is all there are (none on device "cpu").
        address: of a running Ray cluster, or None to start Ray here.
    """

    device: str
    cpus: int | None = None
    gpus: int | None = None
    address: str | None = None


@dataclass(frozen=True)
class Capacity:
    """What trials may share.

    Attributes:
        cpus: CPU cores.
        gpus: GPUs.
        device: "cpu" or "cuda": what they compute on.
        nodes: CPU cores and GPUs of each node, where there are several; a trial has to fit on one.
    """

    cpus: float
    gpus: float
    device: str
    nodes: tuple[tuple[float, float], ...] = ()


def local_capacity(wish: Wish) -> Capacity:
    """What this machine gives, without starting Ray.

    With device "cpu" said explicitly, GPUs are counted but not used: they are Ray's logical
    GPUs, which is how packing is tested without any.

    Raises:
        RaysearchError: GPUs are asked for that are not there.
    """
    cpus = wish.cpus if wish.cpus is not None else usable_cpus()
    if _wants_gpus(wish):
        return _with_gpus(wish, cpus, _cuda_devices(), "this machine")
    return Capacity(cpus, wish.gpus or 0, "cpu")


def _wants_gpus(wish: Wish) -> bool:
    if wish.device == "cuda" and wish.gpus == 0:
        raise RaysearchError("device=cuda needs a GPU, but --num-gpus 0 forbids them")
    return wish.device != "cpu" and wish.gpus != 0


def _with_gpus(wish: Wish, cpus: float, present: float, where: str) -> Capacity:
    wanted = wish.gpus if wish.gpus is not None else present
    if wanted > present:
        raise RaysearchError(
            f"--num-gpus {wanted:g}: {where} has {_count(present)} that PyTorch can use; "
            "ask for fewer, or set device=cpu to run on the CPU"
        )
    if wish.device == "cuda" and not wanted:
        raise RaysearchError(
            f"device=cuda: {where} has no GPU that PyTorch can use; set device=cpu or device=auto"
        )
    return Capacity(cpus, wanted, "cuda" if wanted else "cpu")


def _count(gpus: float) -> str:
    return {0: "no GPU", 1: "1 GPU"}.get(int(gpus), f"{gpus:g} GPUs")


def _cuda_devices() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


@contextmanager
def cluster(wish: Wish, store_bytes: int = 0, folder: Path | None = None) -> Iterator[Capacity]:
    """Ray, running; what was started here is stopped at the end.

    Args:
        wish: see `Wish`.
        store_bytes: size of what will be put into the object store.
        folder: the run's; trials leave their checkpoints in it.

    Raises:
        RaysearchError: the cluster does not answer within seconds, has no such GPUs, or has a
            node that cannot run a trial or does not see `folder`; or, from what is inside, its
            object store is full.
    """
    _prepare_environment(own_cluster=wish.address is None)
    import ray

    try:
        capacity = _start_here(wish, store_bytes) if wish.address is None else _join(wish, folder)
        try:
            yield capacity
        except (ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError) as error:
            raise RaysearchError(
                "Ray's object store is full, and cannot move anything to the disk: end what else "
                "uses the cluster, or start it with a larger --object-store-memory"
            ) from error
    finally:
        _shut_down()


def _start_here(wish: Wish, store_bytes: int) -> Capacity:
    """Start a Ray of this machine's own; raises RaysearchError."""
    from raysearch.engine._ray import on_loopback

    capacity, memory = local_capacity(wish), STORE_BYTES + store_bytes
    check_memory(memory)
    with ExitStack() as starting:  # what holds while Ray starts
        starting.enter_context(on_loopback())
        if capacity.device == "cpu":
            # Logical GPUs at most: the real ones are hidden, and Ray sees as many as it needs.
            visible = ",".join(str(gpu) for gpu in range(int(capacity.gpus)))
            starting.enter_context(_environment("CUDA_VISIBLE_DEVICES", visible))
        _connect(
            wish,
            address="local",  # not one that `ray start` has left a note of on this machine
            num_cpus=capacity.cpus,
            num_gpus=capacity.gpus,
            include_dashboard=False,
            object_store_memory=memory,
            _temp_dir=ray_folder(),
        )
    return capacity


def _join(wish: Wish, folder: Path | None) -> Capacity:
    """Use a cluster that is running, once its nodes are found to do; raises RaysearchError."""
    import ray

    options: dict[str, Any] = {}
    if JOB not in os.environ:  # a job's working directory has the package already
        options["runtime_env"] = {"py_modules": [str(Path(raysearch.__file__).parent)]}
    _connect(wish, address=wish.address, **options)
    known = ray.nodes()  # type: ignore[no-untyped-call]
    nodes = [node for node in known if node["Alive"] and node["Resources"].get("CPU")]
    capacity = _cluster_capacity(wish, nodes)
    if folder is not None:
        _check_nodes(nodes, folder)
    return capacity


def _connect(wish: Wish, **options: Any) -> None:
    """`ray.init`, whose failure is one line."""
    import ray

    from raysearch.engine._ray import no_uv_hook

    try:
        with no_uv_hook():
            ray.init(log_to_driver=False, logging_level=logging.WARNING, **options)
    except Exception as error:
        raise _cannot_start(wish, error) from error


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """A variable of the environment, as it was afterwards."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _shut_down() -> None:
    """End Ray, while nobody frees what Ray holds.

    Where Python collects garbage that a Ray object is part of, in whatever thread, while Ray's own
    part of this process ends, Ray ends the process: exit code 1, and not a word.
    """
    import ray

    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        if enabled:
            gc.enable()


def _prepare_environment(own_cluster: bool) -> None:
    """What Ray's processes inherit: its settings, and where this package is imported from."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    bypass_proxies()
    here = str(Path(raysearch.__file__).resolve().parents[1])
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if here not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([here, *paths])
    if own_cluster:  # a token of its own, else Ray writes one to ~/.ray
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _cannot_start(wish: Wish, error: Exception) -> RaysearchError:
    from ray.exceptions import AuthenticationError

    reason = _lines(error)[0]
    if wish.address is None:
        return RaysearchError(f"Ray cannot be started: {reason}")
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, AuthenticationError) or AuthenticationError.__name__ in str(cause):
            reason = "it wants a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to the token"
        cause = cause.__cause__
    return RaysearchError(f"the Ray cluster at {wish.address} cannot be reached: {reason}")


def _cluster_capacity(wish: Wish, nodes: Sequence[Mapping[str, Any]]) -> Capacity:
    """What the nodes, as Ray describes them, give together, as far as it is asked for."""
    each = tuple((n["Resources"].get("CPU", 0.0), n["Resources"].get("GPU", 0.0)) for n in nodes)
    cpus = min(sum(cpus for cpus, _ in each), math.inf if wish.cpus is None else wish.cpus)
    gpus = sum(gpus for _, gpus in each)
    if _wants_gpus(wish):
        return replace(_with_gpus(wish, cpus, gpus, "the cluster"), nodes=each)
    if (wish.gpus or 0) > gpus:
        raise RaysearchError(f"--num-gpus {wish.gpus}: the cluster has {_count(gpus)}")
    return Capacity(cpus, wish.gpus or 0, "cpu", each)


def _check_nodes(nodes: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Find out now, not in the first trial, that a node cannot do its part.

    Raises:
        RaysearchError: a package is missing there, or it does not see the run's folder.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    mark = folder.resolve() / f".seen-{secrets.token_hex(8)}"
    look = ray.remote(num_cpus=0)(_sees)
    mark.touch()
    try:
        asked = []
        for node in (node for node in nodes if node["NodeID"] != here):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            answer = look.options(scheduling_strategy=there).remote(str(mark))
            asked.append((node["NodeManagerAddress"], answer))
        for address, answer in asked:
            try:
                sees = ray.get(answer)
            except Exception as error:  # whatever is wrong with a node
                raise RaysearchError(
                    f"node {address} cannot run trials: {_lines(error)[-1]} "
                    "(all nodes need raysearch's dependencies)"
                ) from error
            if not sees:
                raise RaysearchError(
                    f"node {address} does not see the run's folder {mark.parent}: "
                    "set runs_dir to a folder on storage that all nodes share"
                )
    finally:
        mark.unlink(missing_ok=True)


def _sees(path: str) -> bool:
    """Whether this node has a file. To be asked, it has to import this package."""
    return Path(path).exists()


def _lines(error: BaseException) -> list[str]:
    """What an exception says; what a remote process says comes down to the last of its lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines or [type(error).__name__]


def trial_share(stage: str, capacity: Capacity, cpus: float | None, gpus: float | None) -> Place:
    """What each trial of a stage holds, and how many run at once.

    Args:
        stage: whose settings these are, for messages: "search", "finetune" or "evaluation".
        capacity: what there is to share.
        cpus: cpus_per_trial; None is the CPUs' share that goes with the trial's GPUs, else 1.
        gpus: gpus_per_trial, in [0, 1]; None is 1 where the run has GPUs, else 0.

    Raises:
        RaysearchError: not even one trial fits.
    """
    if gpus is None:
        gpus = 1.0 if capacity.gpus else 0.0
    if gpus and not capacity.gpus:
        raise RaysearchError(
            f"{stage}.gpus_per_trial={gpus:g}: the run has no GPU; "
            "leave it out, or ask for GPUs with --num-gpus"
        )
    if capacity.device == "cuda" and not gpus:
        raise RaysearchError(
            f"{stage}.gpus_per_trial=0: trials on the GPU need a share of one; "
            "set device=cpu to train on the CPU"
        )
    if cpus is None:
        cpus = _cpus_beside(capacity, int(1 / gpus + 1e-6)) if gpus else min(1.0, capacity.cpus)
    if cpus > capacity.cpus:
        raise RaysearchError(
            f"{stage}.cpus_per_trial={cpus:g}: the run has {capacity.cpus:g} CPUs; "
            "set it lower, or --num-cpus higher"
        )
    together = (capacity.cpus, capacity.gpus)
    by_node = sum(_fit(node, cpus, gpus) for node in capacity.nodes or [together])
    if not by_node:
        raise RaysearchError(
            f"{stage}: a trial needs {cpus:g} CPUs and {gpus:g} GPUs of one node, and no node "
            f"of the cluster has that; set {stage}.cpus_per_trial or .gpus_per_trial lower"
        )
    at_once = min(_fit(together, cpus, gpus), by_node)
    return Place(Share(cpus, gpus, capacity.device), at_once)


def _cpus_beside(capacity: Capacity, per_gpu: int) -> float:
    """The CPUs that go with a trial's share of a GPU: of the node that has the fewest for each.

    Args:
        capacity: what there is to share.
        per_gpu: trials that share a GPU.
    """
    nodes = [node for node in capacity.nodes if node[1] >= 1] or [(capacity.cpus, capacity.gpus)]
    each = min(min(cpus, capacity.cpus) / (int(gpus) * per_gpu) for cpus, gpus in nodes)
    each = min(each, capacity.cpus / (int(capacity.gpus) * per_gpu))
    whole = math.floor(each + 1e-6)
    return float(whole) if whole >= 1 else math.floor(1e4 * each) / 1e4


def _fit(node: tuple[float, float], cpus: float, gpus: float) -> int:
    """Trials that a node has room for, each with so many CPUs and a share of a GPU."""
    by_cpu = int(node[0] / cpus + 1e-6)
    return min(by_cpu, int(node[1]) * int(1 / gpus + 1e-6)) if gpus else by_cpu
