"""The settings of experiments: what is a method's own, what all share, and what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysearch.cli._compare import Given, own_settings
from raysearch.errors import RaysearchError
from raysearch.experiment._compose import to_yaml
from raysearch.experiment._experiment import (
    Experiment,
    check_same,
    compose_experiment,
    compose_run,
    read_experiment,
)
from raysearch.experiment._folder import Folder, create, resume
from raysearch.experiment._overrides import overrides_of
from raysearch.experiment._session import earlier


def test_settings_of_one_method() -> None:
    asked = compose_experiment(["none", "dada"], ["dada.search.epochs=7", "evaluation.seeds=2"])
    assert asked.settings.name == "compare-digits"
    assert asked.methods["dada"].settings.search.epochs == 7
    assert asked.methods["none"].settings.search.epochs == 200
    assert asked.settings.tracking.experiment == "compare-digits"
    assert asked.settings.evaluation.policies == ["none", "dada"]
    assert all(len(each.settings.evaluation.seeds) == 2 for each in asked.methods.values())


@pytest.mark.parametrize(
    "experiment",
    [
        lambda: compose_run(["method=aws", "name=mine"]),
        lambda: compose_experiment(["none", "dada", "aws"], ["dada.search.epochs=7"]),
    ],
)
def test_settings_come_back_from_a_file(experiment: object, tmp_path: Path) -> None:
    asked: Experiment = experiment()  # type: ignore[operator]
    (tmp_path / "config.yaml").write_text(to_yaml(asked.document()))
    assert read_experiment(tmp_path / "config.yaml") == asked


@pytest.mark.parametrize(
    ("methods", "overrides", "said"),
    [
        (["dada"], ["dada.data.limit=9"], "data is the comparison's, not a method's own"),
        (["dada"], ["dada.metric.x=auroc"], "metric is the comparison's, not a method's own"),
        ([], [], "name what to compare"),
        (["none", "dadda"], [], "unknown method 'dadda': did you mean 'dada'"),
        (["none", "none"], [], "names a method twice"),
        (["none"], ["dada.search.epochs=3"], "dada is not one of"),
        (["none"], ["method=dada"], r"in a comparison give methods="),
        (["none"], ["evaluation.policies=[none]"], r"in a comparison give methods="),
        (["dada"], ["dada.search.epoch=3"], "did you mean 'search.epochs'"),
        (["none", "dada_paper"], [], "model.name is small_cnn in one and wrn40x2 in the other"),
        (["none", "dada"], ["dada.evaluation.epochs=3"], "evaluation.epochs is 150 in one and 3"),
    ],
)
def test_wrong_settings(methods: list[str], overrides: list[str], said: str) -> None:
    with pytest.raises(RaysearchError, match=said):
        compose_experiment(methods, overrides)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("methods=none", "methods='none': expected a list"),
        ("runs=", "runs='': expected a list"),
    ],
)
def test_wrong_settings_of_a_comparison(line: str, said: str) -> None:
    with pytest.raises(RaysearchError, match=said):
        own_settings([line])


def test_settings_of_a_comparison() -> None:
    given, rest = own_settings(["methods=[a,b]", "experiment=7", "seeds=2"])
    assert given == Given(methods=("a", "b"), experiment="7")
    assert [str(one) for one in rest] == ["seeds=2"]


def test_an_experiment_goes_on_with_its_settings() -> None:
    before = compose_experiment(["none", "dada"], [])
    check_same(Path("runs/c"), before, compose_experiment(["none", "dada", "aws"], []))
    check_same(Path("runs/c"), before, compose_experiment(["none", "dada"], ["device=cpu"]))
    check_same(
        Path("runs/c"), before, compose_experiment(["none", "dada"], ["none.search.epochs=3"])
    )
    other = compose_experiment(["none", "dada"], ["dada.search.epochs=3"])
    with pytest.raises(RaysearchError, match=r"runs/c began with search.epochs=200, not 3"):
        check_same(Path("runs/c"), before, other)
    check_same(Path("runs/c"), before, other, anew=["dada"])
    with pytest.raises(RaysearchError, match=r"began with evaluation.epochs=150, not 3"):
        check_same(Path("runs/c"), before, compose_experiment(["aws"], ["evaluation.epochs=3"]))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """Of a comparison of which one method is complete and one has failed."""
    monkeypatch.chdir(tmp_path)
    made = create(compose_experiment(["none", "dada"], ["name=c"]))
    made.mark(["none"], "complete")
    made.mark(["dada"], "failed")
    (made.trials / "search-dada-seed-0").mkdir(parents=True)
    (made.trials / "evaluation-none-seed-0").mkdir(parents=True)
    (made.path / "shared/dada").mkdir(parents=True)
    made.release()
    return made


def test_a_comparison_takes_in_methods(folder: Folder) -> None:
    again = earlier(compose_experiment(["dada", "aws"], ["name=c"]))
    assert again is not None
    assert list(again.experiment.methods) == ["none", "dada", "aws"]
    assert again.experiment.settings.evaluation.policies == ["none", "dada", "aws"]
    assert (again.trials / "search-dada-seed-0").exists()
    again.release()


def test_a_failed_method_begins_anew_with_other_settings(folder: Folder) -> None:
    again = earlier(compose_experiment(["dada"], ["name=c", "dada.search.epochs=3"]))
    assert again is not None
    assert again.experiment.methods["dada"].settings.search.epochs == 3
    assert (again.trials / "search-dada-seed-0").exists()  # until it begins
    again.configure(again.experiment)
    assert not (again.trials / "search-dada-seed-0").exists()
    assert not (again.path / "shared/dada").exists()
    assert (again.trials / "evaluation-none-seed-0").exists()
    assert again.complete == ["none"]
    again.release()


@pytest.mark.parametrize("status", ["failed", None])
def test_a_method_that_leaves_is_forgotten(folder: Folder, status: str | None) -> None:
    if status is None:  # stopped
        folder.state["methods"].pop("dada")
        folder.save()
    again = earlier(compose_experiment(["none", "ddas"], ["name=c"]))
    assert again is not None
    assert again.anew == ["dada"]
    again.configure(again.experiment)
    again.release()
    assert not (again.trials / "search-dada-seed-0").exists()
    back = earlier(compose_experiment(["none", "dada"], ["name=c", "dada.search.epochs=3"]))
    assert back is not None
    assert back.failed == []
    back.release()


def test_other_resources_are_no_other_settings(folder: Folder) -> None:
    again = earlier(compose_experiment(["dada"], ["name=c", "dada.search.cpus_per_trial=1"]))
    assert again is not None
    assert not again.anew
    again.release()


def test_a_folder_is_held_by_one_process_at_a_time(folder: Folder) -> None:
    first = resume("c", "runs")
    with pytest.raises(RaysearchError, match="c is still going on in another process"):
        resume("c", "runs")
    (first.path / "config.yaml").write_text("half of")  # it is writing
    with pytest.raises(RaysearchError, match="c is still going on in another process"):
        resume("c", "runs")
    first.configure(first.experiment)
    first.release()
    first.release()
    resume("c", "runs").release()


def test_a_run_is_no_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    create(compose_run(["name=c"])).release()
    with pytest.raises(RaysearchError, match="runs/c is a run, not a comparison"):
        earlier(compose_experiment(["none"], ["name=c"]))


def test_a_run_goes_on_with_its_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    create(compose_run(["name=c", "method=dada"])).release()
    with pytest.raises(RaysearchError, match=r"runs/c began with method.*, not"):
        earlier(compose_run(["name=c", "method=ddas"]))
    again = earlier(compose_run(["name=c", "method=dada"]))
    assert again is not None
    again.release()


@pytest.mark.parametrize(
    "text", ["it's", "a b", "null", "7", "a,b", "back\\", "\\'", "s3://bucket/x", "", "[x]", "$"]
)
def test_words_reach_the_settings_as_they_are(text: str) -> None:
    lines = list(overrides_of({"data.root": text, "evaluation": {"seeds": [3, 4]}}))
    settings = compose_run(["data=folder", *lines]).settings
    assert settings.data.model_dump()["root"] == text
    assert settings.evaluation.seeds == [3, 4]
