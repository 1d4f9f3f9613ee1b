"""The frame and the rows that are made of it: figures that are right, and what they are about."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from _measured import (
    AUROC,
    COMPARED,
    ERRORS,
    NETWORKS,
    baselines,
    compared,
    compared_trials,
    evaluations,
    joint,
    joint_searches,
    one_method,
    searches,
)
from scipy import stats

from raysearch import results
from raysearch.errors import RaysearchError
from raysearch.results import (
    Measured,
    _write,
    join,
    mean_and_std,
    paired_difference,
    summarise,
)
from raysearch.results._statements import statements, verdict


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is drawn, which takes seconds."""
    monkeypatch.setattr(_write, "pictures", lambda measured: {})
    monkeypatch.setattr(_write, "cost_png", lambda summary: None)


# Statistics


def test_paired_difference_has_the_textbook_interval() -> None:
    # Differences 1, 2, 3, 4, 5: mean 3, deviation √2.5, t(0.975, 4) = 2.776445.
    values = {seed: 10.0 + seed for seed in range(1, 6)}
    found = paired_difference(values, dict.fromkeys(range(1, 6), 10.0))
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
    assert mean_and_std([3.0]) == (3.0, None)
    found = paired_difference({0: 1.0}, {0: 2.0})
    assert found is not None
    assert found["low"] is None
    assert "settles nothing" in verdict("x", found, "y", AUROC)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(-2.0, -0.1, "beats"), (0.1, 2.0, "is worse than"), (-0.1, 2.0, "not settled")],
)
def test_the_verdict_follows_the_interval_and_the_metric(
    low: float, high: float, words: str
) -> None:
    facts = {"mean": (low + high) / 2, "low": low, "high": high, "seeds": 5, "confidence": 0.95}
    assert words in verdict("x", facts, "y", one_method().metric)
    reversed_facts = {**facts, "mean": -facts["mean"], "low": -high, "high": -low}
    assert words in verdict("x", reversed_facts, "y", AUROC)


# The frame


def test_the_frame_has_a_row_a_trial() -> None:
    table = one_method().trials
    assert len(table) == 2 + 20
    row = table[table["trial"] == "learned-3"].iloc[0]
    assert (row["method"], row["stage"], row["policy"]) == ("dada", "evaluation", "learned")
    assert (row["seed"], row["test_error"], row["device_seconds"]) == (3, 4.0, 2.0)
    assert table["error"].isna().all()
    assert pd.isna(table[table["stage"] == "search"]["policy"]).all()


def test_the_history_has_a_row_a_trial_and_epoch() -> None:
    table = one_method().history
    assert len(table) == 2 * 4 + 20 * 2
    row = table.iloc[1]
    assert (row["trial"], row["epoch"], row["val_loss"]) == ("search-dada-0", 2, 0.6)
    assert table["val_loss"].isna().sum() == 40


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("measured", [one_method(), compared(), joint(2)])
def test_what_is_written_is_read_back(tmp_path: Path, measured: Measured) -> None:
    summary = results.write(tmp_path, measured)
    again = summarise(replace(results.read(tmp_path), folder=measured.folder))
    for key in ("rows", "errors", "differences", "search", "evaluations", "seeds", "configuration"):
        assert again[key] == summary[key]
    pd.testing.assert_frame_equal(results.read(tmp_path).trials, measured.trials)
    pd.testing.assert_frame_equal(results.read(tmp_path).history, measured.history)
    for name, method in results.read(tmp_path).methods.items():
        assert method.policy.marginals() == pytest.approx(measured.methods[name].policy.marginals())
        assert list(method.seed_policies) == list(measured.methods[name].seed_policies)


@pytest.mark.usefixtures("undrawn")
def test_an_experiment_without_any_trial_can_be_read_back(tmp_path: Path) -> None:
    results.write(tmp_path, one_method(trials=[]))
    assert results.read(tmp_path).trials.empty


@pytest.mark.usefixtures("undrawn")
def test_what_is_no_finished_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RaysearchError, match="holds no finished run"):
        results.read(tmp_path)
    results.write(tmp_path, one_method())
    (tmp_path / "summary.json").write_text("[1]")
    with pytest.raises(RaysearchError, match="is not a run's summary: it has no 'name'"):
        results.read(tmp_path)


@pytest.mark.usefixtures("undrawn")
def test_a_summary_is_read_with_all_its_fields_but_for_notes_which_older_ones_lack(
    tmp_path: Path,
) -> None:
    summary = results.write(tmp_path, one_method())
    (tmp_path / "summary.json").write_text(json.dumps({**summary, "notes": ["odd"]}))
    assert list(results.read(tmp_path).notes) == ["odd"]
    del summary["notes"]
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert list(results.read(tmp_path).notes) == []
    del summary["classes"]
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(RaysearchError, match="it has no 'classes'"):
        results.read(tmp_path)


# Rows


def test_figures_of_one_method() -> None:
    summary = summarise(one_method())
    assert list(summary["rows"]) == list(ERRORS)
    assert summary["search"] == {
        "wall_seconds": 12.0,
        "device_seconds": 10.0,
        "epoch_equivalents": 88.0,
    }
    learned = summary["errors"]["learned"]
    assert learned["runs"] == ERRORS["learned"]
    assert learned["mean"] == pytest.approx(np.mean(ERRORS["learned"]))
    assert learned["std"] == pytest.approx(np.std(ERRORS["learned"], ddof=1))
    expected = stats.ttest_rel(ERRORS["learned"], ERRORS["predefined"]).confidence_interval(0.95)
    found = summary["differences"]["learned"]["predefined"]
    assert (found["low"], found["high"]) == pytest.approx(tuple(expected))
    assert set(summary["differences"]["learned"]) == {"none", "predefined", "trivial_augment"}
    assert summary["evaluations"]["none"]["device_seconds"] == 10.0
    assert summary["seeds"] == {"search": [0, 1], "evaluation": [0, 1, 2, 3, 4]}
    operations = summary["methods"]["dada"]["policy"]["operations"]
    assert sum(operations.values()) == pytest.approx(1.0)


def test_costs_are_in_plain_trainings() -> None:
    summary = summarise(compared())
    dada = summary["rows"]["dada"]
    assert summary["plain_training"] == "none"
    assert dada["trainings_bought"] == pytest.approx(5)  # 100 over 20
    assert dada["total_trainings"] == pytest.approx(6)
    assert dada["total_time"] == pytest.approx((2 * 5 + 2) / 2)
    assert dada["search"]["epoch_equivalents"] == pytest.approx(10)  # plain epochs
    assert summary["rows"]["none"]["trainings_bought"] == 0
    assert summary["rows"]["none"]["total_trainings"] == 1
    assert summary["methods"]["dada"]["search"]["wall_seconds"] == 50.0


def test_costs_do_not_depend_on_what_a_search_holds_back_for_validation() -> None:
    measured = compared()
    smaller = [
        replace(result, epoch_equivalents=result.epoch_equivalents * 1.25)
        if result.trial.method == "aws"
        else result
        for result in compared_trials()
    ]
    one, other = summarise(measured), summarise(compared(trials=smaller))
    for key in ("search", "training", "trainings_bought", "total_trainings"):
        assert one["rows"]["aws"][key] == pytest.approx(other["rows"]["aws"][key])


def test_the_plain_training_is_the_plainest_that_there_is() -> None:
    def plain(*rows: str) -> str | None:
        measured = one_method(trials=baselines({row: [5.0, 6.0] for row in rows}))
        found: str | None = summarise(measured)["plain_training"]
        return found

    assert plain("uniform", "predefined") == "predefined"
    assert plain("predefined", "none") == "none"
    assert plain("uniform") == "uniform"
    assert plain() is None


def test_the_front_holds_what_nothing_beats_at_its_price() -> None:
    assert summarise(compared())["front"] == ["trivial_augment", "dada", "aws"]


def test_more_is_better_where_the_metric_says_so() -> None:
    runs = {"none": [0.81, 0.82, 0.80], "predefined": [0.7, 0.7, 0.7], "learned": [0.9, 0.91, 0.92]}
    trials = searches("dada", 1)
    for row, values in runs.items():
        trials += evaluations("dada", row, values, metric="test_auroc")
    summary = summarise(one_method(1, metric=AUROC, trials=trials, guess=0.5))
    assert summary["front"] == ["none", "learned"]
    said = statements(summary)
    assert "The learned policy beats no augmentation by 0.1000 " in said[0]
    assert not any("guessing" in line for line in said)
    guessed = summarise(one_method(1, metric=AUROC, trials=trials, guess=0.9))
    assert "the best test AUROC is 0.9100" in statements(guessed)[0]


def test_no_mean_of_the_survivors() -> None:
    trials = searches("dada", 1) + baselines({"none": [9.0, 9.5]})
    trials += evaluations("dada", "learned", [4.0, 0.0], failed={1: "the loss is not finite"})
    summary = summarise(one_method(1, trials=trials))
    assert summary["errors"]["learned"] == {
        "mean": None,
        "std": None,
        "runs": [4.0],
        "seeds": [0],
        "failed": [{"seed": 1, "error": "the loss is not finite"}],
    }
    assert summary["differences"]["learned"] == {}
    assert "learned" not in summary["front"]
    assert summary["failed"] == [{"trial": "learned seed 1", "error": "the loss is not finite"}]
    assert summary["rows"]["learned"]["training"]["device_seconds"] == 2.0


# What an interval is about


def paired() -> Measured:
    """The method judged by a search for every seed, beside the policy that is handed over."""
    trials = searches("dada", 3, 40.0) + baselines({"none": COMPARED["none"]})
    trials += evaluations("dada", "dada (method)", [4.4, 4.6, 4.1], paired=True)
    trials += evaluations("dada", "learned", COMPARED["dada"])
    return one_method(3, trials=trials)


def test_a_search_for_every_seed_makes_it_about_the_method() -> None:
    summary = summarise(paired())
    rows = summary["rows"]
    assert [row["kind"] for row in rows.values()] == ["baseline", "policy", "method"]
    assert [row["about"] for row in rows.values()] == [None, "policy", "method"]
    method, policy = rows["dada (method)"], rows["learned"]
    assert method["search"]["epoch_equivalents"] == pytest.approx(4)  # one search of 40
    assert policy["search"]["epoch_equivalents"] == pytest.approx(12)  # all three
    expected = stats.ttest_rel([4.4, 4.6, 4.1], COMPARED["none"]).confidence_interval(0.95)
    assert summary["differences"]["dada (method)"]["none"]["low"] == pytest.approx(expected.low)
    said = " ".join(statements(summary))
    assert "The intervals of the learned policy are about the one policy" in said
    assert "The intervals of DADA (method) are about the method" in said


def test_one_search_for_all_seeds_is_about_its_policy() -> None:
    trials = searches("dada", 1) + [
        replace(result, trial=replace(result.trial, search_seed=0))
        for result in evaluations("dada", "learned", [4.0, 4.2])
    ]
    assert summarise(one_method(1, trials=trials))["rows"]["learned"]["about"] == "policy"


def test_networks_of_searches_are_paired_by_seed_with_all_others() -> None:
    summary = summarise(joint())
    assert summary["errors"]["joint"]["runs"] == NETWORKS
    row = summary["rows"]["joint"]
    assert (row["kind"], row["about"]) == ("network", "method")
    assert row["total_trainings"] == pytest.approx(156 / 20)
    assert row["total_time"] == pytest.approx(11 / 2)
    assert summary["rows"]["learned"]["total_trainings"] == pytest.approx((5 * 156 + 20) / 20)
    for name, found in summary["differences"]["joint"].items():
        expected = stats.ttest_rel(NETWORKS, ERRORS[name]).confidence_interval(0.95)
        assert (found["low"], found["high"]) == pytest.approx(tuple(expected))
    said = " ".join(statements(summary))
    assert "The jointly trained network beats the learned policy by 1.08 points" in said


def test_seeds_that_nothing_else_has_are_named() -> None:
    trials = [
        replace(result, trial=replace(result.trial, seed=result.trial.seed + 10))
        if result.trial.stage == "search"
        else result
        for result in [*joint_searches()[1], *baselines(ERRORS)]
    ]
    said = " ".join(statements(summarise(joint(trials=trials))))
    assert "was tested on seeds [10, 11, 12, 13, 14], on which nothing else was" in said


# Sentences


def test_errors_of_guessing_are_said_to_say_nothing() -> None:
    trials = baselines({"none": [90.0, 89.0], "learned": [88.0, 91.0]})
    images = {"train": 100, "val": 0, "test": 400, "skipped": 0}
    summary = summarise(one_method(trials=trials, guess=90.0, images=images))
    assert statements(summary)[0].startswith(
        "Nothing here can be told from guessing: the best test error is 89.50 %"
    )
    for changes in ({"guess": None}, {"guess": 99.0}, {"images": None}, {"trials": []}):
        given = {"trials": trials, "guess": 90.0, "images": images, **changes}
        assert not any("guessing" in line for line in statements(summarise(one_method(**given))))


def test_what_goes_with_a_policy_is_said_where_it_is_another() -> None:
    measured = compared()
    crops = {"flip": False, "padding": 4}
    given = {"trivial_augment": crops, "dada": {"flip": True}}
    methods = {
        name: replace(method, predefined=given.get(name, {}))
        for name, method in measured.methods.items()
    }
    configuration = {**measured.configuration, "data": {"predefined": crops}}
    changed = replace(measured, methods=methods, configuration=configuration)
    assert statements(summarise(changed))[-1] == (
        "Every policy but no augmentation goes with the predefined one: random crops after "
        "padding by 4 px; DADA with this instead: mirroring left-right; AWS goes alone."
    )


def test_a_method_that_could_not_go_on_is_named() -> None:
    said = statements(summarise(compared(failed={"ohl": "everything failed"})))
    assert said[-1] == "OHL could not go on and is left out: everything failed."


# Several experiments


def test_baselines_of_several_experiments_count_once() -> None:
    other = replace(one_method(), name="old", folder="runs/old")
    other = replace(other, configuration=compared().configuration)
    here = compared(classes=other.classes, images=other.images)
    whole = join("c", "runs/compare-digits", [here, other])
    assert whole.trials["trial"].is_unique
    known = whole.trials.set_index("trial")["method"]
    assert set(known.index) == set(whole.history["trial"])
    assert (whole.history["trial"].map(known) == whole.history["method"]).all()
    summary = summarise(whole)
    assert list(summary["rows"]) == [
        *("none", "predefined", "trivial_augment"),
        *("dada", "aws", "dada (old)"),
    ]
    assert summary["errors"]["none"]["runs"] == COMPARED["none"]
    assert summary["errors"]["dada (old)"]["runs"] == ERRORS["learned"]
    assert summary["methods"]["dada (old)"]["folder"] == "runs/old"
    assert summary["methods"]["dada"]["folder"] is None
    assert summary["joined"] == ["old"]
    assert summary["rows"]["dada (old)"]["label"] == "DADA (old)"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": {"train": 7}}, "they have other images"),
        ({"classes": ["c"]}, "they have other classes"),
        ({"metric": AUROC}, "they have other metrics"),
        (("data", "name", "cifar10"), "data.name is digits in one and cifar10 in the other"),
        (("model", "name", "wrn40x2"), "model.name is small_cnn in one and wrn40x2 in the other"),
        (("evaluation", "epochs", 20), "evaluation.epochs is 2 in one and 20 in the other"),
    ],
)
def test_what_differs_cannot_be_compared(change: Any, said: str) -> None:
    other = compared(name="other")
    if isinstance(change, dict):
        other = replace(other, **change)
    else:
        group, key, value = change
        configuration = {**other.configuration, group: {**other.configuration[group], key: value}}
        other = replace(other, configuration=configuration)
    with pytest.raises(RaysearchError, match=said):
        join("c", "here", [compared(), other])


def test_other_roots_of_the_same_data_can() -> None:
    data = {**compared().configuration["data"], "root": "there"}
    other = compared(configuration={**compared().configuration, "data": data}, name="other")
    assert len(join("c", "here", [compared(), other]).methods) == 6
