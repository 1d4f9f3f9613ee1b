"""What Optuna drives: studies, pruning, and the methods whose policies they choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from _recorded import carry_out, failing
from _settings import method_settings
from conftest import dark_and_light, through_a_file
from optuna.trial import TrialState

from benchmarks._local import Configured, answer_to
from raysearch.engine._optuna import OptunaStudies, OptunaStudy, pruner_of
from raysearch.errors import RaysearchError, SearchFailedError
from raysearch.methods import Choice, Pruning, Range, Tried
from raysearch.methods._folds import stratified_folds
from raysearch.methods._matching import Try
from raysearch.methods._portfolio import RANGES
from raysearch.methods._study import packed, ranked
from raysearch.methods._tuned import TunedSearch
from raysearch.methods.fast_autoaugment import FastAutoAugmentSearch
from raysearch.methods.randaugment import RandAugment
from raysearch.methods.validated_magnitude import (
    ValidatedMagnitude,
)
from raysearch.policy import RandomOperations, SubPolicies, Transformations, rand_augment
from raysearch.protocol import Answer, Build, Proposal, Search
from raysearch.training import Predefined, Setup

SPACE = {"x": Range(0, 1), "kind": Choice(("a", "b"))}
TRAINING = {
    "epochs": 6,
    "batch_size": 16,
    "lr": 0.05,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 0.0,
}


TUNED = {"parallel": 2, "trials": 8, "startup_trials": 2, "warmup_epochs": 1, "interval": 2}
METHODS: dict[str, dict[str, Any]] = {
    "validated_magnitude": method_settings("validated_magnitude", **TUNED),
    "randaugment": method_settings("randaugment", **TUNED, objective="loss", pruner="asha"),
    "fast_autoaugment": method_settings(
        "fast_autoaugment",
        folds=3,
        trials=4,
        parallel=2,
        keep=2,
        draws=1,
        startup_trials=2,
        sub_policies=2,
    ),
}


@pytest.fixture
def setup() -> Setup:
    """Few images, in three folds."""
    return replace(dark_and_light(), seed=3)


def groups(name: str, record: Path | None = None, **search: Any) -> Configured:
    """A method's settings, how it trains changed."""
    return Configured.of(METHODS[name], {**TRAINING, **search}, None, OptunaStudies(record))


def search_of(name: str, record: Path | None = None) -> Any:
    """A search at its beginning."""
    return groups(name, record).search(3)


def build_of(name: str, setup: Setup, **search: Any) -> Build:
    """What makes its work."""
    return groups(name, **search).build(setup)


def value(params: Mapping[str, Any]) -> float:
    return (params["x"] - 0.3) ** 2 + (params["kind"] == "b")


class TestStudy:
    def study(self, seed: int = 0, folder: Path | None = None) -> OptunaStudy:
        return OptunaStudies(folder).study("s", SPACE, seed, "tpe", 4)

    def told(self, study: OptunaStudy, rounds: int, count: int = 3) -> OptunaStudy:
        for _ in range(rounds):
            study.tell([Tried(p, value(p)) for p in study.propose(count)])
        return study

    def test_proposals_follow_from_the_seed_and_what_was_told(self) -> None:
        first, second = self.told(self.study(), 4), self.study()
        second.load_state_dict(through_a_file({"s": first.state_dict()})["s"])
        assert first.propose(3) == second.propose(3) == first.propose(3)
        assert self.told(self.study(1), 4).propose(3) != first.propose(3)

    def test_trials_of_one_round_differ(self) -> None:
        proposed = self.told(self.study(), 4).propose(4)
        assert len({one["x"] for one in proposed}) == 4

    def test_it_learns(self) -> None:
        found = self.told(self.study(), 12)
        late = found.tried[-9:]
        assert sum(one.params["kind"] == "a" for one in late) >= 7
        best = ranked(found.tried)[0]
        assert best.value == min(one.value for one in found.tried if one.value is not None)
        assert abs(best.params["x"] - 0.3) < 0.1

    def test_given_up_trials_rank_last(self) -> None:
        study = self.study()
        params = {"x": 0.5, "kind": "a"}
        study.tell([Tried(params, None, {1: 0.1}), Tried(params, 3.0), Tried(params, 2.0)])
        study.tell([Tried(params, None, failed=True), Tried(params, 4.0)])
        assert [one.value for one in ranked(study.tried)] == [2.0, 3.0, 4.0, None, None]
        assert [one.failed for one in ranked(study.tried)] == [False] * 4 + [True]

    def test_failed_trials_are_optunas_failed_ones_and_teach_nothing(self, tmp_path: Path) -> None:
        study = OptunaStudies(tmp_path).study("s", SPACE, 0, "tpe", 4)
        self.told(study, 3)
        study.tell([Tried({"x": 0.9, "kind": "b"}, None, failed=True)])
        found = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/optuna.db")
        assert found.trials[-1].state == TrialState.FAIL
        assert found.best_params == ranked(study.tried)[0].params
        again = self.study()
        again.load_state_dict(through_a_file({"s": study.state_dict()})["s"])
        assert again.propose(2) == study.propose(2)

    def test_the_record_opens_in_optuna(self, tmp_path: Path) -> None:
        study = self.study(folder=tmp_path)
        self.told(study, 2)
        study.tell([Tried({"x": 0.9, "kind": "b"}, None, {2: 7.0})])
        storage = f"sqlite:///{tmp_path}/optuna.db"
        found = optuna.load_study(study_name="s", storage=storage)
        assert [t.value for t in found.trials][:6] == [one.value for one in study.tried][:6]
        assert found.best_params == ranked(study.tried)[0].params
        assert found.trials[-1].state == TrialState.PRUNED
        assert found.trials[-1].intermediate_values == {2: 7.0}
        assert set(optuna.importance.get_param_importances(found)) == {"x", "kind"}

    def test_the_record_is_in_its_folder_whatever_that_is_called(self, tmp_path: Path) -> None:
        folder = tmp_path / "50%41 off? #1 {a} [x] für"
        folder.mkdir()
        self.told(self.study(folder=folder), 1)
        assert list(folder.iterdir()) == [folder / "optuna.db"]
        assert list(tmp_path.iterdir()) == [folder]

    def test_a_continued_run_mends_the_record(self, tmp_path: Path) -> None:
        whole = self.study(folder=tmp_path)
        self.told(whole, 1)
        state = whole.state_dict()
        self.told(whole, 1)  # of which the run's own state knew nothing when it was killed
        again = self.study(folder=tmp_path)
        again.load_state_dict(state)
        storage = f"sqlite:///{tmp_path}/optuna.db"
        assert len(optuna.load_study(study_name="s", storage=storage).trials) == 3
        self.told(again, 1)
        values = [t.value for t in optuna.load_study(study_name="s", storage=storage).trials]
        assert values == [one.value for one in whole.tried]

    def test_a_record_of_other_settings_is_made_anew(self, tmp_path: Path) -> None:
        self.told(self.study(folder=tmp_path), 1)
        anew = self.study(1, folder=tmp_path)
        self.told(anew, 2)
        storage = f"sqlite:///{tmp_path}/optuna.db"
        found = optuna.load_study(study_name="s", storage=storage).trials
        assert [one.value for one in found] == [one.value for one in anew.tried]
        assert [one.params for one in found] == [one.params for one in anew.tried]

    def test_a_damaged_record_stops_nothing(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "optuna.db").write_bytes(b"no data base" * 100)
        study = self.told(self.study(folder=tmp_path), 2)
        assert study.propose(2) == self.told(self.study(), 2).propose(2)
        assert "is behind: " in caplog.text


@pytest.mark.parametrize("pruner", ["median", "asha", "none"])
def test_a_trial_is_given_up_just_when_optuna_would(pruner: str) -> None:
    """Against Optuna's own study, trials one after the other."""
    pruning = Pruning(pruner, 3, 2)
    study = optuna.create_study(pruner=pruner_of(pruning))
    tried: list[Tried] = []
    generator = torch.Generator().manual_seed(0)
    for number in range(30):
        curve = (torch.rand(1, generator=generator) + 1 / torch.arange(1.0, 10)).tolist()
        trial, watch = study.ask(), OptunaStudies().watch(pruning, packed(tried))
        seen: dict[int, float] = {}
        given_up = False
        for epoch, loss in enumerate(curve, start=1):
            trial.report(loss, epoch)
            seen[epoch] = loss
            given_up = watch.hopeless(epoch, loss)
            assert given_up == (trial.should_prune() and number >= 3)
            if given_up:
                break
        state = TrialState.PRUNED if given_up else TrialState.COMPLETE
        study.tell(trial, None if given_up else curve[-1], state=state)
        tried.append(Tried({}, None if given_up else curve[-1], seen, watch.rungs()))
    count = sum(one.value is None for one in tried)
    assert count == 0 if pruner == "none" else 3 < count < 28


def trained(proposal: Proposal) -> Answer:
    """A made-up answer to a training, better for smaller magnitudes."""
    value = proposal.values["params"]["magnitude"]
    shown = dict.fromkeys(("train_loss", "val_loss", "val_error", "lr"), 1.0)
    outcome = {"seen": {6: value}, "pruned": False, "rungs": {}}
    return Answer({**shown, **outcome, "epoch_equivalents": 2.0})


class TestTuned:
    def test_the_policy_is_that_of_the_studys_best(self, setup: Setup, tmp_path: Path) -> None:
        search = search_of("validated_magnitude", tmp_path)
        rows = carry_out(search, build=build_of("validated_magnitude", setup)).history
        study = optuna.load_study(study_name="seed 3", storage=f"sqlite:///{tmp_path}/optuna.db")
        assert search.policy() == search.settings.policy(study.best_params)
        assert rows[-1]["best/magnitude"] == study.best_params["magnitude"]
        assert rows[-1]["best_error"] == study.best_value
        costs = [trial.user_attrs["epoch_equivalents"] for trial in study.trials]
        assert rows[-1]["epoch_equivalents"] == pytest.approx(sum(costs))  # pruned ones too
        assert rows[-1]["pruned"] == sum(trial.state.name == "PRUNED" for trial in study.trials)

    def test_hundreds_of_trials_find_the_best(self) -> None:
        method = {**METHODS["validated_magnitude"], "trials": 100, "parallel": 10}
        search = Configured.of(method, TRAINING, None, OptunaStudies()).search(0)
        rows = carry_out(search, trained).history
        assert len(rows) == 10
        assert rows[-1]["best/magnitude"] < 0.02

    def test_a_training_that_was_stopped_goes_on(self, setup: Setup) -> None:
        search, build = search_of("randaugment"), build_of("randaugment", setup)
        proposal = search.ask()
        whole = answer_to(proposal, build)
        assert isinstance(whole, Answer)
        work = build(proposal, {})
        for _ in range(3):
            work.step()
        again = build(proposal, {})
        again.load_state_dict(through_a_file(work.state_dict()))
        assert again.epoch == 3
        while again.epoch < again.epochs:
            again.step()
        assert again.answer().values == whole.values
        assert whole.file is None

    @pytest.mark.parametrize("pruner", ["median", "asha"])
    def test_one_that_is_given_up_ends_there(self, setup: Setup, pruner: str) -> None:
        changes = {"pruner": pruner, "startup_trials": 1, "warmup_epochs": 1, "interval": 1}
        given = Configured.of(
            {**METHODS["validated_magnitude"], **changes}, TRAINING, None, OptunaStudies()
        )
        curve = dict.fromkeys(range(1, 7), 1e-06)
        before = packed([Tried({}, 1e-6, curve, {"completed_rung_0": 1e-6})] * 8)
        build = given.build(setup)
        work = build(Proposal("1", 0, {"params": {"magnitude": 1.0}, "before": before}), {})
        while work.epoch < work.epochs:
            work.step()
        assert work.epochs < 6
        values = work.answer().values
        assert values["pruned"]
        assert list(values["seen"]) == list(range(1, work.epoch + 1))
        again = build(Proposal("1", 0, {"params": {"magnitude": 1.0}, "before": before}), {})
        again.load_state_dict(through_a_file(work.state_dict()))
        assert again.answer().values == values
        assert again.epochs == again.epoch

    def test_a_failed_training_is_a_failed_trial(self, tmp_path: Path) -> None:
        search = search_of("validated_magnitude", tmp_path)
        rows = carry_out(search, failing(trained, "0001-01", "0002-01", "0002-02")).history
        study = optuna.load_study(study_name="seed 3", storage=f"sqlite:///{tmp_path}/optuna.db")
        states = [trial.state.name for trial in study.trials]
        assert states == ["FAIL", "COMPLETE", "FAIL", "FAIL", *["COMPLETE"] * 4]
        assert [row["epoch_equivalents"] for row in rows] == [4.0, 8.0, 12.0, 16.0]
        assert rows[-1]["pruned"] == 0
        assert "val_loss" not in rows[1]
        assert search.policy() == search.settings.policy(study.best_params)

    def test_it_ends_where_all_fail_that_were_drawn_at_random(self) -> None:
        method = {**METHODS["validated_magnitude"], "startup_trials": 3, "parallel": 1}
        search = Configured.of(method, TRAINING, None, OptunaStudies()).search(0)
        every = [f"{round_:04d}-01" for round_ in range(1, 9)]
        asked: list[str] = []

        def answers(proposal: Proposal) -> Any:
            asked.append(proposal.id)
            return failing(trained, *every)(proposal)

        with pytest.raises(SearchFailedError, match=r"^the loss is not finite$"):
            carry_out(search, answers)
        assert asked == every[:3]

    def test_magnitudes_scale_every_range(self) -> None:
        chosen = ValidatedMagnitude.of(METHODS["validated_magnitude"])
        policy = chosen.policy({"magnitude": 0.4})
        assert isinstance(policy, Transformations)
        for name, values in zip(policy.names, policy.draws.unbind(1), strict=True):
            largest = 0.4 * RANGES.get(name, 1.0)
            assert float(values.abs().max()) <= largest + 1e-5
            assert float(values.std()) == pytest.approx(largest / 3**0.5, rel=0.02)
            assert float(values.mean()) == pytest.approx(0, abs=0.01)
        images = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8)
        still = chosen.policy({"magnitude": 0.0})
        assert torch.equal(still(images), images)


class TestRandAugment:
    def test_given_both_nothing_is_searched(self) -> None:
        given = method_settings("randaugment", n=3, m=12)
        expected = rand_augment(3, 12, given["operations"])
        assert RandAugment.of(given).known == expected
        assert RandAugment.of(method_settings("randaugment")).known is None

    def test_given_one_the_other_is_searched(self) -> None:
        chosen = RandAugment.of(method_settings("randaugment", n=3))
        assert set(chosen.space) == {"m"}
        policy = chosen.policy({"m": 6.0})
        assert isinstance(policy, RandomOperations)
        assert (policy.count, policy.high) == (3, 0.2)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"n": 0}, "method.n=0"),
            ({"m": 31.0}, "method.m=31.0"),
            ({"n": 1.5}, "method.n=1.5: expected a whole number"),
            ({"trials": 0}, "method.trials=0"),
            ({"pruner": "mean"}, "method.pruner"),
        ],
    )
    def test_what_it_does_not_take(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(RaysearchError, match=message):
            RandAugment.of(method_settings("randaugment", **changes))


class TestFastAutoAugment:
    def test_folds_divide_the_images_class_by_class(self) -> None:
        labels = torch.tensor([0] * 10 + [1] * 7 + [2] * 3)
        folds = stratified_folds(labels, 5, seed=1)
        assert torch.equal(torch.cat(folds).sort().values, torch.arange(20))
        counts = torch.stack([labels[fold].bincount(minlength=3) for fold in folds])
        assert bool((counts.max(0).values - counts.min(0).values <= 1).all())
        assert bool((counts.sum(1) == 4).all())
        with pytest.raises(RaysearchError, match=r"method\.folds=5"):
            stratified_folds(labels[:4], 5, seed=1)

    def test_trying_policies_leaves_the_classifier_as_it_is(self, setup: Setup) -> None:
        search, build = search_of("fast_autoaugment"), build_of("fast_autoaugment", setup)
        networks = carry_out(search, build=build, most=3).files
        assert len(networks) == 3
        after = carry_out(search, build=build, most=9, files=networks).files
        assert set(after) == set(networks)
        for proposal in iter(search.ask, None):
            [name] = proposal.needs
            work = build(proposal, networks)
            assert isinstance(work, Try)
            for key, weights in work.model.state_dict().items():
                assert torch.equal(weights, networks[name]["model"][key])

    def test_networks_are_trained_without_their_fold_and_without_augmentation(
        self, setup: Setup
    ) -> None:
        proposal = search_of("fast_autoaugment").ask()
        moved = replace(setup, predefined=Predefined(True))
        answers = [answer_to(proposal, build_of("fast_autoaugment", one)) for one in (setup, moved)]
        assert isinstance(answers[0], Answer)
        assert isinstance(answers[1], Answer)
        assert answers[0].values == answers[1].values

    def test_a_network_and_a_try_are_restored_bit_for_bit(self, setup: Setup) -> None:
        search, build = search_of("fast_autoaugment"), build_of("fast_autoaugment", setup)
        proposal = search.ask()
        whole, work = answer_to(proposal, build), build(proposal, {})
        work.step()
        again = build(proposal, {})
        again.load_state_dict(through_a_file(work.state_dict()))
        while again.epoch < again.epochs:
            again.step()
        assert isinstance(whole, Answer)
        assert again.answer().values == whole.values
        search.retract(proposal.id)
        files = carry_out(search, build=build, most=3).files
        proposal = search.ask()
        work, again = build(proposal, files), build(proposal, files)
        work.step()
        again.load_state_dict(through_a_file(work.state_dict()))
        assert again.epoch == again.epochs == 1
        assert again.answer().values == work.answer().values

    def test_the_best_of_all_folds_are_merged(self, setup: Setup, tmp_path: Path) -> None:
        search = search_of("fast_autoaugment", tmp_path)
        assert isinstance(search, FastAutoAugmentSearch)
        carry_out(search, build=build_of("fast_autoaugment", setup))
        policy = search.policy()
        assert isinstance(policy, SubPolicies)
        assert len(policy) == 3 * 2 * 2 * 2  # folds, repeats, kept, sub-policies
        storage = f"sqlite:///{tmp_path}/optuna.db"
        names = optuna.get_all_study_names(storage)
        assert len(names) == 6
        expected = []
        for study in search.studies.values():
            assert isinstance(study, OptunaStudy)
            found = optuna.load_study(study_name=study.name, storage=storage).trials
            assert len(found) == 4
            best = sorted(found, key=lambda trial: trial.value or 0.0)[:2]
            expected += [trial.params for trial in best]
        assert policy == search.settings.policy(expected)

    def tried(self, proposal: Proposal) -> Answer:
        """A made-up answer."""
        shown = dict.fromkeys(("train_loss", "val_loss", "val_error", "lr", "cost"), 1.0)
        return Answer({**shown, "epoch_equivalents": 2.0}, file={"model": {}})

    def test_a_fold_whose_network_failed_is_left_out(self) -> None:
        search, whole = search_of("fast_autoaugment"), search_of("fast_autoaugment")
        found = carry_out(search, failing(self.tried, "0001-02", "0002-01"))
        asked = {one.id: dict(one.values) for one in found.asked if one.round}
        assert {values["fold"] for values in asked.values()} == {0, 2}
        others = {one.id: dict(one.values) for one in carry_out(whole, self.tried).asked}
        assert all(asked[id] == others[id] for id in asked if id[:4] in ("0001", "0002"))
        assert len(search.policy()) == 2 * 2 * 2 * 2
        [failed] = [one for study in search.studies.values() for one in study.tried if one.failed]
        assert failed.params == asked["0002-01"]["params"]

    def test_without_networks_or_tries_it_ends(self) -> None:
        for ids in (["0001-01", "0001-02", "0001-03"], [f"0002-{i:02d}" for i in range(1, 7)]):
            with pytest.raises(SearchFailedError, match="trials of a round failed"):
                carry_out(search_of("fast_autoaugment"), failing(self.tried, *ids))


@pytest.mark.parametrize("name", METHODS)
def test_a_search_costs_no_more_than_was_forecast(name: str, setup: Setup) -> None:
    short = {"epochs": 2, "batch_size": 8}  # of which the search's splits are made
    search: Search = groups(name, **short).search(3)
    found = carry_out(search, build=build_of(name, setup, **short))
    expected = groups(name, **short).forecast(setup)
    assert len(found.asked) == expected.proposals
    cost = found.history[-1]["epoch_equivalents"]
    assert 0.85 * expected.equivalents < cost <= expected.equivalents * (1 + 1e-9)
    if isinstance(search, TunedSearch):
        assert cost == pytest.approx(expected.equivalents)
