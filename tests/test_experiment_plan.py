"""What is searched and what is evaluated with what, on recorded answers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from _fake_engine import Recorded, found_by

from raysearch.cli._compare import main as compare
from raysearch.engine import Capacity, Wish
from raysearch.errors import RaysearchError
from raysearch.experiment._entries import Entries
from raysearch.experiment._experiment import Experiment, compose_experiment, compose_run
from raysearch.experiment._folder import Folder, create, resume
from raysearch.experiment._plan import Plan, make_plan
from raysearch.experiment._result import Result
from raysearch.experiment._run import begin
from raysearch.experiment._session import earlier, prepare
from raysearch.policy import SubPolicies, read_policy

QUICK = ["tracking=none", "data.limit=100", "search.epochs=3", "evaluation.epochs=2", "name=mine"]
DADA = "method=dada"  # in a run; a comparison names its own
CPUS = Capacity(2, 0, "cpu")


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> Recorded:
    """The engine with recorded answers, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return Recorded.in_place(monkeypatch)


def carried_out(experiment: Experiment, folder: Folder | None = None) -> Result:
    return begin(prepare(experiment, Wish("cpu", 2, 0), folder=folder), quietly=True)


def rows(fake: Recorded) -> Counter[str]:
    """How many evaluations each row has."""
    return Counter(e.trial.policy for e in fake.entries if e.trial.policy is not None)


def test_a_run_evaluates_the_policies_that_are_named(recorded: Recorded) -> None:
    policies = "evaluation.policies=[none,learned]"
    done = carried_out(compose_run([*QUICK, DADA, policies, "seeds=2", "evaluation.seeds=3"]))
    assert [e.id for e in recorded.entries[:2]] == ["search-dada-seed-0", "search-dada-seed-1"]
    assert rows(recorded) == {"none": 3, "learned": 3}
    evaluations = {e.id: e for e in recorded.entries if e.trial.policy == "learned"}
    merged = SubPolicies.merge([found_by(e.trial) for e in recorded.entries[:2]])
    assert all(each.build.policy == merged for each in evaluations.values())
    assert all(each.trial.search_seed is None for each in evaluations.values())
    assert read_policy(done.folder / "policy.json") == merged
    assert (done.folder / "policies" / "dada" / "seed-1.json").exists()
    assert json.loads((done.folder / "run.json").read_text())["status"] == "complete"
    assert set(done.summary["rows"]) == {"none", "learned"}
    assert not (done.folder / "trials").exists()


def test_a_method_is_judged_by_a_search_for_every_evaluation(recorded: Recorded) -> None:
    carried_out(compose_experiment(["none", "dada"], [*QUICK, "seeds=3", "evaluation.seeds=3"]))
    assert rows(recorded) == {"none": 3, "dada (method)": 3, "dada": 3}
    searches = {e.trial.seed: found_by(e.trial) for e in recorded.entries[:3]}
    for entry in recorded.entries:
        if entry.trial.policy == "dada (method)":
            assert entry.trial.search_seed == entry.trial.seed
            assert entry.build.policy == searches[entry.trial.seed]
        if entry.trial.policy == "dada":
            assert entry.trial.search_seed is None
            assert entry.build.policy == SubPolicies.merge(list(searches.values()))


def test_fewer_searches_than_evaluations_are_merged(recorded: Recorded) -> None:
    carried_out(compose_experiment(["dada"], [*QUICK, "seeds=2", "evaluation.seeds=3"]))
    assert rows(recorded) == {"dada": 3}


def test_the_only_search_is_known_to_be_one(recorded: Recorded) -> None:
    carried_out(compose_experiment(["dada"], [*QUICK, "seeds=[7]", "evaluation.seeds=3"]))
    assert {e.trial.search_seed for e in recorded.entries if e.trial.policy} == {7}


def test_a_failed_search_fails_its_evaluation_alone(recorded: Recorded) -> None:
    recorded.failing = {"search-dada-seed-1": "the loss is not finite"}
    done = carried_out(
        compose_experiment(["none", "dada"], [*QUICK, "seeds=2", "evaluation.seeds=2"])
    )
    assert rows(recorded) == {"none": 2, "dada (method)": 1, "dada": 2}
    [failed] = done.summary["errors"]["dada (method)"]["failed"]
    assert failed["seed"] == 1
    assert "search seed 1 failed: the loss is not finite" in failed["error"]
    assert done.summary["errors"]["dada (method)"]["mean"] is None
    assert done.summary["errors"]["dada"]["mean"] is not None


def test_a_method_of_which_every_search_fails_is_left_out(recorded: Recorded) -> None:
    recorded.failing = {"search-dada-seed-0": "the loss is not finite"}
    settings = [*QUICK, "seeds=1", "evaluation.seeds=2"]
    done = carried_out(compose_experiment(["none", "dada"], settings))
    assert set(done.failed) == {"dada"}
    assert "no search of dada found a policy" in str(done.failed["dada"])
    state = json.loads((done.folder / "run.json").read_text())
    assert state["methods"] == {"none": "complete", "dada": "failed"}
    assert rows(recorded) == {"none": 2}

    recorded.failing, recorded.entries = {}, []
    experiment = compose_experiment(["none", "dada"], settings)
    again = earlier(experiment)
    assert again is not None
    done = carried_out(again.experiment, again)
    assert rows(recorded) == {"dada": 2}  # none is there
    assert set(done.summary["rows"]) == {"none", "dada"}
    assert not done.failed


def test_in_a_run_it_is_the_error(recorded: Recorded) -> None:
    recorded.broken = {"dada"}
    with pytest.raises(RaysearchError, match="it cannot go on"):
        carried_out(compose_run([*QUICK, DADA, "seeds=1", "evaluation.seeds=1"]))


def test_a_comparison_takes_in_a_method_later(recorded: Recorded) -> None:
    settings = [*QUICK, "evaluation.seeds=2"]
    carried_out(compose_experiment(["none"], settings))
    recorded.entries = []
    folder = earlier(compose_experiment(["trivial_augment"], settings))
    assert folder is not None
    done = carried_out(folder.experiment, folder)
    assert rows(recorded) == {"trivial_augment": 2}
    assert done.summary["errors"]["none"]["mean"] == pytest.approx(9.05)
    assert set(done.summary["rows"]) == {"none", "trivial_augment"}


def test_what_was_stopped_says_how_to_go_on(recorded: Recorded) -> None:
    recorded.stop_after = 2
    with pytest.raises(KeyboardInterrupt, match="--resume runs/mine continues it"):
        carried_out(compose_run([*QUICK, DADA, "seeds=2", "evaluation.seeds=1"]))
    assert json.loads(Path("runs/mine/run.json").read_text())["status"] == "interrupted"


def test_other_images_are_refused(recorded: Recorded) -> None:
    settings = [*QUICK, "evaluation.seeds=2"]
    carried_out(compose_experiment(["none"], settings))
    folder = resume("mine", "runs")
    folder.state["data"]["images"]["train"] = 7
    folder.save()
    folder.release()
    kept = (folder.path / "config.yaml").read_text()
    again = earlier(compose_experiment(["predefined"], settings))
    assert again is not None
    with pytest.raises(RaysearchError, match=r"images are others .* \(train: 7, now 100\)"):
        carried_out(again.experiment, again)
    assert (folder.path / "config.yaml").read_text() == kept


def test_the_largest_searches_have_the_largest_sizes(recorded: Recorded) -> None:
    settings = [*QUICK, "dada.search.epochs=50"]
    carried_out(compose_experiment(["none", "dada"], settings))
    sizes = {e.trial.stage: e.size for e in recorded.entries}
    assert sizes["evaluation"] == 1.0
    assert sizes["search"] > 5


def test_a_forecast_counts_in_epochs_of_the_search_split(recorded: Recorded) -> None:
    settings = [*QUICK, "search.val_fraction=0.5", "evaluation.batch_size=10", "seeds=1"]
    experiment = compose_experiment(["none", "dada"], [*settings, "evaluation.seeds=1"])
    found = prepare(experiment, Wish("cpu", 2, 0)).forecast
    epochs = {g.method: g.equivalents for g in found.groups if g.stage == "evaluation"}
    assert epochs["none"] == epochs["dada"] == pytest.approx(4, rel=0.1)  # 2 of twice the images


def test_a_forecast_leaves_out_what_is_complete(recorded: Recorded) -> None:
    settings = [*QUICK, "evaluation.seeds=2"]
    carried_out(compose_experiment(["none"], settings))
    folder = earlier(compose_experiment(["none", "trivial_augment"], settings))
    assert folder is not None
    session = prepare(folder.experiment, Wish("cpu", 2, 0), folder=folder)
    folder.release()
    assert {group.method for group in session.forecast.groups} == {"trivial_augment"}


def entries_of(plan: Plan) -> Entries:
    return Entries(plan, create(plan.experiment), CPUS, {})


def test_shared_checkpoints_are_trials_of_their_own(recorded: Recorded) -> None:
    entries = entries_of(make_plan(compose_run([*QUICK, "method=aws", "seeds=1"]), CPUS))
    search = entries.first()[0]
    assert search.shown["shared"].stage == "shared"
    assert search.shown["shared"].id == "shared-aws-seed-0"
    assert set(search.places) == {"search", "finetune", "evaluation"}


def test_a_shared_checkpoint_that_is_not_there(recorded: Recorded) -> None:
    Path("none").mkdir()
    with pytest.raises(RaysearchError, match=r"there is no seed-0.pt in it, nor in its shared/"):
        make_plan(compose_run([*QUICK, "method=aws", "method.shared_checkpoint=none"]), CPUS)


def test_what_was_chosen_is_kept(recorded: Recorded) -> None:
    plan = make_plan(compose_run([*QUICK, "model=auto"]), CPUS)
    name = plan.experiment.settings.model.name
    assert name != "auto"
    assert any(name in note and "model=" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("policies", "said"),
    [("[lerned]", "'lerned': did you mean 'learned'"), ("[none,none]", "names a policy twice")],
)
def test_policies_that_are_not_known(policies: str, said: str, recorded: Recorded) -> None:
    with pytest.raises(RaysearchError, match=said):
        make_plan(compose_run([*QUICK, f"evaluation.policies={policies}"]), CPUS)


def test_randaugment_is_searched_where_it_is_compared(recorded: Recorded) -> None:
    plan = make_plan(compose_experiment(["randaugment"], [*QUICK, "seeds=1"]), CPUS)
    [row] = plan.parts["randaugment"].rows
    assert row.augmentation is None
    assert plan.parts["randaugment"].seeds == (0,)


@pytest.fixture
def two(recorded: Recorded) -> tuple[Path, Path]:
    """Two comparisons of the same methods."""
    settings = [*QUICK, "evaluation.seeds=1", "seeds=1"]
    for name in ("a", "b"):
        carried_out(compose_experiment(["none", "dada"], [*settings, f"name={name}"]))
    return Path("runs/a"), Path("runs/b")


def test_other_runs_are_joined_once(two: tuple[Path, Path]) -> None:
    line = ["methods=[none,dada]", "runs=[runs/b]", *QUICK, "evaluation.seeds=1", "seeds=1"]
    for _ in range(2):
        assert compare([*line, "name=a", "--quiet"]) == 0
        summary = json.loads((two[0] / "summary.json").read_text())
        assert list(summary["methods"]) == ["none", "dada", "dada (b)"]
        assert summary["joined"] == ["b"]


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_page_takes_no_experiments_place(
    name: str, two: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    page = (two[0] / "report.html").read_bytes()
    assert compare(["runs=[runs/a,runs/b]", f"name={name}"]) == 2
    assert f"runs/{name} holds an experiment of its own" in capfd.readouterr().err
    assert (two[0] / "report.html").read_bytes() == page
