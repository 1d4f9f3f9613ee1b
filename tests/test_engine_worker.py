"""What a worker keeps of work that goes on, without Ray's processes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import dark_and_light

from raysearch.engine import Share, _worker
from raysearch.engine._files import Progress, ProposalFolder
from raysearch.engine._worker import WorkerTrainable
from raysearch.errors import DivergedError, RaysearchError
from raysearch.policy import trivial_augment
from raysearch.protocol import Answer, Build, Failed, Metrics, Proposal, Values
from raysearch.training import Loop, Training

SETTINGS = {"epochs": 2, "batch_size": 16, "lr": 0.1, "weight_decay": 0.0, "enlarge_batch": 1}
EVERY, NEVER = 0.0, 1e9  # seconds between two checkpoints within an epoch


class Killed(BaseException):
    """As when the process is gone."""


def build(proposal: Proposal, files: Mapping[str, Values]) -> Training:
    return Training(dark_and_light(), SETTINGS, trivial_augment(), True)


def worker(folder: Path, build: Build = build) -> WorkerTrainable:
    """One that works on the proposal `training` of the entry in `folder`."""
    made: WorkerTrainable = object.__new__(WorkerTrainable)  # not Tune's part of it
    proposal = Proposal("training", 0, stage="evaluation")
    trial = {"entry": "mine", "folder": str(folder), "proposal": proposal}
    given = {**trial, "build": lambda shared: build, "share": Share(1, 0, "cpu")}
    made.setup({"trial": given}, None)
    return made


@pytest.fixture
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_worker, "ray", SimpleNamespace(get=lambda given: given))
    monkeypatch.setattr(_worker, "ready_worker", lambda share: None)


@pytest.mark.usefixtures("_no_ray")
def test_a_worker_killed_within_an_epoch_loses_a_batch_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_worker, "ON_THE_WAY_SECONDS", NEVER)
    worker(tmp_path / "whole").step()
    expected, whole = ProposalFolder(tmp_path / "whole" / "training").read_answer()
    assert len(whole.history) == 2

    monkeypatch.setattr(_worker, "ON_THE_WAY_SECONDS", EVERY)
    write, written = ProposalFolder.write_checkpoint, []

    def killed(folder: ProposalFolder, state: Values, progress: Progress) -> None:
        write(folder, state, progress)
        written.append(state["within"]["step"])
        if len(written) == 3:
            raise Killed

    monkeypatch.setattr(ProposalFolder, "write_checkpoint", killed)
    with pytest.raises(Killed):
        worker(tmp_path / "killed").step()
    assert written == [1, 2, 3]

    monkeypatch.setattr(ProposalFolder, "write_checkpoint", write)
    monkeypatch.setattr(_worker, "ON_THE_WAY_SECONDS", NEVER)
    steps, original = [], Loop.plain_step

    def counted(loop: Loop, *batch: Any) -> Any:
        steps.append(loop.step)
        return original(loop, *batch)

    monkeypatch.setattr(Loop, "plain_step", counted)
    worker(tmp_path / "killed").step()
    found, progress = ProposalFolder(tmp_path / "killed" / "training").read_answer()
    assert len(steps) == 2 * 5 - 3
    assert found.values == expected.values  # type: ignore[union-attr]
    assert progress.history == whole.history


@pytest.mark.usefixtures("_no_ray")
def test_time_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_worker, "ON_THE_WAY_SECONDS", EVERY)
    start = time.perf_counter()
    worker(tmp_path).step()
    spent = time.perf_counter() - start
    _, progress = ProposalFolder(tmp_path / "training").read_answer()
    assert 0 < progress.wall_seconds < spent
    assert progress.device_seconds == progress.wall_seconds


class Failing:
    """Work of two epochs whose second one raises."""

    epochs = 2

    def __init__(self, error: Exception) -> None:
        self.epoch, self._error = 0, error

    def step(self) -> Metrics:
        time.sleep(0.01)
        if self.epoch:
            raise self._error
        self.epoch = 1
        return {"train_loss": 1.0}

    def answer(self) -> Answer:
        raise AssertionError

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Values) -> None:
        raise AssertionError


@pytest.mark.usefixtures("_no_ray")
def test_the_epoch_that_diverges_is_paid_for_and_those_before_it_are_shown(tmp_path: Path) -> None:
    one = worker(tmp_path, lambda proposal, files: Failing(DivergedError("not finite")))
    assert one.step() == {"rows": [{"epoch": 1, "train_loss": 1.0}], "done": True}
    found, progress = ProposalFolder(tmp_path / "training").read_answer()
    assert found == Failed("not finite")
    assert progress.wall_seconds >= 0.02


def cannot_allocate() -> Exception:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50)
    return error.value


@pytest.mark.usefixtures("_no_ray")
def test_memory_that_does_not_suffice_is_for_a_person_to_mend(tmp_path: Path) -> None:
    for error in (cannot_allocate(), MemoryError()):
        one = worker(tmp_path, lambda proposal, files, error=error: Failing(error))
        with pytest.raises(RaysearchError, match="use a smaller batch_size"):
            one.step()
    other = worker(tmp_path, lambda proposal, files: Failing(RuntimeError("another")))
    with pytest.raises(RuntimeError, match="another"):
        other.step()
