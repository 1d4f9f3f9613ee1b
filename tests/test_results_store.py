"""MLflow's store: opened by any number of runs at once, and what is said when it cannot be."""

from __future__ import annotations

import errno
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, wait_for

from raysearch.errors import RaysearchError
from raysearch.experiment._experiment import compose_experiment, compose_run
from raysearch.experiment._tracking import PASSWORD, USER, chosen
from raysearch.results import Tracker, read_experiment
from raysearch.results.mlflow import _database, _store
from raysearch.results.mlflow._reasons import reason
from raysearch.results.mlflow._store import Store

MLFLOW = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", USER, PASSWORD)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MLFLOW:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def other_server() -> Iterator[str]:
    """Speaks HTTP, but is no MLflow server."""
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def one_line_error(uri: str) -> str:
    start = time.monotonic()
    with pytest.raises(RaysearchError) as caught:
        Tracker(uri, "raysearch", "demo", {})
    assert time.monotonic() - start < 20
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_server_that_is_not_there_is_one_line_within_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert f"http://127.0.0.1:{port} does not answer" in one_line_error(f"http://127.0.0.1:{port}")


def test_a_server_that_says_nothing_is_one_line_within_seconds(
    silent_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_store, "CHECK_SECONDS", 1)
    assert f"{silent_server} does not answer" in one_line_error(silent_server)


def test_a_server_of_another_kind_is_named(other_server: str) -> None:
    assert "is no MLflow server" in one_line_error(other_server)


def test_a_corrupt_data_base_is_one_line_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"not a data base, but long enough to be looked at" * 100)
    before = path.read_bytes()
    assert str(path) in one_line_error(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_data_base_in_no_folder_or_that_is_one(tmp_path: Path) -> None:
    assert "does not exist" in one_line_error(f"sqlite:///{tmp_path / 'nowhere' / 'mlflow.db'}")
    assert "is a folder" in one_line_error(f"sqlite:///{tmp_path}")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_leaves_nothing_behind() -> None:
    assert "cannot be used" in one_line_error("sqlite:////proc/mlflow.db")


@contextmanager
def answering(status: int, body: str) -> Iterator[str]:
    """A server that says the same to everything."""
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


SIGN_IN = "<html><body>Please sign in</body></html>"
DENIED = json.dumps({"error_code": "PERMISSION_DENIED", "message": "no"})


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, "You are not authenticated.", "asks who you are (401): set MLFLOW_TRACKING_USERNAME"),
        (403, "Invalid Host header", "does not let you in (403: Invalid Host header): ask"),
        (403, DENIED, "does not let you in (403): ask for the permission"),
        (403, SIGN_IN, "does not let you in (403): ask for the permission"),
        (404, SIGN_IN, "answers, but is no MLflow server (404)"),
        (500, "out of memory", "has failed inside (500): its log says why"),
        (502, SIGN_IN, "gets no further than the proxy before it (502)"),
        (503, SIGN_IN, "is not ready (503)"),
        (200, SIGN_IN, "answers, but is no MLflow server (not with JSON)"),
    ],
)
def test_an_answer_that_says_no_is_not_called_silence(
    status: int, body: str, expected: str
) -> None:
    with answering(status, body) as uri:
        said = one_line_error(uri)
    assert said.startswith(f"MLflow at {uri} {expected}")
    assert "<" not in said


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("localhost:5000", "tracking.uri=localhost:5000 is no address: expected http://HOST:PORT"),
        ("127.0.0.1:5000", "tracking.uri=127.0.0.1:5000 is no address: expected http://HOST:PORT"),
        ("sqlite://", "tracking.uri=sqlite: is no address"),
        ("htp://localhost", "tracking.uri=htp://localhost is no address"),
        ("http:/localhost", "tracking.uri=http:/localhost is no address"),
        ("sqlite://mlflow.db", "tracking.uri=sqlite://mlflow.db is no address"),
        ("uc", "tracking.uri=uc is no address"),
        ("mlruns", "tracking.uri=mlruns is a folder of files, which this MLflow does not write to"),
        ("databricks", "MLflow at databricks: no access to Databricks: `databricks auth login`"),
        ("databricks://mine", "MLflow at databricks://mine: no access to Databricks"),
    ],
)
def test_an_address_that_cannot_be_used_is_one_line(
    uri: str, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("DATABRICKS")]:
        monkeypatch.delenv(name)
    assert one_line_error(uri).startswith(expected)


def test_a_variable_of_the_environment_is_named_with_its_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "localhost:5000/")
    assert one_line_error("localhost:5000").endswith("; MLFLOW_TRACKING_URI says so")


def test_a_proxy_is_not_asked_for_a_server_on_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    with answering(403, "the server itself") as uri:
        assert "403: the server itself" in one_line_error(uri)


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "http://:9"])
def test_a_proxy_that_does_not_work_is_named(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    said = one_line_error("http://mlflow.invalid:5000")
    assert "is not reached through the proxy: add its host to no_proxy" in said


def test_options_of_a_data_base_are_no_part_of_its_name(quick: Path, tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/mlflow.db?timeout=30", "one")
    assert store.uri.endswith("/mlflow.db?timeout=30")
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_long_reason_is_cut_between_words() -> None:
    said = reason(ValueError("some words and more " * 40))
    assert len(said) <= 304
    assert set(said.split()) == {"some", "words", "and", "more", "..."}


@pytest.mark.parametrize(
    ("version", "expected"),
    [("451aebb31d03", "is of an older version than MLflow"), ("abcdefabcdef", "is of a newer")],
)
def test_a_data_base_of_another_version_is_left_alone(
    tmp_path: Path, version: str, expected: str
) -> None:
    path = tmp_path / ("long" * 50) / "my runs.db"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        connection.execute("INSERT INTO alembic_version VALUES (?)", (version,))
        connection.commit()
    before = path.read_bytes()
    said = one_line_error(f"sqlite:///{path}")
    assert expected in said
    assert (f"`mlflow db upgrade 'sqlite:///{path}'`" in said) == ("older" in expected)
    assert path.read_bytes() == before


BEGIN = """
import sys, time
from pathlib import Path
from raysearch.results import Tracker
from raysearch.trials import TrialInfo
import mlflow.store.tracking.sqlalchemy_store
number = sys.argv[1]
Path(f"ready-{number}").touch()
while not Path("go").exists():
    time.sleep(0.001)
tracker = Tracker(None, "together", f"run {number}", {"number": number})
trial = TrialInfo("search-0", "dada", "search", f"trial {number}", None, 0, 3, {})
tracker.trial_started(trial)
tracker.trial_finished(trial, None, {"epoch_equivalents": float(number)})
tracker.finish(None, None)
"""


def test_any_number_of_runs_may_begin_in_a_new_folder_at_the_same_moment(tmp_path: Path) -> None:
    count = 3
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BEGIN, str(number)],
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    wait_for(lambda: len(list(tmp_path.glob("ready-*"))) == count)
    (tmp_path / "go").touch()
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, errors
    store = Store(f"sqlite:///{tmp_path}/mlflow.db", "together", create=False)
    runs = [run.info.run_name for run in store.search("attributes.status = 'FINISHED'")]
    assert sorted(runs) == sorted(f"{kind} {n}" for kind in ("run", "trial") for n in range(count))
    assert list(tmp_path.glob(".*")) == []


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data base with MLflow's tables, which need seconds."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    _database.make_database(path)
    assert [file.name for file in path.parent.iterdir()] == ["mlflow.db"]
    assert path.stat().st_mode & 0o777 == 0o644
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, empty: Path) -> Path:
    """MLflow's tables come from a copy."""

    def fill(uri: str, root: Path) -> None:
        Path(uri.removeprefix("sqlite:///")).write_bytes(empty.read_bytes())

    monkeypatch.setattr(_database, "_fill", fill)
    return empty


def refusing(code: int) -> Callable[..., Any]:
    """What a file system answers that lacks something."""

    def call(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return call


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.ENOLCK])
def test_a_file_system_without_locks_links_and_modes_has_a_data_base_all_the_same(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    import fcntl

    monkeypatch.setattr(fcntl, "flock", refusing(code))
    monkeypatch.setattr(os, "link", refusing(code))
    monkeypatch.setattr(os, "chmod", refusing(code))
    assert Store(f"sqlite:///{tmp_path}/mlflow.db", "bare").experiment_id
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_system_without_fcntl_has_a_data_base_all_the_same(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert Store(f"sqlite:///{tmp_path}/mlflow.db", "bare").experiment_id


def test_a_data_base_that_another_run_has_made_meanwhile_is_used(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mlflow.db"

    def late(source: str, target: Path) -> None:
        path.write_bytes(quick.read_bytes())
        os.utime(path, (1, 1))
        raise FileExistsError(target)

    monkeypatch.setattr(os, "link", late)
    _database.make_database(path)
    assert path.stat().st_mtime == 1
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_data_base_is_in_its_folder_whatever_that_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("Fotos für (1) #1 [x]{a}", "50%41 off?"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        store = Store(None, "mine")
        assert [file.name for file in Path().iterdir()] == ["mlflow.db"]
        assert store.place == str(tmp_path / name / "mlflow.db")
        monkeypatch.chdir(tmp_path)
        again = Store(store.uri, "mine", create=False)
        assert again.experiment_id == store.experiment_id


def test_an_empty_file_becomes_a_data_base_whole_or_not_at_all(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mlflow.db"
    path.touch()

    def killed(uri: str, root: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(_database, "_fill", killed)
        with pytest.raises(KeyboardInterrupt):
            _database.make_database(path)
    assert path.read_bytes() == b""
    _database.make_database(path)
    assert path.read_bytes() == quick.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.db"]


def test_experiments_are_marked_as_model_training(quick: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    store = Store(uri, "mine")
    client = store.client
    kind = "mlflow.experimentKind"
    assert client.get_experiment(store.experiment_id).tags[kind] == "custom_model_development"
    older = client.create_experiment("older")
    other = client.create_experiment("other", tags={kind: "genai_development"})
    Store(uri, "older", create=False)
    assert kind not in client.get_experiment(older).tags  # reading changes nothing
    Store(uri, "older")
    Store(uri, "other")
    assert client.get_experiment(older).tags[kind] == "custom_model_development"
    assert client.get_experiment(other).tags[kind] == "genai_development"
    assert Store(uri, f"id:{older}").experiment == "older"
    with pytest.raises(RaysearchError, match="999"):
        Store(uri, "id:999")
    with pytest.raises(RaysearchError, match="it has no experiment 'no'"):
        read_experiment(uri, "no")


@pytest.mark.parametrize(
    ("environment", "settings", "uri", "experiment"),
    [
        ({}, [], None, None),
        ({"MLFLOW_TRACKING_URI": "", "MLFLOW_EXPERIMENT_NAME": ""}, [], None, None),
        ({"MLFLOW_TRACKING_URI": "  ", "MLFLOW_EXPERIMENT_NAME": "\n"}, [], None, None),
        ({"MLFLOW_TRACKING_URI": "http://h:5000"}, [], "http://h:5000", None),
        ({"MLFLOW_TRACKING_URI": "http://h:5000\n"}, [], "http://h:5000", None),
        ({"MLFLOW_TRACKING_URI": "http://h"}, ["tracking.uri=http://o"], "http://o", None),
        ({"MLFLOW_EXPERIMENT_NAME": "Fotos für Müller"}, [], None, "Fotos für Müller"),
        ({"MLFLOW_EXPERIMENT_NAME": "a"}, ["tracking.experiment=b"], None, "b"),
        ({"MLFLOW_EXPERIMENT_ID": "7"}, [], None, "id:7"),
        ({"MLFLOW_EXPERIMENT_NAME": "a", "MLFLOW_EXPERIMENT_ID": "7"}, [], None, "a"),
    ],
)
def test_mlflows_variables_count_where_no_setting_is_given(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    settings: list[str],
    uri: str | None,
    experiment: str | None,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    tracking = compose_run(settings).settings.tracking
    assert (tracking.uri, tracking.experiment) == (uri, experiment or "raysearch")
    compared = compose_experiment(["none"], [*settings, "name=both"]).settings.tracking
    assert (compared.uri, compared.experiment) == (uri, experiment or "both")


def test_what_mlflows_variables_have_chosen_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(None, "raysearch") is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://h")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    assert chosen("http://h", "id:7") == (
        "MLflow is at http://h (MLFLOW_TRACKING_URI); MLflow's experiment is id:7 "
        "(MLFLOW_EXPERIMENT_ID)"
    )
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    assert chosen("http://o", "mine") == "MLflow's experiment is mine (MLFLOW_EXPERIMENT_NAME)"
    assert chosen("http://o", "id:7") is None


def test_a_password_that_mlflow_has_no_variable_for_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://ann:s3cret@host/mlflow")
    with pytest.raises(RaysearchError, match=r"^MLFLOW_TRACKING_URI=postgresql://\*+@host") as said:
        compose_run([])
    assert "s3cret" not in str(said.value)


def test_a_password_in_the_variable_goes_where_mlflow_looks_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ann:s%40cret@host:5000/mlflow")
    monkeypatch.setattr(os, "environ", os.environ.copy())
    tracking = compose_run([]).settings.tracking
    assert tracking.uri == "https://host:5000/mlflow"
    assert (os.environ[USER], os.environ[PASSWORD]) == ("ann", "s@cret")
    assert "cret" not in (chosen(tracking.uri, "x") or "")
