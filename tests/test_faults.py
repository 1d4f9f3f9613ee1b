"""Everything that may break does, to real runs: nothing is lost, half-written or counted twice.

`pytest -m faults`; prints a table of what each fault cost at the end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from _faults import (
    BY_THE_SECOND,
    METHODS,
    PATIENCE,
    ROUND,
    Case,
    Cluster,
    Faulty,
    Reference,
    Row,
    check_files,
    check_no_processes,
    fill,
    free_port,
    result_of,
    small_disk,
)
from conftest import wait_for
from rich.console import Console
from rich.table import Table

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def temporary() -> Iterator[Path]:
    """Where Ray's sessions go; its sockets want a short path."""
    with tempfile.TemporaryDirectory(prefix="rs", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def reference(
    temporary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Reference]:
    """The run of a method that nobody disturbs."""

    @cache
    def undisturbed(method: str) -> Reference:
        cli = Faulty(tmp_path_factory.mktemp(method), temporary, method)
        try:
            process = cli.begin()
            _, err = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, err
            check_no_processes(cli)
            check_files(cli.path, complete=True)
            return Reference(result_of(cli.path), cli.epochs())
        finally:
            cli.stop_all()

    return undisturbed


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest) -> Iterator[list[Row]]:
    """The table, printed when all faults have been done."""
    found: list[Row] = []
    yield found
    table = Table("fault", "method", "outcome", "epochs computed again", "seconds")
    for row in found:
        again = f"{row.recomputed} of {row.of}" if row.outcome else ""
        outcome = row.outcome or "FAILED"
        table.add_row(row.fault, row.method, outcome, again, f"{row.seconds:.0f}")
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        console = Console(width=None if sys.stdout.isatty() else 120)
        console.print()
        console.print(table)


Make = Callable[[str, str], Case]
KILLED = (*METHODS, BY_THE_SECOND)
SHAPES = ("dada", "aws", "randaugment")  # for what is the same for all searches in rounds
AUTHORISED = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "faults" * 8}


@pytest.fixture
def case(
    reference: Callable[[str], Reference], temporary: Path, tmp_path: Path, rows: list[Row]
) -> Iterator[Make]:
    """Makes a test's case of a fault and a method; afterwards none of its processes is left."""
    made: list[Case] = []

    def make(fault: str, method: str) -> Case:
        undisturbed = reference(method)
        one = Case(Faulty(tmp_path, temporary, method), undisturbed, Row(fault, method))
        one.row.seconds = -time.monotonic()
        rows.append(one.row)
        made.append(one)
        return one

    yield make
    for one in made:
        one.row.seconds += time.monotonic()
        one.cli.stop_all()


def ended(process: subprocess.Popen[str], seconds: float = PATIENCE) -> tuple[int, str, str]:
    """Exit code and what was said."""
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


@pytest.mark.parametrize("method", KILLED)
def test_a_killed_worker(case: Make, method: str) -> None:
    one = case("kill -9 of a worker", method)
    process = one.cli.begin(cpus=2)
    one.cli.wait(process, done=2)
    os.kill(one.cli.workers()[0], signal.SIGKILL)
    code, out, err = ended(process)
    assert code == 0, err
    assert "its worker process ended unexpectedly" in out
    check_no_processes(one.cli)
    one.check("went on", recomputed=one.reference.epochs // 4)


def begun(cli: Faulty) -> int:
    """On how many of two nodes something has been computed."""
    if cli.method != "dada":
        return 2 * (cli.done() >= 3)
    trials = {path.parent for path in cli.path.glob("trials/search-*/search/checkpoint_*")}
    return len(trials)


@pytest.mark.parametrize("method", KILLED)
def test_a_killed_node(case: Make, method: str) -> None:
    one = case("kill -9 of a node", method)
    one.cli.environment |= AUTHORISED
    cluster = Cluster(one.cli)
    cluster.add()
    cluster.add()
    one.cli.extra = ["--address", cluster.address]
    process = one.cli.begin(cpus=2)
    wait_for(lambda: begun(one.cli) == 2, process, PATIENCE)
    assert set(cluster.of_node(1)) & set(one.cli.workers())
    cluster.kill(1)
    code, out, err = ended(process)
    assert code == 0, err
    assert " died (" in out
    cluster.kill(0)
    check_no_processes(one.cli)
    one.check("went on with the other", recomputed=one.reference.epochs // 4)


@pytest.mark.parametrize("method", KILLED)
def test_a_killed_driver(case: Make, method: str) -> None:
    one = case("kill -9 of the driver, twice", method)
    for begin in (one.cli.begin, one.cli.resume):
        process = begin()
        one.cli.wait(process, one.cli.done() + 2)
        process.kill()
        process.communicate()
        check_no_processes(one.cli, except_for="Agent")  # which notice after a minute
    (one.cli.path / ".policy.json.half_000").write_text("{")  # as if it had been writing
    one.cli.finish()
    check_no_processes(one.cli, except_for="Agent")
    one.check("resumed", recomputed=one.reference.epochs // 2)


@pytest.mark.parametrize("method", SHAPES)
def test_a_killed_mlflow_server(case: Make, method: str) -> None:
    one = case("kill -9 of the MLflow server", method)
    port = free_port()
    address = f"http://127.0.0.1:{port}"

    def serve() -> subprocess.Popen[str]:
        server = one.cli.spawn(
            str(Path(sys.executable).with_name("mlflow")),
            *("server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
            *("--backend-store-uri", "sqlite:///server.db"),
            *("--artifacts-destination", "artifacts", "--uvicorn-opts", "--log-level=warning"),
        )
        wait_for(lambda: answers(f"{address}/health"), server, PATIENCE)
        return server

    server = serve()
    process = one.cli.begin("tracking=mlflow", f"tracking.uri={address}")
    one.cli.wait(process, done=2)
    os.killpg(server.pid, signal.SIGKILL)
    server = serve()
    code, out, err = ended(process)
    assert code == 0, err
    assert out.count("does not take values (no answer); the run goes on and tries again") == 1
    assert "is incomplete" not in out
    check_logged(address, one)
    os.killpg(server.pid, signal.SIGKILL)
    check_no_processes(one.cli)
    one.check("went on, no gap there", recomputed=0)


def answers(url: str) -> bool:
    """Whether a server does, and says that all is well."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def check_logged(address: str, one: Case) -> None:
    """MLflow has the last epoch of every trial, others once, and all have ended well."""
    from mlflow import MlflowClient

    client = MlflowClient(address)
    run_id = json.loads((one.cli.path / "run.json").read_text())["mlflow"][one.cli.method]
    parent = client.get_run(run_id)
    runs = client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'"
    )
    assert {run.info.status for run in (parent, *runs)} == {"FINISHED"}
    logged = {
        run.info.run_name: [m.value for m in client.get_metric_history(run.info.run_id, "epoch")]
        for run in runs
    }
    expected: dict[str, list[float]] = {}
    for record in one.reference.result["history"]:
        expected.setdefault(record["name"], []).append(record["epoch"])
    assert logged.keys() == expected.keys()
    for name, epochs in logged.items():
        assert epochs == sorted(set(epochs) & set(expected[name]))  # of short ones not all are
        assert epochs[-1] == expected[name][-1]


@pytest.mark.parametrize("method", SHAPES)
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(case: Make, method: str, number: signal.Signals, times: int) -> None:
    one = case(f"{number.name}, {'once' if times == 1 else 'twice'}", method)
    process = one.cli.begin()
    one.cli.wait(process, done=2)
    for _ in range(times):
        os.killpg(process.pid, number)  # as a terminal's Ctrl-C goes to all of the group
        time.sleep(0.3)
    code, _, err = ended(process)
    assert code == 128 + number
    assert err.splitlines() == [
        f"stopped; runs/{method} keeps what was done, --resume runs/{method} continues it"
    ]
    check_no_processes(one.cli)
    check_files(one.cli.path, complete=False)
    assert json.loads((one.cli.path / "run.json").read_text())["status"] == "interrupted"
    one.cli.finish()
    one.check(f"exit {code}, resumed", recomputed=one.reference.epochs // 4)


@pytest.mark.parametrize("method", METHODS)
def test_a_full_disk(case: Make, method: str) -> None:
    one = case("disk full at a checkpoint", method)
    (one.cli.folder / "runs").mkdir()
    with small_disk(one.cli.folder / "runs", "64m"):
        process = one.cli.begin()
        one.cli.wait(process, done=2)
        filler = fill(one.cli.folder / "runs")
        code, _, err = ended(process)
        assert code == 2, err
        assert "no space left" in err
        assert err.count("\n") == 1
        check_no_processes(one.cli)
        filler.unlink()
        check_files(one.cli.path, complete=False)
        assert not list((one.cli.folder / "tmp").iterdir())
        one.cli.finish()
        one.check("exit 2, resumed", recomputed=one.reference.epochs // 2)


@pytest.mark.parametrize("method", METHODS)
def test_a_truncated_checkpoint(case: Make, method: str) -> None:
    one = case("newest checkpoint truncated", method)
    process = one.cli.begin()
    one.cli.wait(process, done=2 * ROUND.get(method, 1) + 1)  # two rounds' states are kept
    process.kill()
    process.communicate()
    state = newest_state(one.cli)
    os.truncate(state, state.stat().st_size // 2)
    assert " is damaged; it goes on from " in one.cli.finish()
    one.check("said; the one before it used", recomputed=one.reference.epochs // 2)


def newest_state(cli: Faulty) -> Path:
    """The file from which a search would go on."""
    if cli.method != "dada":
        return cli.path / "trials" / f"search-{cli.method}-seed-0" / "state.pt"
    found = cli.path.glob("trials/search-dada-seed-0/search/checkpoint_*/state.pt")
    return max(found, key=lambda path: path.parent.name)


@pytest.mark.parametrize(
    ("method", "jump"), [("dada", 3600.0), ("aws", -3600.0), ("randaugment", 3600.0)]
)
def test_a_clock_that_jumps(case: Make, method: str, jump: float) -> None:
    one = case(f"clock jumps by {jump / 3600:+.0f} h", method)
    one.cli.shift_clock(0.0)
    process = one.cli.begin()
    one.cli.wait(process, done=2)
    one.cli.shift_clock(jump)
    one.cli.wait(process, done=4)
    process.kill()
    process.communicate()
    one.cli.shift_clock(-jump)
    one.cli.finish()
    summary = json.loads((one.cli.path / "summary.json").read_text())
    times = [
        *summary["wall_seconds"].values(),
        *(summary["search"][key] for key in ("wall_seconds", "device_seconds")),
        *(part["wall_seconds"] for part in summary["evaluations"].values()),
    ]
    assert all(0 < seconds < 3000 for seconds in times), times
    one.check("seconds are right", recomputed=one.reference.epochs // 2)


def test_two_runs_at_once_with_one_name(case: Make) -> None:
    one = case("two runs at once with one name", "dada")
    both = [one.cli.begin(), one.cli.begin()]
    results = sorted(ended(process) for process in both)
    assert [code for code, _, _ in results] == [0, 2], results
    said = results[1][2]
    assert "runs/dada exists already" in said or "still going on in another process" in said
    assert said.count("\n") == 1
    check_no_processes(one.cli)
    one.check("one runs, the other exits 2", recomputed=0)


FILLER = """
import sys, time
import numpy, ray
ray.init(address=sys.argv[1], log_to_driver=False)
kept = [ray.put(numpy.zeros(2**22, numpy.uint8)) for _ in range(30)]
seen = [ray.get(one) for one in kept]  # Ray moves nothing of what is being looked at
print("full", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("method", SHAPES)
def test_a_full_object_store(case: Make, method: str) -> None:
    one = case("object store full", method)
    one.cli.environment |= AUTHORISED
    cluster = Cluster(one.cli)
    cluster.add("--object-store-memory", str(80 * 10**6))
    filler = one.cli.spawn(sys.executable, "-c", FILLER, cluster.address)
    assert filler.stdout is not None
    assert filler.stdout.readline() == "full\n"
    one.cli.extra = ["--address", cluster.address]
    code, _, err = ended(one.cli.begin())
    assert code == 0, err
    assert filler.poll() is None
    filler.kill()
    cluster.kill(0)
    check_no_processes(one.cli)
    one.check("went on, Ray used the disk", recomputed=0)
