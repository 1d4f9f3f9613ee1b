"""Runs as jobs on a Ray cluster, and the files with which clusters are made.

The slow test starts a real one on this machine, a head and two more nodes with the job server and
token authentication, and submits runs to it: `pytest -m slow tests/test_cluster.py`, three to eight
minutes. It needs `ray[default]`, which the `dev` extra has.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from conftest import ROOT

from raysearch.engine import Capacity, Wish, trial_share
from raysearch.engine._cluster import _cluster_capacity
from raysearch.errors import RaysearchError
from raysearch.experiment._compose import compose, config_dir, groups

MANIFESTS = ROOT / "configs" / "cluster"
SMALL = ["method=dada", "data.limit=200", "seeds=2", "search.epochs=2", "evaluation.epochs=2"]
SMALL = [*SMALL, "evaluation.seeds=2", "evaluation.policies=[predefined,learned]"]


def read(name: str) -> Any:
    return yaml.safe_load((MANIFESTS / name).read_text())


def test_manifests_are_no_group_of_settings() -> None:
    assert MANIFESTS.name not in groups()
    assert {"method", "data", "model", "evaluation", "tracking"} <= set(groups())
    assert (config_dir() / "cluster" / "kuberay.yaml").is_file()
    with pytest.raises(RaysearchError, match="unknown setting 'cluster'"):
        compose(["cluster=aws"])


def test_the_rayjob_is_one() -> None:
    schema = json.loads((Path(__file__).parent / "rayjob.schema.json").read_text())
    job = read("kuberay.yaml")
    jsonschema.Draft202012Validator(schema).validate(job)
    cluster = job["spec"]["rayClusterSpec"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert all(cluster["rayVersion"] == ray.__version__ for _ in pods)
    for pod in (pod["template"]["spec"] for pod in pods):  # every pod mounts what it says it does
        volumes = {volume["name"] for volume in pod["volumes"]}
        mounts = [mount for one in pod["containers"] for mount in one["volumeMounts"]]
        assert {mount["name"] for mount in mounts} == volumes
        assert [mount["mountPath"] for mount in mounts] == ["/shared"]
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["container"] = []
    with pytest.raises(jsonschema.ValidationError, match="'container' was unexpected"):
        jsonschema.Draft202012Validator(schema).validate(job)


def test_the_rayjobs_command_is_one() -> None:
    python, module, program, *settings = read("kuberay.yaml")["spec"]["entrypoint"].split()
    assert (python, module, program) == ("python", "-m", "raysearch.run")
    assert compose(settings).settings.runs_dir.startswith("/shared/")


def test_the_aws_cluster_is_one() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    cluster = read("aws.yaml")
    jsonschema.validate(cluster, schema)
    assert cluster["head_node_type"] in cluster["available_node_types"]
    most = sum(kind.get("max_workers", 0) for kind in cluster["available_node_types"].values())
    assert cluster["max_workers"] == most
    assert f"ray:{ray.__version__}-" in cluster["docker"]["image"]
    assert all((ROOT / path).exists() for path in cluster["file_mounts"].values() if path[0] != "~")


def test_a_job_brings_what_was_tested() -> None:
    from ray.runtime_env import RuntimeEnv

    environment = read("runtime_env.yaml")
    RuntimeEnv(**environment)
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pinned = {line for line in lines if "==" in line and not line.startswith("ray[")}
    assert set(environment["uv"]["packages"]) == pinned


def test_a_job_uploads_little(tmp_path: Path) -> None:
    """What Ray 2.60 leaves out of a working directory: .gitignore, and .git and .venv by itself."""
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import create_package

    for name in (".gitignore", "README.md", "pyproject.toml", "raysearch", "configs"):
        source, copy = ROOT / name, tmp_path / "clone" / name
        copy.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy)
        else:
            shutil.copy(source, copy)
    for name in ("runs/a/trials/x.pt", ".venv/x", ".git/x", "mlflow.db", "mlruns/x", "runs/a/b.pt"):
        (tmp_path / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clone" / name).write_bytes(b"\0" * 2**22)
    package = tmp_path / "package.zip"
    create_package(
        str(tmp_path / "clone"),
        package,
        include_gitignore=True,
        excludes=get_runtime_env_default_excludes(),
    )
    with zipfile.ZipFile(package) as archive:
        names = set(archive.namelist())
    assert "raysearch/run.py" in names
    assert "configs/method/dada.yaml" in names
    assert not [n for n in names if n.split("/")[0] in ("runs", ".venv", ".git", "mlruns")]
    assert "mlflow.db" not in names
    assert package.stat().st_size < 2**21


def node(cpus: float, gpus: float = 0) -> dict[str, Any]:
    return {"Resources": {"CPU": cpus, "GPU": gpus}}


def test_trials_fit_on_nodes_not_on_their_sum() -> None:
    cpu = _cluster_capacity(Wish("cpu"), [node(3), node(3), node(1)])
    assert cpu.cpus == 7
    assert trial_share("search", cpu, 2, None).at_once == 2
    assert trial_share("search", cpu, 1, None).at_once == 7
    with pytest.raises(RaysearchError, match="no node of the cluster has that"):
        trial_share("search", cpu, 4, None)
    limited = _cluster_capacity(Wish("cpu", cpus=2), [node(3), node(3)])
    assert trial_share("search", limited, 1, None).at_once == 2
    gpu = _cluster_capacity(Wish("auto"), [node(4), node(2, 2)])
    assert gpu.device == "cuda"
    assert trial_share("search", gpu, 1, 0.5).at_once == 2  # that node has two cores
    one = Capacity(4, 1, "cuda")
    assert trial_share("search", one, 1, 0.25).at_once == 4


class Cluster:
    """A head without CPUs for trials, and two nodes with one each, as `ray start` makes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token = secrets.token_hex(32)
        # Each node has a place of its own, as on machines of their own: every node that unpacks a
        # job's working directory begins by removing what is there. A socket's path is short.
        self.place = Path(tempfile.mkdtemp(prefix="rs", dir="/tmp"))
        self.processes: list[subprocess.Popen[bytes]] = []
        keep = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**keep, "PATH": binaries, "RAY_AUTH_TOKEN": self.token}
        self.environment |= {"RAY_AUTH_MODE": "token", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
        self.environment.pop("PYTHONPATH", None)  # the package is to come with the job
        gcs, dashboard, self.mlflow_port = free_ports(3)
        self.address, self.jobs = f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}"
        head = ["--head", f"--port={gcs}", f"--dashboard-port={dashboard}", "--num-cpus=0"]
        self._start("head", [*head, "--include-dashboard=true"])
        for name in ("a", "b"):
            self._start(name, [f"--address={self.address}", "--num-cpus=1"])

    def ray(self, *arguments: str, seconds: float = 500) -> subprocess.CompletedProcess[str]:
        """Ray's command line."""
        return subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", *arguments],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def submit(
        self, name: str, settings: Sequence[str], *flags: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Submit a run as the README says."""
        where = ["--address", self.jobs, "--submission-id", name]
        more = ["--runtime-env-json", json.dumps({"env_vars": environment})] if environment else []
        run = ["python", "-m", "raysearch.run", *settings]
        return self.ray("job", "submit", *where, *more, *flags, "--working-dir", ".", "--", *run)

    def logs(self, name: str) -> str:
        """What a job has printed so far."""
        return self.ray("job", "logs", "--address", self.jobs, name).stdout

    def nodes_of_trials(self) -> list[set[str]]:
        """The nodes that the trials of each job ran on, in the order of the jobs."""
        listed = self.ray("list", "actors", "--address", self.jobs, "--format=json", "--limit=1000")
        by_job: dict[str, set[str]] = {}
        for actor in json.loads(listed.stdout[listed.stdout.index("[") :]):
            if "Trainable" in actor["class_name"] and actor["node_id"]:  # None: never placed
                by_job.setdefault(actor["job_id"], set()).add(actor["node_id"])
        return [by_job[job] for job in sorted(by_job)]

    def mlflow(self) -> tuple[str, Path]:
        """Start an MLflow server; its address, and its data base."""
        place = self.folder / "mlflow-server"
        place.mkdir()
        store = f"sqlite:///{place / 'mlflow.db'}"
        where = ["--host", "127.0.0.1", "--port", str(self.mlflow_port), "--workers", "1"]
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, *where]
        command += ["--artifacts-destination", str(place / "artifacts")]
        self._popen("mlflow", command, {**self.environment, "MLFLOW_DISABLE_TELEMETRY": "true"})
        address = f"http://127.0.0.1:{self.mlflow_port}"
        self._wait_for(lambda: answers(f"{address}/health"), "mlflow")
        return address, place / "mlflow.db"

    def stop(self) -> None:
        """End every process that was started here."""
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(self.place, ignore_errors=True)

    def _start(self, name: str, arguments: Sequence[str]) -> None:
        common = ["--block", "--disable-usage-stats", f"--object-store-memory={128 * 2**20}"]
        common.append(f"--temp-dir={self.place / name}")
        common.append(f"--dashboard-agent-listen-port={free_ports(1)[0]}")  # one a node and machine
        ports = ["--node-ip-address=127.0.0.1", "--min-worker-port=0", "--max-worker-port=0"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments]
        log = self._popen(name, [*command, *common, *ports], self.environment)
        self._wait_for(lambda: "Ray runtime started" in log.read_text(), name)

    def _popen(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Path:
        log = self.folder / f"{name}.log"
        with log.open("wb") as file:
            self.processes.append(
                subprocess.Popen(
                    command,
                    env=dict(environment),
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
        return log

    def _wait_for(self, condition: Any, name: str) -> None:
        end = time.monotonic() + 120
        while not condition():
            log = (self.folder / f"{name}.log").read_text()
            assert self.processes[-1].poll() is None, log
            assert time.monotonic() < end, log
            time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [one.getsockname()[1] for one in sockets]


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running cluster."""
    pytest.importorskip("aiohttp_cors", reason="ray[default], which has the job server")
    started = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield started
    finally:
        started.stop()


def wait_until(what: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(1)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_as_a_job(cluster: Cluster) -> None:
    results = cluster.folder / "results"
    uri, database = cluster.mlflow()
    tracked = [f"tracking.uri={uri}", f"storage={results}", "name=good"]
    done = cluster.submit("good", [*SMALL, *tracked])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "planned: 2 searches" in done.stdout  # progress, as plain lines
    assert "6 of 6 trials done" in done.stdout
    assert f"results copied to {results}/good" in done.stdout
    assert "\x1b[" not in done.stdout.split("planned: 2 searches")[1].split("results copied")[0]
    assert len(cluster.nodes_of_trials()[0]) == 2

    run = results / "good"
    assert json.loads((run / "run.json").read_text())["status"] == "complete"
    here = {path.name for path in run.iterdir()}
    assert here >= {"report.html", "policy.json", "summary.json", "history.parquet", "config.yaml"}
    assert not here & {"trials", ".lock"}
    with sqlite3.connect(database) as store:
        assert store.execute("SELECT count(*) FROM runs WHERE status = 'FINISHED'").fetchone() == (
            1 + 2 + 4,
        )
    said = [path for path in results.rglob("*") if path.is_file()]
    for path in [*said, *(database.parent).rglob("*.*")]:
        assert path.is_dir() or cluster.token.encode() not in path.read_bytes(), path
    assert cluster.token not in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_mistake_in_a_job_is_one_line_and_an_exit_code(cluster: Cluster) -> None:
    wrong = cluster.submit("wrong", ["method=dadaa"])
    assert wrong.returncode == 1  # Ray's, whatever the job's
    assert "exit code 2" in wrong.stdout
    lines = cluster.logs("wrong").splitlines()
    assert [line for line in lines if "unknown method 'dadaa': did you mean 'dada'" in line]
    assert not [line for line in lines if "Traceback" in line]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_that_is_stopped_leaves_what_it_has_and_goes_on(cluster: Cluster) -> None:
    results, runs = cluster.folder / "stopped", cluster.folder / "shared-runs"
    settings = [*SMALL, "name=long", f"runs_dir={runs}", f"storage={results}", "tracking=none"]
    settings[settings.index("search.epochs=2")] = "search.epochs=300"
    patient = {"RAY_JOB_STOP_WAIT_TIME_S": "60"}
    assert cluster.submit("long", settings, "--no-wait", **patient).returncode == 0
    wait_until(lambda: list(runs.glob("long/trials/search-*/search/checkpoint_*/progress.json")))
    assert cluster.ray("job", "stop", "--address", cluster.jobs, "long").returncode == 0
    assert json.loads((results / "long" / "run.json").read_text())["status"] == "interrupted"
    assert not (results / "long" / "trials").exists()
    assert "--resume" in cluster.logs("long")

    done = cluster.submit("resumed", ["--resume", str(runs / "long")])
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((results / "long" / "run.json").read_text())["status"] == "complete"
    assert (results / "long" / "report.html").exists()
