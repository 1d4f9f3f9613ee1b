"""What a run leaves behind: figures that are right, files that are whole."""

from __future__ import annotations

import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from rich.console import Console
from scipy import stats

from raysearch.cli._results import _samples
from raysearch.data import TensorSplit
from raysearch.errors import RaysearchError
from raysearch.policy import Policy, SubPolicies, read_policy, trivial_augment
from raysearch.report import _write, paired_difference, result_table, spread, write_report
from raysearch.report._words import verdict
from raysearch.tracking import TrialInfo, TrialResult

NAMES = ("ShearX", "Rotate", "Color", "Posterize", "Cutout", "Invert", "Solarize", "Equalize")
FILES = {
    "policy.json",
    "summary.json",
    "history.parquet",
    "policy.png",
    "augmented.png",
    "report.html",
}
ERRORS = {
    "none": [9.0, 9.4, 8.8, 9.2, 9.1],
    "predefined": [6.0, 6.3, 6.1, 5.9, 6.2],
    "trivial_augment": [4.6, 4.1, 4.9, 4.2, 4.7],
    "learned": [4.3, 4.5, 4.4, 4.0, 4.8],
}


def search_results(seeds: int, epochs: int = 4) -> list[TrialResult]:
    results = []
    for seed in range(seeds):
        history = [
            {
                "epoch": float(epoch),
                "train_loss": 1.0 / epoch,
                "val_loss": 1.2 / epoch,
                "kl_uniform": 0.01 * epoch,
                **{f"share/{name}": (i + 1 + seed) / 50 for i, name in enumerate(NAMES)},
            }
            for epoch in range(1, epochs + 1)
        ]
        info = TrialInfo(f"search-{seed}", "search", f"dada seed {seed}", None, seed)
        results.append(TrialResult(info, history, history[-1], 10.0, 5.0, 44.0))
    return results


def evaluation_results(errors: dict[str, list[float]] = ERRORS) -> list[TrialResult]:
    return [
        TrialResult(
            TrialInfo(f"{name}-{seed}", "evaluation", f"{name} seed {seed}", name, seed),
            [{"epoch": 1.0, "train_loss": 0.5}, {"epoch": 2.0, "train_loss": 0.4}],
            {"train_loss": 0.4, "test_error": error},
            4.0,
            2.0,
            30.0,
        )
        for name, runs in errors.items()
        for seed, error in enumerate(runs)
    ]


def write(run_dir: Path, seeds: int = 1, **changes: Any) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    policies = [
        SubPolicies.pairs(NAMES, weights=torch.rand(28, generator=generator)) for _ in range(seeds)
    ]
    arguments: dict[str, Any] = {
        "name": "demo",
        "config": {"method": {"name": "dada"}, "data": {"root": Path("photos")}},
        "policy": SubPolicies.merge(policies),
        "seed_policies": dict(enumerate(policies)),
        "search": search_results(seeds),
        "evaluations": evaluation_results(),
        "samples": torch.randint(0, 256, (9, 1, 8, 8), generator=generator).to(torch.uint8),
        "classes": ["a", "b"],
        "wall_seconds": {"search": 12.0, "total": 40.0},
        **changes,
    }
    return write_report(run_dir, **arguments)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    run_dir = tmp_path_factory.mktemp("run")
    return run_dir, write(run_dir, seeds=2)


# Statistics


def test_paired_difference_has_the_textbook_interval() -> None:
    # Differences 1, 2, 3, 4, 5: mean 3, deviation √2.5, t(0.975, 4) = 2.776445.
    values = {seed: 10.0 + seed for seed in range(1, 6)}
    baseline = dict.fromkeys(range(1, 6), 10.0)
    found = paired_difference(values, baseline)
    assert found is not None
    half = 2.776445 * math.sqrt(2.5 / 5)
    assert found["mean"] == pytest.approx(3.0)
    assert found["low"] == pytest.approx(3.0 - half, abs=1e-5)
    assert found["high"] == pytest.approx(3.0 + half, abs=1e-5)
    assert found["seeds"] == 5


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        differences = generator.normal(-0.3, 1.0, 5)
        found = paired_difference(dict(enumerate(differences)), dict.fromkeys(range(5), 0.0))
        assert found is not None
        covered += found["low"] <= -0.3 <= found["high"]
    assert stats.binomtest(covered, 1000, 0.95).pvalue > 1e-3


def test_only_seeds_that_both_have_are_paired() -> None:
    found = paired_difference({0: 1.0, 1: 2.0, 7: 50.0}, {0: 0.0, 1: 1.0, 8: -50.0})
    assert found is not None
    assert (found["mean"], found["seeds"]) == (1.0, 2)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_one_seed_has_no_deviation_and_no_interval() -> None:
    assert spread([3.0]) == (3.0, None)
    found = paired_difference({0: 1.0}, {0: 2.0})
    assert found is not None
    assert found["low"] is None
    assert "settles nothing" in verdict("none", found)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(-2.0, -0.1, "beats"), (0.1, 2.0, "is worse than"), (-0.1, 2.0, "not settled")],
)
def test_the_verdict_follows_the_interval(low: float, high: float, words: str) -> None:
    mean = (low + high) / 2
    facts = {"mean": mean, "low": low, "high": high, "seeds": 5, "confidence": 0.95}
    assert words in verdict("trivial_augment", facts)


# Files


def test_all_files_are_there_and_nothing_else(written: tuple[Path, dict[str, Any]]) -> None:
    run_dir, _ = written
    assert {path.name for path in run_dir.iterdir()} == FILES | {"policies"}
    assert {path.name for path in (run_dir / "policies").iterdir()} == {
        "seed-0.json",
        "seed-1.json",
    }
    assert len(read_policy(run_dir / "policy.json").marginals()) == len(NAMES)


def test_summary_holds_the_figures(written: tuple[Path, dict[str, Any]]) -> None:
    run_dir, returned = written
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary == returned
    assert summary["search"] == {
        "wall_seconds": 12.0,
        "device_seconds": 10.0,
        "epoch_equivalents": 88.0,
    }
    learned = summary["errors"]["learned"]
    assert learned["runs"] == ERRORS["learned"]
    assert learned["mean"] == pytest.approx(np.mean(ERRORS["learned"]))
    assert learned["std"] == pytest.approx(np.std(ERRORS["learned"], ddof=1))
    reference = stats.ttest_rel(ERRORS["learned"], ERRORS["predefined"]).confidence_interval(0.95)
    difference = summary["differences"]["predefined"]
    assert (difference["low"], difference["high"]) == pytest.approx(tuple(reference))
    assert set(summary["policy"]["operations"]) == set(NAMES)
    assert sum(summary["policy"]["operations"].values()) == pytest.approx(1.0)
    assert summary["evaluations"]["none"]["device_seconds"] == 10.0
    assert summary["seeds"] == {"search": [0, 1], "evaluation": [0, 1, 2, 3, 4]}
    assert summary["joint_differences"] == {}
    assert {"raysearch", "python", "torch", "torchvision", "ray", "mlflow", "kornia"} <= set(
        summary["versions"]
    )
    assert summary["configuration"]["data"]["root"] == "photos"


def test_history_has_a_row_per_trial_and_epoch(written: tuple[Path, dict[str, Any]]) -> None:
    table = pq.read_table(written[0] / "history.parquet")
    assert table.num_rows == 2 * 4 + 20 * 2
    assert table.column_names[:6] == ["trial", "stage", "name", "policy", "seed", "epoch"]
    row = table.slice(1, 1).to_pylist()[0]
    assert (row["trial"], row["epoch"], row["val_loss"]) == ("search-0", 2, 0.6)
    assert row["policy"] is None
    assert table.column("val_loss").null_count == 40


def test_pictures_open(written: tuple[Path, dict[str, Any]]) -> None:
    for name in ("policy.png", "augmented.png"):
        with Image.open(written[0] / name) as picture:
            picture.load()
            assert picture.width >= 600


@pytest.mark.parametrize("shape", [(1, 3, 32, 48), (3, 1, 8, 8), (2, 3, 200, 150)])
def test_augmented_pictures_of_all_shapes(shape: tuple[int, ...]) -> None:
    from raysearch.report._augmented import augmented_png

    samples = torch.randint(0, 256, shape).to(torch.uint8)
    first = augmented_png(SubPolicies.pairs(NAMES), samples)
    assert Image.open(io.BytesIO(first)).width > 50
    assert first == augmented_png(SubPolicies.pairs(NAMES), samples)  # the draws are seeded


class Page(HTMLParser):
    """Collects what a browser would load, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [v for k, v in attrs if k in ("src", "href", "data", "srcset") and v]

    def handle_data(self, data: str) -> None:
        self.text += data


def page(run_dir: Path) -> tuple[str, Page]:
    html = (run_dir / "report.html").read_text()
    parser = Page()
    parser.feed(html)
    return html, parser


def test_the_report_is_one_file_that_loads_nothing(written: tuple[Path, dict[str, Any]]) -> None:
    html, parsed = page(written[0])
    assert len(parsed.loads) == 3
    assert all(load.startswith("data:image/png;base64,") for load in parsed.loads)
    assert not re.search(r"url\(|@import|https?://", html)
    assert not parsed.tags & {"script", "link", "iframe", "object"}
    assert "beats no augmentation" in parsed.text
    assert "TrivialAugment it is not settled" in parsed.text


def test_the_report_escapes_what_users_name(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    write(
        tmp_path,
        name=evil,
        config={"data": {"root": evil, "n": float("nan")}},
        classes=[evil],
        tracking={"uri": "x", "experiment": evil, "run_id": "0", "command": evil},
        evaluations=evaluation_results({evil: [1.0, 2.0], "learned": [1.0, 2.0]}),
    )
    html, parsed = page(tmp_path)
    assert "<script" not in html
    assert evil in parsed.text


def test_a_failure_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise RuntimeError("drawing failed")

    with monkeypatch.context() as broken:
        broken.setattr(_write, "augmented_png", fail)
        with pytest.raises(RuntimeError):
            write(tmp_path)
    assert list(tmp_path.iterdir()) == []

    original = _write.write_whole

    def full_disk(path: Path, content: bytes) -> None:
        if path.name == "report.html":
            raise OSError(28, "No space left on device")
        original(path, content)

    monkeypatch.setattr(_write, "write_whole", full_disk)
    with pytest.raises(RaysearchError, match=r"report\.html: No space left on device"):
        write(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == (FILES | {"policies"}) - {"report.html", "summary.json"}


def test_failed_trials_and_missing_policies_are_reported(tmp_path: Path) -> None:
    evaluations = evaluation_results({"none": [9.0, 9.5], "learned": [4.0]})
    info = TrialInfo("learned-1", "evaluation", "learned seed 1", "learned", 1)
    evaluations.append(TrialResult(info, [], {}, 1.0, 1.0, 1.0, "out of memory"))
    summary = write(tmp_path, evaluations=evaluations)
    assert summary["failed"] == [{"trial": "learned seed 1", "error": "out of memory"}]
    assert summary["differences"]["none"]["seeds"] == 1
    assert "out of memory" in page(tmp_path)[1].text
    assert "learned policy (1/2)" in shown(summary)


def test_a_policy_that_applies_nothing_is_said_to(tmp_path: Path) -> None:
    zero = torch.zeros(28, 2)
    idle = SubPolicies.pairs(NAMES, probabilities=zero)
    summary = write(tmp_path, policy=idle, seed_policies={0: idle})
    said = "The learned policy applies nothing (0.000 operations an image)"
    assert said in (tmp_path / "report.html").read_text()
    assert said in shown(summary, width=200)


def test_errors_of_guessing_are_said_to_say_nothing(tmp_path: Path) -> None:
    guessed = evaluation_results({"none": [90.0, 89.0], "learned": [88.0, 91.0]})
    known = {"guess_error": 90.0, "images": {"train": 100, "val": 0, "test": 400, "skipped": 0}}
    summary = write(tmp_path, evaluations=guessed, **known)
    said = "Nothing here can be told from guessing: the lowest error is 89.50 %"
    assert said in (tmp_path / "report.html").read_text()
    assert said in shown(summary, width=200)
    for changes in (known, {"evaluations": guessed}, {**known, "evaluations": []}):
        assert "told from guessing" not in shown(write(tmp_path, **changes))
    hundred = {**known, "guess_error": 99.0, "evaluations": guessed}
    assert "told from guessing" not in shown(write(tmp_path, **hundred))


def test_no_evaluation_and_a_policy_without_history(tmp_path: Path) -> None:
    policy: Policy = trivial_augment()
    info = TrialInfo("s", "search", "range seed 0", None, 0)
    search = [TrialResult(info, [], {}, 1.0, 1.0, 0.0)]
    summary = write(
        tmp_path, policy=policy, seed_policies={0: policy}, search=search, evaluations=[]
    )
    assert summary["errors"] == {}
    assert "No policy was evaluated" in page(tmp_path)[1].text
    assert "Search cost" in shown(summary)


def shown(summary: dict[str, Any], width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(result_table(summary))
    return out.getvalue()


def test_the_table_fits_eighty_columns_and_says_it_all(
    written: tuple[Path, dict[str, Any]],
) -> None:
    summary = {**written[1], "directory": "runs/demo", "tracking": {"command": "mlflow ui"}}
    text = shown(summary)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("learned policy" in line and "*" in line and "4.40 ± 0.29" in line for line in lines)
    for words in ("epoch-equivalents", "TrivialAugment", "runs/demo/report.html", "mlflow ui"):
        assert words in text
    assert "not settled" in text
    strongest = max(summary["policy"]["operations"], key=summary["policy"]["operations"].get)
    assert strongest in text


def test_the_report_says_how_to_use_the_policy_on_the_same_images(tmp_path: Path) -> None:
    flips = {"flip": True, "vertical_flip": False, "padding": 2, "cutout": 0}
    write(tmp_path, predefined=flips)
    code = (tmp_path / "report.html").read_text().partition("v2.Compose([")[2].partition("])")[0]
    lines = [line.strip().partition(",  ")[0].rstrip(",") for line in code.splitlines() if line]
    assert lines[:4] == [
        "v2.Resize(8), v2.CenterCrop(8)",
        "v2.RandomHorizontalFlip()",
        "v2.RandomCrop((8, 8), padding=2)",
        "augment",
    ]


def test_pictures_show_every_class() -> None:
    images = torch.arange(12, dtype=torch.uint8).view(12, 1, 1, 1)
    split = TensorSplit(images, torch.tensor([0] * 9 + [2, 1, 1]))
    assert _samples(split).flatten().tolist() == [0, 9, 10, 1, 11, 2, 3, 4, 5, 6, 7, 8]
