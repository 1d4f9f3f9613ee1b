"""A run's results are copied to where its submitter can get them, or it does not begin."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from _fake_engine import Recorded
from conftest import SMALL

from raysearch import files
from raysearch.cli._main import main
from raysearch.engine._cluster import JOB
from raysearch.errors import RaysearchError
from raysearch.experiment import _run, _storage
from raysearch.experiment._experiment import compose_run
from raysearch.experiment._folder import Folder, create
from raysearch.experiment._storage import Storage

RUN = [*SMALL, "method=predefined", "evaluation.policies=[predefined]", "evaluation.seeds=1"]
RUN = [*RUN, "evaluation.epochs=1", "name=mine", "--num-cpus", "1", "device=cpu"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv(JOB, raising=False)
    return tmp_path


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's file system in memory, empty."""
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


@pytest.fixture
def _recorded(undrawn: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine has recorded answers: nothing is trained."""
    Recorded.in_place(monkeypatch)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What a run's folder may hold."""
    place = tmp_path / "runs" / "mine"
    for name in ("run.json", "policy.json", "policies/seed-0.json", "zoo.png"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(name)
    for name in ("trials/search-1/a/checkpoint_0/state.pt", ".lock", ".policy.json.abc"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("not a result")
    return place


RESULTS = ["policies/seed-0.json", "policy.json", "run.json", "zoo.png"]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_results_are_copied_to_a_folder(run: Path, tmp_path: Path, scheme: str) -> None:
    place = tmp_path / "far" / "away"
    assert Storage(f"{scheme}{place}").copy(run) == f"{scheme}{place}/mine"
    copied = place / "mine"
    assert sorted(str(p.relative_to(copied)) for p in copied.rglob("*") if p.is_file()) == RESULTS
    assert (copied / "policies/seed-0.json").read_text() == "policies/seed-0.json"


def test_results_are_copied_to_a_url(run: Path, memory: Any) -> None:
    assert Storage("memory://bucket/runs/").copy(run) == "memory://bucket/runs/mine"
    found = sorted(memory.find("/bucket/runs/mine"))
    assert found == [f"/bucket/runs/mine/{name}" for name in RESULTS]
    assert memory.cat("/bucket/runs/mine/zoo.png") == b"zoo.png"


def test_run_json_comes_last(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[str] = []
    monkeypatch.setattr(Storage, "_put", lambda self, source, name: came.append(name))
    Storage("anywhere").copy(run)
    assert came[-1] == "mine/run.json"
    assert len(came) == 4


def test_a_file_is_whole_or_not_there(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", target)

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(RaysearchError, match="cannot be written: No space left on device"):
        Storage(str(tmp_path / "away")).copy(run)
    assert not [p for p in (tmp_path / "away").rglob("*") if p.is_file()]


def test_a_check_leaves_nothing(tmp_path: Path, memory: Any) -> None:
    Storage(str(tmp_path / "a" / "b")).check("mine")
    Storage("memory://bucket").check("mine")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not memory.find("/")


@pytest.mark.usefixtures("_recorded")
def test_a_whole_run(folder: Path, memory: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, "storage=memory://results"]) == 0
    assert "results copied to memory://results/mine" in capfd.readouterr().out
    assert json.loads(memory.cat("/results/mine/run.json"))["status"] == "complete"
    here = {p.relative_to(folder / "runs") for p in (folder / "runs").rglob("*") if p.is_file()}
    there = {Path(name).relative_to("/results") for name in memory.find("/results")}
    assert here - there == {Path("mine/.lock")}
    assert not there - here

    assert main([*RUN, "storage=memory://results", "runs_dir=others"]) == 2
    assert "storage=memory://results has a run mine already" in capfd.readouterr().err
    assert not (folder / "others").exists()

    memory.rm("/results", recursive=True)
    assert main(["--resume", "mine"]) == 0
    assert "see memory://results/mine/report.html" in capfd.readouterr().out
    assert json.loads(memory.cat("/results/mine/run.json"))["status"] == "complete"


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs compute something, and fail."""

    def fail(session: object, folder: Folder, *rest: object) -> None:
        folder.count(1.0, ["evaluation"], [])
        (folder.trials / "evaluation" / "checkpoint_0").mkdir(parents=True)
        (folder.trials / "evaluation" / "checkpoint_0" / "state.pt").touch()
        raise RuntimeError("no report today")

    monkeypatch.setattr(_run, "_compute", fail)


@pytest.mark.usefixtures("failing")
def test_a_run_that_fails_is_copied_too(folder: Path, memory: Any) -> None:
    assert main([*RUN, "storage=memory://results"]) == 1
    assert json.loads(memory.cat("/results/mine/run.json"))["status"] == "failed"
    assert b"no report today" in memory.cat("/results/mine/raysearch.log")
    assert list((folder / "runs" / "mine").rglob("*checkpoint*"))
    assert not [name for name in memory.find("/results") if "checkpoint" in name]


@pytest.mark.usefixtures("failing")
def test_another_ctrl_c_ends_the_copying_after_an_error(
    folder: Path, memory: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def endless(*arguments: object, **more: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    monkeypatch.setattr(Storage, "check", lambda self, name: None)
    monkeypatch.setattr(type(memory), "put_file", endless)
    assert main([*RUN, "storage=memory://results"]) == 1
    shown = capfd.readouterr()
    assert "copying what there is to memory://results; Ctrl-C ends it" in shown.out
    assert "copying stopped (runs/mine has it all, --resume copies again)" in shown.out
    assert shown.err.startswith("unexpected error: RuntimeError: no report today")


@pytest.mark.usefixtures("_recorded")
def test_storage_that_goes_away_loses_nothing(
    folder: Path, memory: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def gone(*arguments: object, **more: object) -> None:
        raise ConnectionError("the network is down")

    original = type(memory).put_file
    monkeypatch.setattr(Storage, "check", lambda self, name: None)
    monkeypatch.setattr(type(memory), "put_file", gone)
    assert main([*RUN, "storage=memory://results"]) == 2
    assert capfd.readouterr().err == (
        "error: storage=memory://results cannot be written: the network is down "
        "(runs/mine has it all, --resume copies again)\n"
    )
    assert (folder / "runs" / "mine" / "report.html").exists()
    monkeypatch.setattr(type(memory), "put_file", original)
    assert main(["--resume", "mine"]) == 0
    assert memory.exists("/results/mine/report.html")


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("nope://somewhere", "storage=nope://somewhere: Protocol not known: nope"),
        ("s3://key:secret@bucket/runs", "a user name or password would be kept"),
        ("runs", "storage=runs is runs_dir, where the run goes anyway"),
        ("/proc/here", "storage=/proc/here cannot be written: "),
        ("file.txt/runs", "storage=file.txt/runs cannot be written: Not a directory"),
    ],
)
def test_a_mistake_is_one_line(
    folder: Path, capfd: pytest.CaptureFixture[str], storage: str, said: str
) -> None:
    (folder / "file.txt").touch()
    assert main([f"storage={storage}"]) == 2
    out, err = capfd.readouterr()
    assert said in err
    assert "secret" not in err
    assert err.count("\n") == 1
    assert not out
    assert [path.name for path in folder.iterdir()] == ["file.txt"]


def test_a_protocols_package_is_missing(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    assert main(["storage=s3://bucket/runs"]) == 2
    err = capfd.readouterr().err
    assert err == (
        "error: storage=s3://bucket/runs: s3:// needs a package that is not installed: "
        "Install s3fs to access S3\n"
    )


def test_storage_that_does_not_answer(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = threading.Event()
    monkeypatch.setattr(_storage, "CHECK_SECONDS", 0.2)
    monkeypatch.setattr(type(memory), "exists", lambda *arguments: silent.wait(30))
    with pytest.raises(RaysearchError, match=r"cannot be written: no answer in 0\.2 s"):
        Storage("memory://results").check("mine")
    silent.set()


def test_a_jobs_results_must_not_go_with_it(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(JOB, "{}")
    assert main(["storage=here"]) == 2
    assert "storage=here would be in the job's working directory" in capfd.readouterr().err


def test_names_differ_where_others_write_too(folder: Path) -> None:
    names = set()
    for place in ("a", "b"):
        run = create(compose_run(["storage=memory://results", f"runs_dir={place}"]))
        names.add(run.path.name)
        run.release()
    assert len(names) == 2
