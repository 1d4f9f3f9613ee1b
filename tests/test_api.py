"""The Python API: the user's own objects in, policies and frames out; on recorded answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from _fake_engine import Recorded
from torch import nn

from raysearch import engine
from raysearch.errors import RaysearchError
from raysearch.experiment import compare, search
from raysearch.policy import Policy

QUICK = {
    "tracking": "none",
    "search.epochs": 3,
    "evaluation": {"epochs": 2, "seeds": 2},
    "seeds": 2,
    "name": "mine",
}
BASELINES = {"evaluation.policies": ["none", "learned"]}


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """The engine with recorded answers, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    fake = Recorded()
    monkeypatch.setattr(engine, "run", fake.run)
    monkeypatch.setattr(engine, "cluster", fake.cluster)
    return fake


def images() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.integers(0, 255, (40, 8, 8), dtype=np.uint8), np.arange(40) % 2


def small(classes: int, channels: int, size: tuple[int, int]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size[0] * size[1], classes))


def test_a_search_by_names(recorded: Recorded) -> None:
    result = search(num_cpus=2, quiet=True, **QUICK, **BASELINES)
    assert isinstance(result.policy, Policy)
    assert list(result.policies) == ["dada"]
    assert result.table.index.tolist() == ["none", "learned"]
    assert result.frame["stage"].value_counts().to_dict() == {"evaluation": 4, "search": 2}
    assert set(result.history["trial"]) == set(result.frame["trial"])
    assert result.figures
    assert all(path.exists() for path in result.figures.values())
    assert result.folder == Path("runs/mine")
    assert "<table" in result._repr_html_()
    assert "learned" in repr(result)


def test_a_complete_run_of_that_name_is_read(recorded: Recorded) -> None:
    first = search(quiet=True, **QUICK)
    count = len(recorded.entries)
    again = search(quiet=True, **QUICK)
    assert len(recorded.entries) == count
    assert again.policy == first.policy
    with pytest.raises(RaysearchError, match=r"runs/mine began with search\.epochs=3, not 4"):
        search(quiet=True, **{**QUICK, "search.epochs": 4})


def test_a_comparison(recorded: Recorded) -> None:
    result = compare(["none", "dada"], quiet=True, dada={"search": {"epochs": 4}}, **QUICK)
    assert set(result.policies) == {"none", "dada"}
    assert result.policy == result.policies["dada"]  # the better one
    assert set(result.table.index) == {"none", "dada", "dada (method)"}
    assert {e.trial.epochs for e in recorded.entries if e.trial.stage == "search"} == {4}


def test_own_arrays_and_a_network_of_ones_own(recorded: Recorded) -> None:
    result = search(images(), model=small, quiet=True, **QUICK)
    assert result.summary["images"]["train"] + result.summary["images"]["test"] == 40
    build = recorded.entries[0].build
    assert build.setting.model is small
    assert result.summary["configuration"]["model"]["name"] == "small"


def test_an_own_dataset(recorded: Recorded) -> None:
    pixels, labels = images()
    pairs = torch.utils.data.TensorDataset(torch.from_numpy(pixels), torch.from_numpy(labels))
    result = search(pairs, model="small_cnn", quiet=True, **QUICK)
    assert len(result.summary["classes"]) == 2


def test_what_is_no_setting(recorded: Recorded) -> None:
    with pytest.raises(RaysearchError, match=r"unknown setting 'search\.epoch'"):
        search(**{"search.epoch": 3})
    with pytest.raises(RaysearchError, match="expected a number, a word, or a list of them"):
        search(seeds=object())
