"""A comparison of runs: figures, pages that work offline, and what cannot be compared."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from scipy import stats

from raysearch.cli._comparison import (
    check_comparable,
    existing,
    name_uniquely,
    read_settings,
)
from raysearch.errors import RaysearchError
from raysearch.report.comparison import Entry, compare, comparison_table, write_comparison
from raysearch.report.comparison._words import remarks

ERRORS = {
    "none": [9.0, 9.4, 8.8],
    "trivial_augment": [4.6, 4.1, 4.9],
    "dada": [4.3, 4.5, 4.4],
    "aws": [4.2, 4.4, 4.0],
}
SEARCH = {"dada": 100.0, "aws": 1000.0}  # epoch-equivalents


def summary(name: str, *, unit: float = 2.0, row: str = "learned", **others: Any) -> dict[str, Any]:
    """Of a run of 10 epochs; a plain epoch over all training images is `unit` equivalents."""
    searched = name in SEARCH
    row = row if searched else name
    training = {"wall_seconds": 8.0, "device_seconds": 4.0, "epoch_equivalents": 10 * unit}
    search = {"wall_seconds": 50.0, "device_seconds": 40.0}
    found = {
        "name": name,
        "row": row,
        "errors": {row: {"runs": ERRORS[name], "seeds": [0, 1, 2], "mean": 0.0, "std": 0.0}},
        "search": {**search, "epoch_equivalents": SEARCH.get(name, 0.0) * unit},
        "evaluations": {row: {"runs": [{"seed": seed, **training} for seed in range(3)]}},
        "seeds": {"search": [0, 1] if searched else [], "evaluation": [0, 1, 2]},
        "policy": {
            "operations": {"Rotate": 0.75, "<b>": 0.25} if name != "none" else {},
            "operations_per_image": 2.0,
            "parameters": {"rotation": {"mean": 0.0, "std": 9.0}} if name == "aws" else {},
        },
        "images": {"train": 100, "val": 0, "test": 1697, "skipped": 0},
        "classes": ["a", "b"],
        "tracking": None,
        "configuration": {
            "method": {"name": name},
            "data": {"name": "digits", "root": "here"},
            "model": {"name": "small_cnn"},
            "evaluation": {"epochs": 10, "enlarge_batch": 1, "policies": [row]},
        },
    }
    return found | others


def entries(**units: float) -> list[Entry]:
    return [Entry(name, summary(name, unit=units.get(name, 2.0))) for name in ERRORS]


def row_of(comparison: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in comparison["rows"] if row["name"] == name)


def test_costs_are_in_plain_trainings() -> None:
    comparison = compare("c", entries())
    dada = row_of(comparison, "dada")
    # 100 plain epochs over all images, where a training has 10
    assert dada["trainings_bought"] == pytest.approx(10)
    assert dada["total_trainings"] == pytest.approx(11)
    assert dada["total_time"] == pytest.approx((40 + 4) / 4)
    assert dada["search"]["epoch_equivalents"] == pytest.approx(100)
    assert row_of(comparison, "none")["trainings_bought"] == 0
    assert row_of(comparison, "none")["total_trainings"] == 1


def test_costs_do_not_depend_on_what_a_search_holds_back_for_validation() -> None:
    one, other = compare("c", entries()), compare("c", entries(aws=1.25))
    assert row_of(one, "aws")["search"] == row_of(other, "aws")["search"]
    assert row_of(one, "aws")["trainings_bought"] == row_of(other, "aws")["trainings_bought"]


def test_what_goes_with_a_policy_is_said_where_it_is_another() -> None:
    crops = {"flip": False, "padding": 4}
    given = entries()
    for entry, own in zip(given, ({}, crops, {"flip": True}, {}), strict=True):
        entry.summary["configuration"]["data"]["predefined"] = crops
        entry.summary["predefined"] = own
    [line] = remarks(compare("c", given))
    assert line == (
        "Every policy but no augmentation goes with the predefined one: random crops after "
        "padding by 4 pixels; DADA with this instead: mirroring left-right; AWS goes without it."
    )


def test_errors_of_guessing_are_said_to_say_nothing() -> None:
    given = entries()
    assert remarks(compare("c", given)) == []
    given[1].summary["guess_error"] = 4.6
    [line] = remarks(compare("c", given))
    assert line.startswith("Nothing here can be told from guessing: the lowest error is 4.20 %")


def test_differences_are_paired_by_seed() -> None:
    dada = row_of(compare("c", entries()), "dada")
    expected = stats.ttest_rel(ERRORS["dada"], ERRORS["none"]).confidence_interval(0.95)
    assert dada["differences"]["none"]["low"] == pytest.approx(expected.low)
    assert dada["differences"]["none"]["high"] == pytest.approx(expected.high)
    assert dada["error"]["mean"] == pytest.approx(4.4)
    assert set(dada["differences"]) == {"none", "trivial_augment"}


def test_the_front_holds_what_nothing_beats_at_its_price() -> None:
    assert compare("c", entries())["front"] == ["trivial_augment", "dada", "aws"]


def test_baselines_of_several_runs_count_once() -> None:
    one, two = summary("dada"), summary("aws")
    for each in (one, two):
        each["errors"]["none"] = {"runs": ERRORS["none"], "seeds": [0, 1, 2]}
        each["evaluations"]["none"] = each["evaluations"]["learned"]
    found = compare("c", [Entry("dada", one), Entry("aws", two)])
    assert [row["name"] for row in found["rows"]] == ["none", "dada", "aws"]
    assert found["plain_training"] == "none"


def test_a_joint_network_costs_one_search_and_no_training() -> None:
    one = summary("dada")
    one["errors"]["joint"] = {"runs": [5.0, 5.5], "seeds": [0, 1]}
    network = row_of(compare("c", [*entries()[:2], Entry("dada", one)]), "dada (network)")
    assert network["trainings_bought"] == pytest.approx(5)
    assert network["total_trainings"] == pytest.approx(5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": {"train": 7}}, "they have other images"),
        ({"classes": ["c"]}, "they have other classes"),
        (("data", "name", "cifar10"), "data.name is digits in one and cifar10 in the other"),
        (("model", "name", "wrn40x2"), "model.name is small_cnn in one and wrn40x2 in the other"),
        (("evaluation", "epochs", 20), "evaluation.epochs is 10 in one and 20 in the other"),
    ],
)
def test_what_differs_cannot_be_compared(change: Any, said: str) -> None:
    other = summary("dada")
    if isinstance(change, dict):
        other |= change
    else:
        group, key, value = change
        other["configuration"][group] = {**other["configuration"][group], key: value}
    with pytest.raises(RaysearchError, match=said):
        compare("c", [Entry("none", summary("none")), Entry("dada", other)])


def test_other_roots_and_seeds_of_the_same_data_can(tmp_path: Path) -> None:
    other = summary("dada")
    other["configuration"]["data"]["root"] = "there"
    assert len(compare("c", [Entry("none", summary("none")), Entry("dada", other)])["rows"]) == 2


def test_files(tmp_path: Path) -> None:
    comparison = compare("<i>c</i>", entries())
    files = write_comparison(tmp_path, comparison)
    assert {file.name for file in files} == {path.name for path in tmp_path.iterdir()}
    page = (tmp_path / "comparison.html").read_text()
    assert "&lt;i&gt;c&lt;/i&gt;" in page
    assert "&lt;b&gt;" in page
    assert "<b></td>" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page
    assert json.loads((tmp_path / "comparison.json").read_text()) == comparison
    lines = list(csv.DictReader(io.StringIO((tmp_path / "comparison.csv").read_text())))
    assert [line["name"] for line in lines] == list(ERRORS)
    assert float(lines[2]["trainings_bought"]) == pytest.approx(10)
    assert lines[0]["minus_none"] == ""
    latex = (tmp_path / "comparison.tex").read_text()
    assert r"\textbf{DADA} & \textbf{4.40 $\pm$ 0.10}" in latex
    assert r"\toprule" in latex


def test_the_table_fits_80_columns() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(comparison_table(compare("c", entries()), ["comparison.html"]))
    shown = console.export_text()
    assert "…" not in shown
    assert "With a budget from 101 plain trainings on: AWS, 4.20 %" in shown


def test_existing_runs(tmp_path: Path) -> None:
    for folder, name in (("one", "dada"), ("two", "dada"), ("all/aws", "aws")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "summary.json").write_text(
            json.dumps(summary(name) | {"name": folder})
        )
    found = name_uniquely(existing([tmp_path / "one", tmp_path / "two", tmp_path / "all"]))
    assert [entry.name for entry in found] == ["dada (one)", "dada (two)", "aws"]
    (tmp_path / "one" / "summary.json").write_text("[1]")
    with pytest.raises(RaysearchError, match="not a run's summary: it has no 'name'"):
        existing([tmp_path / "one"])
    with pytest.raises(RaysearchError, match="nowhere is not there"):
        existing([tmp_path / "nowhere"])


def test_settings_of_one_method() -> None:
    asked = read_settings(["methods=[none,dada]", "dada.search.epochs=7", "evaluation.seeds=2"])
    assert asked.name == "compare-digits"
    assert asked.members["dada"].settings.search.epochs == 7
    assert asked.members["none"].settings.search.epochs == 200
    assert asked.members["none"].settings.evaluation.policies == ["none"]
    assert asked.members["dada"].settings.evaluation.policies == ["learned"]
    assert asked.members["dada"].settings.tracking.experiment == "compare-digits"
    assert all(len(each.settings.evaluation.seeds) == 2 for each in asked.members.values())


def test_runs_of_one_name_are_told_apart() -> None:
    own, other = Entry("dada", summary("dada")), Entry("dada", summary("dada") | {"name": "old"})
    assert [entry.name for entry in name_uniquely([own, other])] == ["dada", "dada (old)"]
    assert [entry.name for entry in name_uniquely([own, own])] == ["dada", "dada #2"]


def test_what_cannot_be_compared_is_said_before_it_is_run() -> None:
    with pytest.raises(RaysearchError, match=r"model.name is small_cnn in one and wrn40x2 in"):
        check_comparable(read_settings(["methods=[none,dada_paper]"]), [])
    other = Entry("old", summary("dada"))
    with pytest.raises(RaysearchError, match="none and old cannot be compared: "):
        check_comparable(read_settings(["methods=[none]"]), [other])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["methods=[dada]", "dada.data.limit=9"], "data is the comparison's, not a method's own"),
        ([], "name what to compare"),
        (["methods=[none,dadda]"], "unknown method 'dadda': did you mean 'dada'"),
        (["methods=none"], r"methods=none: expected a list, for example methods=\[a,b\]"),
        (["methods=[none,none]"], "names a method twice"),
        (["methods=[none]", "dada.search.epochs=3"], "dada is not one of"),
        (["methods=[none]", "method=dada"], r"in a comparison give methods="),
        (["methods=[none]", "evaluation.policies=[none]"], r"in a comparison give methods="),
        (["methods=[dada]", "dada.search.epoch=3"], "did you mean 'search.epochs'"),
        (["experiment=[a]"], "expected a name"),
    ],
)
def test_wrong_settings(overrides: list[str], said: str) -> None:
    with pytest.raises(RaysearchError, match=said):
        read_settings(overrides)
