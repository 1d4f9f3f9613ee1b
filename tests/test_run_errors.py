"""A mistake ends in one line, a non-zero exit within seconds, and leaves nothing behind."""

from __future__ import annotations

import http.server
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SMALL, Ask, CommandLine

from raysearch.cli._main import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["method=dadaa"], "unknown method 'dadaa': did you mean 'dada'"),
        (["data=digts"], "unknown data set 'digts': did you mean 'digits'?"),
        (["model=resnt50"], "unknown model 'resnt50': did you mean 'resnet50'"),
        (["model=torchvision", "model.name=nope"], "unknown model 'nope'"),
        (["metod=dada"], "unknown setting 'metod': did you mean 'method'"),
        (["search.epoch=3"], "unknown setting 'search.epoch': did you mean 'search.epochs'"),
        (["+search.speed=3"], "unknown setting '+search.speed'"),
        (["search.epochs=abc"], "search.epochs='abc': expected a whole number"),
        (["search.epochs=0"], "search.epochs=0: expected at least 1"),
        (["search.epochs=-2"], "search.epochs=-2"),
        (["search.epochs=2.5"], "search.epochs=2.5"),
        (["search.val_fraction=1.5"], "search.val_fraction=1.5: expected a number below 1"),
        (["search.lr=nan"], "search.lr=nan: expected a finite number"),
        (["search=3"], "search=3"),
        (["seeds=0"], "seeds=0: expected at least one seed"),
        (["seeds=[1,1]"], "seeds=[1, 1]: expected each seed once"),
        (["method=dada", "method.lr=fast"], "method.lr='fast': expected a number"),
        (["budget=8"], "method.budget=8: give full trainings or a time, as in 8x, 30m or 2h"),
        (["method=dada", "budget=8x"], "unknown setting"),
        (["method=dada", "method.temperature=-1"], "method.temperature=-1"),
        (["finetune.epochs=2"], "only method=aws and aws_paper have a finetune group"),
        (["metric=accuracy"], "unknown choice for metric 'accuracy'"),
        (["metric=map"], "map"),
        (["task=detection"], "unknown choice for task 'detection'"),
        (["method=dada,dada_paper"], "unknown method 'dada,dada_paper'"),
        (["search.epochs"], "cannot read 'search.epochs': expected KEY=VALUE"),
        (["name=a/b"], "name='a/b'"),
        (["device=gpu"], "unknown choice for device 'gpu': did you mean 'cpu'?"),
        (["evaluation.policies=[lerned]"], "'lerned': did you mean 'learned'"),
        (["evaluation.policies=[missing.json]"], "missing.json: No such file"),
        (["data=folder", "data.root=missing"], "missing"),
        (["data.limit=5"], "data.limit=5"),
        (["--num-gpu", "1"], "unknown option --num-gpu: did you mean '--num-gpus'"),
        (["--num-gpus", "many"], "expected a whole number"),
        (["--num-gpus", "99"], "--num-gpus 99: this machine has"),
        (["device=cuda", "--num-gpus", "0"], "device=cuda needs a GPU"),
        (["search.gpus_per_trial=0.5", "device=cpu"], "search.gpus_per_trial=0.5: the run has no"),
        (["search.cpus_per_trial=2", "--num-cpus", "1"], "search.cpus_per_trial=2: the run has 1"),
        (["--address", "127.0.0.1:1"], "no Ray cluster answers at 127.0.0.1:1"),
        (["--address", "nowhere"], "expected HOST:PORT"),
        (["--resume", "nothing"], "there is no run nothing"),
        (["--resume", "nothing", "seeds=2"], "there is no run nothing (looked in runs/ too)"),
        (["runs_dir=/proc/here"], "runs_dir=/proc/here cannot be written"),
        (["tracking.uri=http://127.0.0.1:1"], "MLflow at http://127.0.0.1:1 does not answer"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], said: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capfd.readouterr()
    assert said in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not out
    assert not list(folder.iterdir())


def test_a_gpu_where_there_is_none(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    for arguments in (["device=cuda"], ["--num-gpus", "1"]):
        assert main(arguments) == 2
        assert "no GPU that PyTorch can use" in capfd.readouterr().err
    assert not list(folder.iterdir())


@pytest.fixture
def web_server() -> Iterator[str]:
    """A server that is neither Ray nor MLflow."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_server_that_is_not_ray(
    web_server: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["--address", web_server]) == 2
    assert f"{web_server} answers, but is no Ray cluster" in capfd.readouterr().err
    assert not list(folder.iterdir())


def test_a_name_that_is_taken(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "runs" / "mine").mkdir(parents=True)
    assert main(["name=mine"]) == 2
    assert "mine exists already" in capfd.readouterr().err


def test_a_run_of_an_earlier_layout(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    old = folder / "runs" / "old"
    old.mkdir(parents=True)
    (old / "config.yaml").write_text("name: old\nmethod: {name: dada}\n")
    assert main(["--resume", "old"]) == 2
    err = capfd.readouterr().err
    assert "runs/old was made by an earlier version, which alone can continue it" in err
    assert err.count("\n") == 1


def test_no_space_left(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = os.statvfs_result((4096, 4096, 10, 1, 1, 10, 10, 10, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: usage)
    assert main([]) == 2
    assert "no space left in runs" in capfd.readouterr().err
    assert not list(folder.iterdir())


def test_a_traceback_only_with_debug(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["method=dadaa", "--debug"]) == 2
    assert "Traceback" in capfd.readouterr().err


def test_the_exit_code_of_the_process(cli: CommandLine) -> None:
    result = cli.run("method=dadaa")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert cli.files() == []


def test_interrupted_before_anything_was_computed(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from raysearch import engine

    def stop(*arguments: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(engine, "cluster", stop)
    assert main(["tracking=none"]) == 130
    assert capfd.readouterr().err == "interrupted before anything was computed\n"
    assert not list(folder.iterdir())


DIVERGED = "the loss is not finite"


@pytest.mark.usefixtures("one_ray")
def test_a_search_that_diverges_ends_a_run_and_so_does_its_continuation(
    cli: CommandLine, ask: Ask
) -> None:
    one = ["--num-cpus", "1"]
    ended = ask(cli, *SMALL, *one, "search.lr=1e30", "seeds=2", "name=mine", "device=cpu")
    for again in (ended, ask(cli, "--resume", "mine", *one)):
        assert again.returncode == 2
        assert f"error: no search of dada found a policy: search: {DIVERGED}" in again.stderr
        assert again.stderr.count("\n") == 1
    run = cli.folder / "runs" / "mine"
    assert json.loads((run / "run.json").read_text())["status"] == "failed"


@pytest.mark.slow
def test_evaluations_that_diverge_are_on_the_page(cli: CommandLine, ask: Ask) -> None:
    settings = ["method=none", "evaluation.policies=[none]", "evaluation.lr=1e30", "device=cpu"]
    ended = ask(cli, *SMALL, *settings, "name=mine")
    assert ended.returncode == 0, ended.stderr
    run = cli.folder / "runs" / "mine"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["errors"]["none"]["mean"] is None
    assert [one["seed"] for one in summary["errors"]["none"]["failed"]] == [0, 1]
    assert all(DIVERGED in one["error"] for one in summary["failed"])
    assert DIVERGED in (run / "report.html").read_text()
