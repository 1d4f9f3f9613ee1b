"""What an experiment leaves behind: files that are whole, and pages that work offline."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import _measured
import pytest
import torch
from _measured import (
    EPOCHS,
    ERRORS,
    NAMES,
    PARAMETERS,
    baselines,
    compared,
    evaluations,
    joint,
    joint_searches,
    one_method,
    searches,
)
from PIL import Image
from rich.console import Console
from torch import Tensor

from raysearch import results
from raysearch.errors import RaysearchError
from raysearch.policy import (
    Candidates,
    Mixture,
    Schedule,
    SubPolicies,
    Transformations,
    read_policy,
    trivial_augment,
)
from raysearch.results import Measured, MethodMeasured, _write, history
from raysearch.results._augmented import augmented_png
from raysearch.results._curves import curves_png, policy_png
from raysearch.results._words import UNITS, method_label
from raysearch.trials import TrialResult

FILES = {
    "policy.json",
    "summary.json",
    "trials.parquet",
    "history.parquet",
    "table.csv",
    "table.tex",
    "policy.png",
    "augmented.png",
    "cost_error.png",
    "report.html",
}


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


def page(folder: Path) -> tuple[str, Page]:
    html = (folder / "report.html").read_text()
    parser = Page()
    parser.feed(html)
    return html, parser


def shown(result: Any, width: int = 80, quiet: bool = False) -> str:
    out = io.StringIO()
    results.show(Console(file=out, width=width), result, quiet)
    return out.getvalue()


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is drawn, which takes seconds."""
    monkeypatch.setattr(_write, "pictures", lambda measured: {})
    monkeypatch.setattr(_write, "cost_png", lambda summary: None)


Written = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("run")
    return folder, results.write(folder, one_method())


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("compared")
    return folder, results.write(folder, compared(name="<i>c</i>"))


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("joint")
    return folder, results.write(folder, joint())


# Files


def test_all_files_are_there_and_nothing_else(written: Written) -> None:
    folder, returned = written
    assert {path.name for path in folder.iterdir()} == FILES | {"policies"}
    own = folder / "policies" / "dada"
    assert {path.name for path in own.iterdir()} == {"seed-0.json", "seed-1.json"}
    assert len(read_policy(folder / "policy.json").marginals()) == len(NAMES)
    assert json.loads((folder / "summary.json").read_text()) == returned
    assert {"raysearch", "python", "torch", "ray", "mlflow"} <= set(returned["versions"])
    for name in ("policy.png", "augmented.png", "cost_error.png"):
        with Image.open(folder / name) as picture:
            picture.load()
            assert picture.width >= 600


def test_several_methods_have_a_policy_and_pictures_each(several: Written) -> None:
    folder, _ = several
    names = ("aws", "dada", "none", "trivial_augment")
    assert {path.name for path in folder.glob("policies/*.json")} == {f"{n}.json" for n in names}
    assert len(list(folder.glob("pictures/*-augmented.png"))) == 4
    assert not (folder / "policy.json").exists()


def test_a_failure_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise RuntimeError("drawing failed")

    with monkeypatch.context() as broken:
        broken.setattr(_write, "pictures", fail)
        with pytest.raises(RuntimeError):
            results.write(tmp_path, one_method())
    assert list(tmp_path.iterdir()) == []

    original = _write.write_whole

    def full_disk(path: Path, content: bytes) -> None:
        if path.name == "report.html":
            raise OSError(28, "No space left on device")
        original(path, content)

    monkeypatch.setattr(_write, "write_whole", full_disk)
    with pytest.raises(RaysearchError, match=r"report\.html: No space left on device"):
        results.write(tmp_path, one_method())
    left = {path.name for path in tmp_path.iterdir()}
    assert left == (FILES | {"policies"}) - {"report.html", "summary.json"}


def test_csv_and_latex(several: Written) -> None:
    lines = list(csv.DictReader(io.StringIO((several[0] / "table.csv").read_text())))
    assert [line["name"] for line in lines] == ["none", "trivial_augment", "dada", "aws"]
    assert float(lines[2]["trainings_bought"]) == pytest.approx(5)
    assert (lines[0]["minus_none"], lines[2]["about"]) == ("", "policy")
    latex = (several[0] / "table.tex").read_text()
    assert r"\textbf{DADA} & \textbf{4.40 $\pm$ 0.10}" in latex
    assert r"\toprule" in latex


# The page


def test_the_page_is_one_file_that_loads_nothing(written: Written, several: Written) -> None:
    for folder, _ in (written, several):
        html, parsed = page(folder)
        assert parsed.loads
        assert all(load.startswith("data:image/png;base64,") for load in parsed.loads)
        assert not re.search(r"url\(|@import|https?://", html)
        assert not parsed.tags & {"script", "link", "iframe", "object"}
    text = page(written[0])[1].text
    assert "beats no augmentation" in text
    assert "TrivialAugment it is not settled" in text
    assert "about this one policy" in text
    assert "Images: 12,345 train, 360 test, 3 skipped." in text
    assert "<i>c</i>" in page(several[0])[1].text  # escaped, or it were no text


@pytest.mark.usefixtures("undrawn")
def test_the_page_escapes_what_users_name(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    results.write(
        tmp_path,
        one_method(
            name=evil,
            configuration={"data": {"root": evil, "n": float("nan")}},
            classes=[evil],
            tracking={"uri": "x", "experiment": evil, "run_id": "0", "command": evil},
            trials=baselines({evil: [1.0, 2.0], "learned": [1.0, 2.0]}),
        ),
    )
    html, parsed = page(tmp_path)
    assert "<script" not in html
    assert evil in parsed.text


@pytest.mark.usefixtures("undrawn")
def test_failed_seeds_are_shown_in_place_of_a_mean(tmp_path: Path) -> None:
    trials = baselines({"none": [9.0, 9.5]})
    trials += evaluations("dada", "learned", [4.0, 0.0], failed={1: "out of memory"})
    summary = results.write(tmp_path, one_method(trials=trials))
    text = page(tmp_path)[1].text
    for said in ("seed 1 failed", "learned seed 1: out of memory"):
        assert said in text
    assert "learned policy (1/2)" in shown(summary)
    assert "seed 1 failed" in shown(summary)


@pytest.mark.usefixtures("undrawn")
def test_no_evaluation_and_a_policy_without_history(tmp_path: Path) -> None:
    policy = trivial_augment()
    bare = [replace(searches("dada", 1)[0], history=[], metrics={})]
    method = MethodMeasured("learned", policy, {0: policy})
    summary = results.write(tmp_path, one_method(trials=bare, methods={"dada": method}))
    assert summary["errors"] == {}
    assert "No policy was evaluated" in page(tmp_path)[1].text
    assert "Search cost" in shown(summary)


def test_the_page_says_how_to_use_the_policy_on_the_same_images(written: Written) -> None:
    html = (written[0] / "report.html").read_text()
    code = html.partition("v2.Compose([")[2].partition("])")[0]
    lines = [line.strip().partition(",  ")[0].rstrip(",") for line in code.splitlines() if line]
    assert lines[:4] == [
        "v2.Resize(8), v2.CenterCrop(8)",
        "v2.RandomHorizontalFlip()",
        "v2.RandomCrop((8, 8), padding=2)",
        "augment",
    ]
    text = page(written[0])[1].text
    assert "mirroring left-right, random crops after padding by 2 px. Use both." in text
    assert 'load_policy("runs/demo/policy.json")' in text  # from where ImageFolder's path goes, too


def test_several_methods_are_side_by_side(several: Written) -> None:
    text = page(several[0])[1].text
    assert "Between what was searched" in text
    assert "operations an image" in text
    assert 'load_policy("runs/compare-digits/policies/aws.json")' in text
    assert "With a budget of 51.0 plain trainings or more: AWS, 4.20 %" in text


class Columns(HTMLParser):
    """Counts the cells of every row of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[int] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.counts.append(0)
        elif tag in ("td", "th"):
            self.counts[-1] += 1


@pytest.mark.usefixtures("undrawn")
def test_no_table_is_wider_than_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched = ("dada", "aws", "fast_autoaugment", "validated_magnitude", "pba", "ohl", "ddas")
    names = ("none", "trivial_augment", *searched, "bilevel", "stn", "randaugment")
    monkeypatch.setattr(_measured, "COMPARED", {name: [9.0, 9.4, 8.8] for name in names})
    monkeypatch.setattr(_measured, "SEARCHES", dict.fromkeys(searched, 1000.0))
    results.write(tmp_path, compared())
    html, text = page(tmp_path)
    columns = Columns()
    columns.feed(html)
    assert max(columns.counts) <= 9  # 8 of shares, 5 of differences, with a name each
    assert text.text.count("row − column") == 2
    for name in searched:  # each has its columns somewhere
        assert html.count(f">− {method_label(name)}<") >= 1


# The terminal


def test_the_table_fits_eighty_columns_and_says_it_all(written: Written, several: Written) -> None:
    text = shown({**written[1], "directory": "runs/demo", "tracking": {"command": "mlflow ui"}})
    assert max(map(len, text.splitlines())) <= 80
    assert any("learned policy *" in line and "4.40 ± 0.29" in line for line in text.splitlines())
    for words in ("epoch-equivalents", "TrivialAugment", "runs/demo/report.html", "mlflow ui"):
        assert words in text
    assert "not settled" in text
    text = shown({**several[1], "directory": "runs/c"})
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


def test_quiet_is_two_lines() -> None:
    trials = baselines({"none": [4.0], "learned": [2.5, 3.5]})
    assert shown(one_method(trials=trials), quiet=True).splitlines() == [
        "test error in %: no augmentation 4.00, learned policy 3.00 ± 0.71",
        "runs/demo/report.html",
    ]


def test_a_policy_that_applies_nothing_is_said_to() -> None:
    idle = SubPolicies.pairs(NAMES, probabilities=torch.zeros(28, 2))
    measured = one_method(methods={"dada": MethodMeasured("learned", idle, {0: idle})})
    said = "The learned policy applies nothing (0.000 operations an image)"
    assert said in shown(measured, width=200)


@pytest.mark.parametrize(("distance", "count"), [(0.0002, 1), (0.002, 0), (None, 0)])
def test_a_search_that_learned_nothing_is_said_to(distance: float | None, count: int) -> None:
    measured = one_method()
    last = measured.history["epoch"] == 4
    measured.history.loc[last, "kl_uniform"] = distance
    if distance is None:
        del measured.history["kl_uniform"]
    said = "has hardly moved from where its search began"
    assert shown(measured, width=400).count(said) == count


# Networks that searches trained, policies of continuous parameters and those that change


def test_networks_and_parameters_are_shown(networks: Written) -> None:
    folder, summary = networks
    found = summary["methods"]["dada"]["policy"]
    assert found["operations"] == {}
    assert list(found["parameters"]) == ["rotation", *PARAMETERS]
    assert set(found["parameters"]) == set(UNITS)
    assert found["phases"] == EPOCHS
    rotation = found["parameters"]["rotation"]
    text = page(folder)[1].text
    for words in (shown(summary), text):
        joined = " ".join(words.split())
        assert "The jointly trained network beats the learned policy by 1.08 points" in joined
        assert f"± {rotation['std']:.1f}" in words
        assert "degrees" in words
        assert "KL divergence" not in words
    assert "augment.progress = epoch / epochs" in text
    assert 'raysearch.load_network("runs/demo/networks/dada/seed-0.pt")' in text


def test_everything_fits_eighty_columns() -> None:
    trials = [*joint_searches()[1], *baselines({**ERRORS, "uniform": [44.0, 45.0]})]
    for measured in (joint(), joint(trials=trials)):
        text = shown(measured)
        lines = text[: text.index("\nreport ")].splitlines()
        assert max(map(len, lines)) <= 80
        assert "…" not in text


@pytest.mark.usefixtures("undrawn")
def test_a_schedule_of_operations_has_both_figures_and_phases(tmp_path: Path) -> None:
    phases = [
        Candidates(NAMES, torch.full((8,), 0.5), torch.rand(8), augment) for augment in (0.2, 0.8)
    ]
    method = MethodMeasured("learned", Schedule(phases), {0: Schedule(phases)})
    summary = results.write(tmp_path, one_method(methods={"dada": method}))
    policy = summary["methods"]["dada"]["policy"]
    assert (policy["phases"], policy["operations_per_image"]) == (2, pytest.approx(1.0))
    assert "Strongest of 8 operations over the training" in shown(summary)
    text = page(tmp_path)[1].text
    assert "changes over a training, 2 phases" in text
    assert "phase 2 of 2" in text


# Pictures


def size(picture: bytes | None) -> tuple[int, int]:
    assert picture is not None
    return Image.open(io.BytesIO(picture)).size


@pytest.mark.parametrize("shape", [(1, 3, 32, 48), (3, 1, 8, 8), (2, 3, 200, 150)])
def test_augmented_pictures_of_all_shapes(shape: tuple[int, ...]) -> None:
    samples = torch.randint(0, 256, shape).to(torch.uint8)
    first = augmented_png(SubPolicies.pairs(NAMES), samples)
    assert size(first)[0] > 50
    assert first == augmented_png(SubPolicies.pairs(NAMES), samples)  # the draws are seeded


class Watched(Schedule):
    """Notes for which points of a training it was asked."""

    asked: list[float]

    def __call__(
        self, images: Tensor, generator: torch.Generator | None = None, progress: float = 0.0
    ) -> Tensor:
        self.asked.append(progress)
        return images


def test_images_are_shown_at_four_points_of_the_training() -> None:
    policy = Watched(2 * [SubPolicies.pairs(NAMES)])
    policy.asked = []
    assert size(augmented_png(policy, torch.zeros(3, 1, 8, 8, dtype=torch.uint8)))[1] > 800
    assert policy.asked == pytest.approx([p for p in (0, 1 / 3, 2 / 3, 1) for _ in range(2)])


def test_a_mixture_of_schedules_is_shown_too() -> None:
    policies = joint().methods["dada"].seed_policies
    picture = augmented_png(Mixture(list(policies.values())), torch.zeros(3, 3, 8, 8).byte())
    assert size(picture)[1] > 800


@pytest.mark.parametrize(("names", "rows"), [(("tx", "ty"), 1), (PARAMETERS, 3)])
def test_each_parameter_has_a_panel(names: tuple[str, ...], rows: int) -> None:
    policy = Transformations(names, torch.randn(5, len(names)))
    record = {"epoch": 1.0}
    for name, (mean, std) in policy.parameters().items():
        record |= {f"mean/{name}": mean, f"std/{name}": std}
    search = [replace(searches("dada", 1)[0], history=[record, {**record, "epoch": 2.0}])]
    assert size(policy_png(history(search), policy, {})) == (1040, round(130 * (0.3 + 1.7 * rows)))


def test_a_search_that_reports_nothing_has_its_policy_drawn() -> None:
    assert size(policy_png(history([]), SubPolicies.pairs(NAMES), {}))[0] > 500


def test_curves_show_how_often_images_are_augmented_and_bear_trials_that_ended_early() -> None:
    search: list[TrialResult] = searches("dada", 2)
    one_row = size(curves_png(history(search)))[1]
    longer = [
        [{**record, "augment": 0.5, "entropy": 1.0} for record in result.history]
        for result in search
    ]
    changed = [
        replace(search[0], history=longer[0]),
        replace(search[1], history=longer[1][:2]),
    ]
    assert size(curves_png(history(changed)))[1] > one_row
    assert curves_png(history([])) is None


@pytest.fixture
def finished(tmp_path: Path) -> Measured:
    results.write(tmp_path, one_method(trials=baselines(ERRORS)))
    return results.read(tmp_path)


def test_a_picture_is_kept_where_images_are_not(finished: Measured, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    results.write(again, finished)
    assert (again / "augmented.png").read_bytes() == (tmp_path / "augmented.png").read_bytes()
