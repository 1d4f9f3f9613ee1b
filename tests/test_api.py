"""The Python API: the user's own objects in, policies and frames out; on recorded answers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import numpy as np
import pytest
import torch
from _fake_engine import Recorded
from conftest import ROOT
from PIL import Image
from torch import nn

import raysearch
from raysearch import compare, search
from raysearch.errors import RaysearchError
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
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """The engine with recorded answers, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return Recorded.in_place(monkeypatch)


@pytest.fixture
def recorded(drawn: Recorded, undrawn: None) -> Recorded:
    """The same, but for pictures."""
    return drawn


def images() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.integers(0, 255, (40, 8, 8), dtype=np.uint8), np.arange(40) % 2


def small(classes: int, channels: int, size: tuple[int, int]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size[0] * size[1], classes))


def test_a_search_by_names(drawn: Recorded) -> None:
    result = search(num_cpus=2, quiet=True, **QUICK, **BASELINES)
    assert isinstance(result.policy, Policy)
    assert list(result.policies) == ["auto"]
    assert result.table.index.tolist() == ["none", "learned"]
    assert list(result.table)[:3] == ["label", "test_error", "test_error_std"]
    assert list(result.table)[-2:] == ["on_front", "minus_none"]
    assert repr(result.policy).startswith("<SubPolicies: ")
    assert result.frame["stage"].value_counts().to_dict() == {"evaluation": 4, "search": 2}
    assert set(result.history["trial"]) == set(result.frame["trial"])
    assert result.figures
    assert all(path.exists() for path in result.figures.values())
    assert result.folder == Path("runs/mine")
    shown = result._repr_html_()
    assert all(part in shown for part in ("<table", "learned policy", "data:image/png", "report"))
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


def test_what_a_person_has_to_mend_ends_a_comparison_and_other_settings_continue_it(
    recorded: Recorded,
) -> None:
    recorded.to_mend = "ddas"
    with pytest.raises(RaysearchError, match="out of memory"):
        compare(["dada", "ddas"], quiet=True, **QUICK)
    recorded.to_mend = None
    smaller = {"search": {"batch_size": 16}}
    with pytest.raises(RaysearchError, match=r"began with search\.batch_size"):
        compare(["dada", "ddas"], quiet=True, dada=smaller, **QUICK)
    result = compare(["dada", "ddas"], quiet=True, ddas=smaller, **QUICK)
    assert set(result.policies) == {"dada", "ddas"}


def test_own_arrays_and_a_network_of_ones_own(recorded: Recorded) -> None:
    result = search(images(), model=small, quiet=True, **QUICK)
    assert result.summary["images"]["train"] + result.summary["images"]["test"] == 40
    build = recorded.entries[0].build
    assert build.setup.keywords["model"] is small
    assert result.summary["configuration"]["model"]["name"] == "small"


def test_an_own_dataset(recorded: Recorded) -> None:
    pixels, labels = images()
    pairs = torch.utils.data.TensorDataset(torch.from_numpy(pixels), torch.from_numpy(labels))
    result = search(pairs, model="small_cnn", quiet=True, **QUICK)
    assert len(result.summary["classes"]) == 2


class Pictures(torch.utils.data.Dataset[tuple[Image.Image, int]]):
    """Pairs of a picture and a label."""

    classes = ("dark", "light")

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        label = index % 2
        return Image.new("RGB", (8, 8), (100 * label, 9 * label, index)), label


def test_a_dataset_of_pictures(recorded: Recorded) -> None:
    result = search(Pictures(), model="small_cnn", quiet=True, **QUICK)
    assert result.summary["classes"] == ["dark", "light"]


def test_a_stopped_search_says_what_continues_it(recorded: Recorded) -> None:
    recorded.stop_after = 1
    with pytest.raises(KeyboardInterrupt, match="the same call continues it"):
        search(quiet=True, **QUICK)
    recorded.stop_after = None
    assert search(quiet=True, **QUICK).policy


def test_a_complete_run_is_copied_again(recorded: Recorded, tmp_path: Path) -> None:
    storage = tmp_path / "results"
    search(quiet=True, storage=str(storage), **QUICK)
    shutil.rmtree(storage)
    search(quiet=True, storage=str(storage), **QUICK)
    assert (storage / "mine" / "report.html").exists()


def test_a_cluster_is_looked_for_before_ray_does(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RaysearchError, match=r"no Ray cluster answers at 127\.0\.0\.1:1 "):
        search(address="127.0.0.1:1")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # of a job
    with pytest.raises(RaysearchError, match=r"no Ray cluster answers at 127\.0\.0\.1:1 "):
        search()


def test_no_cpu_is_not_enough(recorded: Recorded) -> None:
    with pytest.raises(RaysearchError, match="--num-cpus 0: a trial needs"):
        search(num_cpus=0)


def test_what_is_no_setting(recorded: Recorded) -> None:
    with pytest.raises(RaysearchError, match=r"unknown setting 'search\.epoch'"):
        search(**{"search.epoch": 3})
    with pytest.raises(RaysearchError, match="expected a number, a word, or a list of them"):
        search(seeds=object())


NOTEBOOK = """
import sys

import raysearch
assert "torch" not in sys.modules
# %%
import numpy as np
from PIL import Image
from torch import nn

class Pictures:
    classes = ["dark", "light"]
    def __len__(self):
        return 60
    def __getitem__(self, index):
        noise = np.random.default_rng(index).integers(0, 100, (12, 12, 3))
        return Image.fromarray((noise + 100 * (index % 2)).astype(np.uint8)), index % 2

class Linear(nn.Module):
    def __init__(self, classes, channels, size):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(channels * size[0] * size[1], classes)
        )
    def forward(self, images):
        return self.layers(images)

training = {"epochs": 2, "batch_size": 16}
settings = {
    "tracking": "none", "search": training, "evaluation": {**training, "seeds": 1}, "seeds": 1,
}
result = raysearch.search(Pictures(), model=Linear, num_cpus=1, name="mine", **settings)
# %%
result
# %%
result.policy.save("policy.json")
raysearch.load_policy("policy.json")(Image.new("RGB", (9, 9)))
# %%
result.table
# %%
result.frame
# %%
result.history
# %%
print(*result.figures)
# %%
def linear(classes, channels, size):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size[0] * size[1], classes))

pixels = np.random.default_rng(0).integers(0, 255, (60, 8, 8), dtype=np.uint8)
both = raysearch.compare(
    ["none", "dada"], (pixels, np.arange(60) % 2), model=linear, num_cpus=1, name="both",
    quiet=True, **settings
)
print(*both.policies)
# %%
raysearch.search(dat="digits")
"""


def words(cell: Any) -> str:
    """All that a notebook's cell shows."""
    return "".join(
        output.get("text", "") + output.get("data", {}).get("text/plain", "")
        for output in cell.outputs
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_in_a_notebook(tmp_path: Path) -> None:
    """Really searched and evaluated, with a data set and networks of the notebook's own."""
    cells = [nbformat.v4.new_code_cell(cell) for cell in NOTEBOOK.split("# %%")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    where = {"metadata": {"path": str(tmp_path)}}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    client = nbclient.NotebookClient(notebook, timeout=250, resources=where)
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="unknown setting 'dat'"):
        client.execute(env=environment)
    searched, shown, used, table, frame, history, figures, compared = notebook.cells[1:-1]
    said = words(searched)
    assert "planned: 1 search" in said  # nothing has cleared it
    assert "search seed 0" in said
    assert "learned policy" in said
    assert "<table" in shown.outputs[0]["data"]["text/html"]
    assert "image/png" in used.outputs[0]["data"]
    for each in (table, frame, history):
        assert "<table" in each.outputs[0]["data"]["text/html"]
    assert words(figures).split() == ["augmented", "cost_error", "policy"]
    assert words(compared).splitlines()[-1] == "none dada"
    loaded = raysearch.load_policy(tmp_path / "runs/mine/policy.json")
    assert isinstance(loaded.policy, Policy)
