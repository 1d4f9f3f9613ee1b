"""MLflow tracking: nesting, names, batching, resume, and stores that fail."""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from _measured import (
    ERRORS,
    compared,
    compared_trials,
    evaluations,
    joint,
    joint_searches,
    one_method,
)

from raysearch.errors import RaysearchError
from raysearch.results import (
    Measured,
    Tracker,
    log_comparison,
    read_experiment,
    summarise,
    write,
)
from raysearch.results.mlflow import _writer as writer_module
from raysearch.results.mlflow._fields import PARAM_LIMIT, entity_key, flatten, summary_metrics
from raysearch.trials import TrialInfo, TrialResult

SEARCH = TrialInfo("search-0", "dada", "search", "dada seed 0", None, 0, 3, {"epochs": 3})
LEARNED = TrialInfo("learned-0", "dada", "evaluation", "learned seed 0", "learned", 0, 3)
NONE = TrialInfo("none-0", "dada", "evaluation", "none seed 0", "none", 0, 3)
CONFIG = {"method": {"name": "dada"}, "search": {"epochs": 3, "lr": 0.1}, "note": "x" * 9000}
COST = {"wall_seconds": 2.0, "device_seconds": 0.5, "epoch_equivalents": 9.0}


def small() -> Measured:
    """What the trials that `play` plays come to."""
    costs = tuple(COST.values())
    trials = [
        TrialResult(SEARCH, [{"epoch": 1.0}], {}, *costs),
        TrialResult(LEARNED, [{"epoch": 1.0}], {"test_error": 3.0}, *costs),
        TrialResult(NONE, [{"epoch": 1.0}], {"test_error": 4.0}, *costs),
    ]
    return one_method(1, trials=trials, wall_seconds={})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory."""
    return tmp_path_factory.mktemp("ml flow")


@pytest.fixture(scope="module")
def database(place: Path) -> str:
    """One SQLite store for the module: MLflow needs seconds to create its tables."""
    return f"sqlite:///{place / 'mlflow.db'}"


@pytest.fixture
def every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs are logged however short they are."""
    monkeypatch.setattr(writer_module, "VALUES_PER_SECOND", math.inf)


@pytest.fixture
def warnings() -> list[str]:
    return []


def children(tracker: Tracker) -> dict[str, Any]:
    store = tracker._store
    found = writer_module.find_children(store, tracker.run_id)
    return {run.info.run_name: run for run in found}


def play(tracker: Tracker, trial: TrialInfo, epochs: range, end: bool = True) -> None:
    tracker.planned([trial], 0)
    tracker.trial_started(trial)
    for epoch in epochs:
        metrics = {"train_loss": 1.0 / epoch, "epoch_equivalents": 3.0 * epoch}
        tracker.trial_progress(trial, epoch, metrics)
    if end:
        error = {} if trial.stage == "search" else {"test_error": 3.0}
        last = {**COST, **error, "epoch_equivalents": 3.0 * epochs[-1]}
        tracker.trial_finished(trial, None, last)
        tracker.ended()


def test_the_default_store_is_in_the_working_directory_and_telemetry_is_off(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    tracker = Tracker(None, "raysearch", "demo", {"a": 1})
    (place / "summary.json").write_text("{}")
    tracker.finish(None, place)
    assert {path.name for path in place.iterdir()} >= {"mlflow.db", "mlruns"}
    command, page = tracker.location()["command"].split(", then ")
    assert command == "mlflow ui"
    assert page == "http://127.0.0.1:5000/#/experiments/1/runs"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert capfd.readouterr().out == ""


def test_a_run_is_a_parent_with_a_child_per_trial(
    database: str, tmp_path: Path, warnings: list[str], every_epoch: None
) -> None:
    tracker = Tracker(database, "round", "demo", CONFIG, warn=warnings.append)
    for trial in (SEARCH, LEARNED, NONE):
        play(tracker, trial, range(1, 4))
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "seed-0.json").write_text("{}")
    tracker.finish(summarise(small()), tmp_path)

    client = tracker._store.client
    parent = client.get_run(tracker.run_id)
    runs = children(tracker)
    assert warnings == []
    assert set(runs) == {"dada seed 0", "learned seed 0", "none seed 0"}
    assert {run.info.status for run in (parent, *runs.values())} == {"FINISHED"}
    assert parent.data.params["search.lr"] == "0.1"
    assert len(parent.data.params["note"]) == PARAM_LIMIT
    assert runs["none seed 0"].data.params["method.name"] == "dada"
    assert parent.data.metrics["test_error/none/mean"] == 4.0
    assert parent.data.metrics["difference/none/mean"] == -1.0
    assert 0 < parent.data.metrics["share/ShearX"] < 1
    assert parent.data.metrics["epoch_equivalents"] == 27.0
    steps = [m.step for m in client.get_metric_history(runs["dada seed 0"].info.run_id, "epoch")]
    assert sorted(steps) == [1, 2, 3]
    costs = client.get_metric_history(runs["dada seed 0"].info.run_id, "epoch_equivalents")
    assert [(m.step, m.value) for m in costs] == [(1, 3.0), (2, 6.0), (3, 9.0)]
    attached = {file.path for file in client.list_artifacts(tracker.run_id)}
    assert attached == {"summary.json", "policies"}


def test_cost_and_error_have_the_same_names_in_every_run(database: str, tmp_path: Path) -> None:
    tracker = Tracker(database, "names", "demo", {})
    for trial in (SEARCH, LEARNED, NONE):
        play(tracker, trial, range(1, 3))
    tracker.finish(summarise(small()), tmp_path)
    parent = tracker._store.client.get_run(tracker.run_id).data.metrics
    runs = {name: run.data.metrics for name, run in children(tracker).items()}
    costs = {f"{prefix}{name}" for prefix in ("", "search_") for name in COST}
    for metrics in (parent, *runs.values()):
        assert costs <= set(metrics)
    for metrics in (parent, runs["learned seed 0"], runs["none seed 0"]):
        assert "test_error" in metrics
    assert runs["learned seed 0"]["search_epoch_equivalents"] == COST["epoch_equivalents"]
    assert runs["none seed 0"]["search_epoch_equivalents"] == 0.0


def test_a_network_that_the_search_trained_is_a_result_too(database: str) -> None:
    tracker = Tracker(database, "joint", "demo", {})
    tracker.trial_started(SEARCH)
    tracker.trial_progress(SEARCH, 1, {"mean/tx": 0.1, "std/tx": 0.2})
    tracker.trial_finished(SEARCH, None, {**COST, "test_error": 4.0, "test_loss": 0.1})
    networks = [*joint_searches()[1], *evaluations("dada", "none", ERRORS["none"])]
    tracker.finish(summarise(joint(trials=networks)), None)
    child = children(tracker)["dada seed 0"].data.metrics
    assert (child["test_error"], child["test_loss"], child["std/tx"]) == (4.0, 0.1, 0.2)
    parent = tracker._store.client.get_run(tracker.run_id).data.metrics
    assert parent["test_error"] == pytest.approx(3.32)
    assert parent["joint_difference/none/mean"] == pytest.approx(-5.78)
    assert parent["relative_cost/joint/epoch_equivalents"] == pytest.approx(156 / 20)
    assert {"mean/tx", "std/tx"} <= set(parent)
    assert summary_metrics(summarise(joint()))["test_error"] == pytest.approx(4.4)


@pytest.mark.usefixtures("undrawn")
def test_a_comparison_has_a_run_for_each_method_and_one_of_its_own(
    database: str, tmp_path: Path, warnings: list[str]
) -> None:
    measured = compared()
    places = {}
    trackers = {}
    for name in measured.methods:
        config = {"method": {"name": name}}
        trackers[name] = Tracker(database, "compare", name, config, method=name)
        trackers[name].complete(compared_trials())
        places[name] = trackers[name].location()
    methods = {
        name: replace(method, tracking=places[name]) for name, method in measured.methods.items()
    }
    measured = replace(measured, methods=methods, tracking=places["none"])
    summary = write(tmp_path, measured)
    for tracker in trackers.values():
        tracker.finish(summary, tmp_path)
    view = log_comparison(summary, tmp_path, database, warn=warnings.append)
    assert warnings == []
    assert view is not None
    assert set(children(trackers["dada"])) == {
        *(f"dada seed {seed}" for seed in (0, 1)),
        *(f"dada seed {seed}" for seed in (0, 1, 2)),
    }
    client = trackers["dada"]._store.client
    figures = client.get_run(places["dada"]["run_id"]).data.metrics
    assert figures["test_error"] == pytest.approx(4.4)
    assert figures["total_trainings"] == pytest.approx(6)
    assert figures["difference/none/mean"] == pytest.approx(-4.667, abs=1e-3)
    [again] = read_experiment(database, "compare")
    assert summarise(again)["errors"] == summary["errors"]
    assert log_comparison(summary, tmp_path, database, warn=warnings.append) == view
    assert len(read_experiment(database, "compare")) == 1


@pytest.mark.usefixtures("undrawn")
def test_a_run_can_be_read_back(database: str, tmp_path: Path) -> None:
    measured = one_method(tracking=None)
    tracker = Tracker(database, "single", "demo", {})
    tracker.finish(write(tmp_path, measured), tmp_path)
    [again] = read_experiment(database, "single")
    assert again.methods["dada"].policy == measured.methods["dada"].policy
    assert again.folder == "MLflow run demo"
    with pytest.raises(RaysearchError, match="it has no experiment 'nothing'"):
        read_experiment(database, "nothing")


def test_resume_continues_parent_and_children_without_doubles(
    database: str, tmp_path: Path, warnings: list[str], every_epoch: None
) -> None:
    first = Tracker(database, "resume", "demo", {"a": 1})
    play(first, SEARCH, range(1, 3), end=False)
    first._writer.drain(10)
    first._writer.stop()  # the driver is killed here

    second = Tracker(database, "resume", "demo", {"a": 1}, first.run_id, warn=warnings.append)
    assert second.run_id == first.run_id
    play(second, SEARCH, range(2, 4))  # from the checkpoint of epoch 1: epoch 2 comes again
    second.finish(None, tmp_path)
    runs = children(second)
    assert list(runs) == ["dada seed 0"]
    child = runs["dada seed 0"]
    assert child.info.status == "FINISHED"
    history = second._store.client.get_metric_history(child.info.run_id, "train_loss")
    assert sorted(m.step for m in history) == [1, 2, 3]
    assert warnings == []


def test_a_trial_that_ended_when_the_driver_was_killed_is_completed(database: str) -> None:
    first = Tracker(database, "unheard", "demo", {})
    play(first, LEARNED, range(1, 3), end=False)
    first._writer.drain(10)
    first._writer.stop()  # the driver is killed here; the trial's end is on disk

    second = Tracker(database, "unheard", "demo", {}, first.run_id)
    history = [{"epoch": 1.0}, {"epoch": 2.0}]
    result = TrialResult(LEARNED, history, {"test_error": 3.5}, 2.0, 1.0, 6.0)
    second.complete([result])
    second.complete([result])
    second.finish(None, None)
    child = children(second)["learned seed 0"]
    assert child.info.status == "FINISHED"
    assert child.data.metrics["test_error"] == 3.5
    assert child.data.metrics["epoch_equivalents"] == 6.0


def test_a_finish_that_is_interrupted_can_be_done_again(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(folder: Path) -> None:
        raise KeyboardInterrupt

    tracker = Tracker(database, "again", "demo", {})
    monkeypatch.setattr(tracker, "_attach", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tracker.finish(None, tmp_path)
    for status in ("KILLED", "FAILED"):  # only the first counts
        tracker.finish(None, None, status)
    assert tracker._store.client.get_run(tracker.run_id).info.status == "KILLED"


def test_a_resumed_run_that_the_store_has_lost_gets_a_new_one(
    database: str, warnings: list[str]
) -> None:
    tracker = Tracker(database, "lost", "demo", {}, "f" * 32, warn=warnings.append)
    assert tracker.run_id != "f" * 32
    assert "f" * 32 in warnings[0]
    tracker.finish(None, None, "KILLED")
    assert tracker._store.client.get_run(tracker.run_id).info.status == "KILLED"


def test_writing_takes_little_of_a_trial_however_short_its_epochs(
    database: str,
) -> None:
    tracker = Tracker(database, "short", "demo", {})
    tracker.trial_started(SEARCH)
    tracker._writer.drain(10)
    before, start = tracker.writing_seconds, time.monotonic()
    epoch = 0
    while time.monotonic() - start < 3:
        epoch += 1
        tracker.trial_progress(SEARCH, epoch, {f"share/{i}": epoch + i for i in range(20)})
        time.sleep(0.01)
    tracker._writer.drain(10)
    spent = tracker.writing_seconds - before
    logged = 3 * writer_module.VALUES_PER_SECOND / 21
    tracker.trial_finished(SEARCH, None, {"epoch_equivalents": 9.0})
    tracker.finish(None, None)
    run = children(tracker)["dada seed 0"].info.run_id
    history = tracker._store.client.get_metric_history(run, "share/19")
    steps = [metric.step for metric in history]
    assert steps == sorted(set(steps))
    assert steps[0] == 1
    assert steps[-1] == epoch  # the last is never passed over
    assert logged / 2 < len(steps) < 2 * logged + 2
    assert spent < 0.3  # of 3 s; writing every epoch takes twice that


def test_epochs_that_are_told_of_together_are_all_logged(database: str) -> None:
    tracker = Tracker(database, "together", "demo", {})
    tracker.trial_started(SEARCH)
    tracker._children[SEARCH.id].since -= 60  # a minute ago
    for epoch in range(1, 9):  # an interval of a population
        tracker.trial_progress(SEARCH, epoch, {f"share/{i}": epoch + i for i in range(20)})
    tracker.finish(None, None)
    run = children(tracker)["dada seed 0"].info.run_id
    history = tracker._store.client.get_metric_history(run, "epoch")
    assert [metric.step for metric in history] == list(range(1, 9))


def test_writes_are_batched(
    database: str, monkeypatch: pytest.MonkeyPatch, every_epoch: None
) -> None:
    tracker = Tracker(database, "batched", "demo", {})
    calls: list[int] = []
    original = tracker._store.client.log_batch

    def counted(run_id: str, **entities: Any) -> None:
        calls.append(len(entities["metrics"]))
        original(run_id, **entities)

    monkeypatch.setattr(tracker._store.client, "log_batch", counted)
    tracker.trial_started(SEARCH)
    start = time.monotonic()
    for epoch in range(1, 201):
        tracker.trial_progress(SEARCH, epoch, {f"share/{i}": 0.1 for i in range(20)})
    spent = time.monotonic() - start
    tracker.finish(None, None)
    assert sum(calls) >= 200 * 21
    assert max(calls) <= 1000
    assert len(calls) < 20
    assert spent < 1.0  # 5 ms an epoch at most on the driver's thread, for 21 metrics


def test_runs_have_the_times_of_the_trials(database: str) -> None:
    tracker = Tracker(database, "times", "demo", {})
    tracker.trial_started(SEARCH)
    time.sleep(0.3)
    tracker.trial_finished(SEARCH, None, {})
    tracker.finish(None, None)
    info = children(tracker)["dada seed 0"].info
    assert 300 <= info.end_time - info.start_time < 3000


def test_failed_and_interrupted_trials_are_marked(database: str) -> None:
    tracker = Tracker(database, "failed", "demo", {})
    tracker.trial_started(SEARCH)
    tracker.trial_finished(SEARCH, "the loss is not finite", {"train_loss": float("nan")})
    tracker.trial_started(NONE)
    tracker.finish(None, None, "FAILED")
    runs = children(tracker)
    assert runs["dada seed 0"].info.status == "FAILED"
    assert runs["dada seed 0"].data.tags["raysearch.error"] == "the loss is not finite"
    assert runs["none seed 0"].info.status == "KILLED"


def test_a_store_that_dies_does_not_stop_the_run_and_is_caught_up(
    database: str, tmp_path: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "FLUSH_SECONDS", 0.05)
    tracker = Tracker(database, "dies", "demo", {}, warn=warnings.append)
    client = tracker._store.client
    with monkeypatch.context() as broken:
        for name in ("log_batch", "create_run", "set_terminated", "update_run"):
            broken.setattr(client, name, refuse_connection)
        play(tracker, SEARCH, range(1, 3))
        deadline = time.monotonic() + 10
        while tracker._writer.trouble is None and time.monotonic() < deadline:
            time.sleep(0.05)
        play(tracker, LEARNED, range(1, 3))
        play(tracker, NONE, range(1, 3))
    assert len(warnings) == 1
    assert "no answer" in warnings[0]
    tracker.finish(summarise(small()), tmp_path)
    assert len(warnings) == 1
    assert {run.info.status for run in children(tracker).values()} == {"FINISHED"}
    assert len(children(tracker)) == 3


def test_a_store_that_stays_dead_is_named_with_the_place_of_the_results(
    database: str, tmp_path: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raysearch.results.mlflow._tracker.DRAIN_SECONDS", 1.0)
    tracker = Tracker(database, "dead", "demo", {}, warn=warnings.append)
    for name in ("log_batch", "create_run", "set_terminated", "log_artifact"):
        monkeypatch.setattr(tracker._store.client, name, refuse_connection)
    play(tracker, SEARCH, range(1, 3))
    tracker.finish(summarise(small()), tmp_path)
    assert str(tmp_path) in warnings[-1]
    assert "incomplete" in warnings[-1]


def refuse_connection(*_: object, **__: object) -> None:
    raise ConnectionRefusedError("nobody there")


def test_names_and_values_fit_mlflow() -> None:
    assert entity_key("share/ShearX") == "share/ShearX"
    assert entity_key("error (%)/../ä") == "error ___/_/_"
    flat = dict(flatten({"a": {"b": None, "c": [1, 2], "d": True}, "e": {}}))
    assert flat == {"a.b": "null", "a.c": "[1, 2]", "a.d": "true"}
