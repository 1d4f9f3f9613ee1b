"""What Optuna drives: studies, pruning, and the methods whose policies they choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import yaml
from conftest import through_a_file
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState
from test_methods import split

from raysearch import methods
from raysearch.data import Dataset
from raysearch.errors import RaysearchError
from raysearch.methods import TrialSearch, carry_out, tidy
from raysearch.methods._study import Pruning, Study, Tried, Watch, packed
from raysearch.methods._trials import file_of
from raysearch.methods._tuned import Trainer, Tuned
from raysearch.methods.fast_autoaugment import FastAutoAugment, Matcher, stratified_folds
from raysearch.methods.randaugment import RandAugment
from raysearch.methods.validated_magnitude import RANGES, ValidatedMagnitude
from raysearch.policy import RandomOperations, SubPolicies, Transformations, rand_augment
from raysearch.states import load
from raysearch.training import Predefined, Setup, Training

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "method"
SPACE = {"x": FloatDistribution(0, 1), "kind": CategoricalDistribution(("a", "b"))}
TRAINING = {
    "epochs": 6,
    "batch_size": 16,
    "lr": 0.05,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 0.0,
    "parallel": 2,
}


def settings(name: str, **changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["method"], **changes}


TUNED = {"trials": 8, "startup_trials": 2, "warmup_epochs": 1, "interval": 2}
METHODS: dict[str, dict[str, Any]] = {
    "validated_magnitude": settings("validated_magnitude", **TUNED),
    "randaugment": settings("randaugment", **TUNED, objective="loss", pruner="asha"),
    "fast_autoaugment": settings(
        "fast_autoaugment", folds=3, trials=4, keep=2, draws=1, startup_trials=2, sub_policies=2
    ),
}


@pytest.fixture
def setup() -> Setup:
    data = Dataset(
        name="stripes",
        classes=tuple("abcd"),
        train=split(48, 0),
        val=None,
        test=split(16, 1),
        channels=1,
        size=(8, 8),
        mean=(0.25,),
        std=(0.25,),
    )
    return Setup(data, "small_cnn", torch.device("cpu"), 3)


def search_of(name: str, seed: int = 3) -> TrialSearch:
    cls = methods.find_trials(name)
    assert cls is not None
    return cls(seed, METHODS[name], TRAINING)


def worker_of(name: str, setup: Setup) -> Any:
    cls = methods.find_trials(name)
    assert cls is not None
    return cls.worker(setup, METHODS[name], TRAINING, {})


def value(params: Mapping[str, Any]) -> float:
    return (params["x"] - 0.3) ** 2 + (params["kind"] == "b")


class TestStudy:
    def study(self, seed: int = 0) -> Study:
        return Study("s", SPACE, seed, "tpe", 4)

    def told(self, study: Study, rounds: int, count: int = 3) -> Study:
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
        best = found.ranked()[0]
        assert best.value == min(one.value for one in found.tried if one.value is not None)
        assert abs(best.params["x"] - 0.3) < 0.1

    def test_given_up_trials_rank_last(self) -> None:
        study = self.study()
        params = {"x": 0.5, "kind": "a"}
        study.tell([Tried(params, None, {1: 0.1}), Tried(params, 3.0), Tried(params, 2.0)])
        assert [one.value for one in study.ranked()] == [2.0, 3.0, None]

    def test_the_record_opens_in_optuna(self, tmp_path: Path) -> None:
        study = self.study()
        study.keep_record(tmp_path)
        self.told(study, 2)
        study.tell([Tried({"x": 0.9, "kind": "b"}, None, {2: 7.0})])
        storage = f"sqlite:///{tmp_path}/optuna.db"
        found = optuna.load_study(study_name="s", storage=storage)
        assert [t.value for t in found.trials][:6] == [one.value for one in study.tried][:6]
        assert found.best_params == study.ranked()[0].params
        assert found.trials[-1].state == TrialState.PRUNED
        assert found.trials[-1].intermediate_values == {2: 7.0}
        assert set(optuna.importance.get_param_importances(found)) == {"x", "kind"}

    def test_a_continued_run_mends_the_record(self, tmp_path: Path) -> None:
        whole = self.study()
        whole.keep_record(tmp_path)
        self.told(whole, 1)
        state = whole.state_dict()
        self.told(whole, 1)  # of which the run's own state knew nothing when it was killed
        again = self.study()
        again.keep_record(tmp_path)
        again.load_state_dict(state)
        storage = f"sqlite:///{tmp_path}/optuna.db"
        assert len(optuna.load_study(study_name="s", storage=storage).trials) == 3
        self.told(again, 1)
        values = [t.value for t in optuna.load_study(study_name="s", storage=storage).trials]
        assert values == [one.value for one in whole.tried]


@pytest.mark.parametrize("pruner", ["median", "asha", "none"])
def test_a_trial_is_given_up_just_when_optuna_would(pruner: str) -> None:
    """Against Optuna's own study, trials one after the other."""
    pruning = Pruning(pruner, 3, 2)
    study = optuna.create_study(pruner=pruning.make())
    tried: list[Tried] = []
    generator = torch.Generator().manual_seed(0)
    for number in range(30):
        curve = (torch.rand(1, generator=generator) + 1 / torch.arange(1.0, 10)).tolist()
        trial, watch = study.ask(), Watch(pruning, packed(tried))
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


def drive(
    search: TrialSearch, worker: Any, folder: Path, *, order: int = 1, most: int = 99
) -> None:
    """Carry a search's rounds out, answers in one order or the other; `most` trials of it."""
    folder.mkdir(exist_ok=True)
    while not search.finished and most > 0:
        asked = []
        while (proposal := search.ask()) is not None:
            asked.append(proposal)
        for one in asked[::order][:most]:
            if search.tell(one.id, worker(one, folder)) is not None:
                tidy(search, folder)
        most -= len(asked)


@pytest.mark.parametrize("name", METHODS)
class TestEveryOne:
    def test_metrics_are_those_of_every_search(self, name: str, setup: Setup) -> None:
        search, rows = search_of(name), []
        carry_out(search, worker_of(name, setup), rows.append)
        assert len(rows) == search.rounds
        expected = {"train_loss", "val_loss", "val_error", "lr", "epoch_equivalents"}
        assert expected <= set(rows[-1])
        assert any(key.startswith(("share/", "mean/")) for key in rows[-1])
        assert rows[-1]["epoch_equivalents"] > rows[0]["epoch_equivalents"] > 0

    def test_the_order_of_answers_changes_nothing(
        self, name: str, setup: Setup, tmp_path: Path
    ) -> None:
        forward, backward = search_of(name), search_of(name)
        drive(forward, worker_of(name, setup), tmp_path / "1")
        drive(backward, worker_of(name, setup), tmp_path / "2", order=-1)
        assert forward.policy() == backward.policy()
        assert forward.metrics == backward.metrics
        assert not list(tmp_path.glob("*/*.pt"))  # nothing is left behind

    @pytest.mark.parametrize("most", [1, 2, 3, 5, 7])
    def test_restored_anywhere_it_ends_the_same(
        self, name: str, setup: Setup, tmp_path: Path, most: int
    ) -> None:
        worker, whole = worker_of(name, setup), search_of(name)
        drive(whole, worker, tmp_path / "whole")
        first = search_of(name)
        drive(first, worker, tmp_path / "parts", most=most)
        again = methods.find_trials(name)(3, METHODS[name], {**TRAINING, "parallel": 5})  # type: ignore[misc]
        again.load_state_dict(through_a_file(first.state_dict()))
        drive(again, worker_of(name, setup), tmp_path / "parts")
        assert again.policy() == whole.policy()
        assert again.metrics == whole.metrics


class TestTuned:
    def test_the_policy_is_that_of_the_studys_best(self, setup: Setup, tmp_path: Path) -> None:
        search = search_of("validated_magnitude")
        search.keep_record(tmp_path)
        carry_out(search, worker_of("validated_magnitude", setup))
        study = optuna.load_study(study_name="seed 3", storage=f"sqlite:///{tmp_path}/optuna.db")
        assert isinstance(search, Tuned)
        best = ValidatedMagnitude.policy_of(search.settings, study.best_params)  # type: ignore[arg-type]
        assert search.policy() == best
        assert search.metrics["best/magnitude"] == study.best_params["magnitude"]
        assert search.metrics["best_error"] == study.best_value
        costs = [trial.user_attrs["epoch_equivalents"] for trial in study.trials]
        assert search.metrics["epoch_equivalents"] == pytest.approx(sum(costs))  # pruned ones too

    def test_a_training_that_was_killed_goes_on(self, setup: Setup, tmp_path: Path) -> None:
        search = search_of("randaugment")
        proposal = search.ask()
        assert proposal is not None
        worker = worker_of("randaugment", setup)
        undisturbed = worker(proposal, tmp_path)
        final = load(file_of(tmp_path, proposal.id))
        file_of(tmp_path, proposal.id).unlink()
        short = Trainer(setup, worker.settings, {**TRAINING, "epochs": 6}, worker._policy_of)
        kept = validated_until(short, proposal, tmp_path, 2)
        assert kept["training"]["epoch"] == 2
        again = worker(proposal, tmp_path)
        assert {k: v for k, v in again.items() if k not in ("epochs", "seen")} == {
            k: v for k, v in undisturbed.items() if k not in ("epochs", "seen")
        }
        assert again["seen"].tolist() == undisturbed["seen"].tolist()
        model = load(file_of(tmp_path, proposal.id))["training"]["model"]
        for key, weights in final["training"]["model"].items():
            assert torch.equal(model[key], weights)

    def test_magnitudes_scale_every_range(self) -> None:
        chosen = ValidatedMagnitude.settings_of(METHODS["validated_magnitude"])
        policy = ValidatedMagnitude.policy_of(chosen, {"magnitude": 0.4})
        assert isinstance(policy, Transformations)
        for name, values in zip(policy.names, policy.draws.unbind(1), strict=True):
            largest = 0.4 * RANGES.get(name, 1.0)
            assert float(values.abs().max()) <= largest + 1e-5
            assert float(values.std()) == pytest.approx(largest / 3**0.5, rel=0.02)
            assert float(values.mean()) == pytest.approx(0, abs=0.01)
        images = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8)
        still = ValidatedMagnitude.policy_of(chosen, {"magnitude": 0.0})
        assert torch.equal(still(images), images)


class TestRandAugment:
    def test_given_both_nothing_is_searched(self) -> None:
        given = settings("randaugment", n=3, m=12)
        expected = rand_augment(3, 12, given["operations"])
        assert RandAugment.known(given) == expected
        assert RandAugment.known(settings("randaugment")) is None

    def test_given_one_the_other_is_searched(self) -> None:
        chosen = RandAugment.settings_of(settings("randaugment", n=3))
        assert set(RandAugment.space(chosen)) == {"m"}
        policy = RandAugment.policy_of(chosen, {"m": 6.0})
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
            RandAugment.settings_of(settings("randaugment", **changes))


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

    def test_trying_policies_leaves_the_classifier_as_it_is(
        self, setup: Setup, tmp_path: Path
    ) -> None:
        search = search_of("fast_autoaugment")
        worker = worker_of("fast_autoaugment", setup)
        drive(search, worker, tmp_path, most=3)  # the networks
        before = {path.name: path.read_bytes() for path in tmp_path.glob("*.pt")}
        assert len(before) == 3
        drive(search, worker, tmp_path, most=9)
        assert {path.name: path.read_bytes() for path in tmp_path.glob("*.pt")} == before
        assert isinstance(worker, Matcher)
        for name, network in worker._networks.items():
            kept = load(tmp_path / f"{name}.pt")["training"]["model"]
            for key, weights in network.state_dict().items():
                assert torch.equal(weights, kept[key])

    def test_networks_are_trained_without_their_fold_and_without_augmentation(
        self, setup: Setup, tmp_path: Path
    ) -> None:
        search, moved = search_of("fast_autoaugment"), replace(setup, predefined=Predefined(True))
        proposal = search.ask()
        assert proposal is not None
        plain = worker_of("fast_autoaugment", setup)(proposal, made(tmp_path / "a"))
        assert worker_of("fast_autoaugment", moved)(proposal, made(tmp_path / "b")) == plain

    def test_the_best_of_all_folds_are_merged(self, setup: Setup, tmp_path: Path) -> None:
        search = search_of("fast_autoaugment")
        assert isinstance(search, FastAutoAugment)
        search.keep_record(tmp_path)
        carry_out(search, worker_of("fast_autoaugment", setup))
        policy = search.policy()
        assert isinstance(policy, SubPolicies)
        assert len(policy) == 3 * 2 * 2 * 2  # folds, repeats, kept, sub-policies
        storage = f"sqlite:///{tmp_path}/optuna.db"
        names = optuna.get_all_study_names(storage)
        assert len(names) == 6
        expected = []
        for study in search._studies.values():
            found = optuna.load_study(study_name=study.name, storage=storage).trials
            assert len(found) == 4
            best = sorted(found, key=lambda trial: trial.value or 0.0)[:2]
            expected += [trial.params for trial in best]
        assert policy == search.settings.policy(expected)

    def test_a_network_that_is_gone_is_one_line(self, setup: Setup, tmp_path: Path) -> None:
        search, worker = search_of("fast_autoaugment"), worker_of("fast_autoaugment", setup)
        drive(search, worker, tmp_path, most=3)
        for path in tmp_path.glob("*.pt"):
            path.unlink()
        proposal = search.ask()
        assert proposal is not None
        with pytest.raises(RaysearchError, match="is missing"):
            worker(proposal, tmp_path)


def validated_until(trainer: Trainer, proposal: Any, folder: Path, epoch: int) -> dict[str, Any]:
    """What a worker that was killed after an epoch has left."""

    class Killed(Exception):
        pass

    original = Training.step

    def step(self: Training) -> dict[str, float]:
        if self.epoch > epoch:
            raise Killed
        return original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "step", step)
        with pytest.raises(Killed):
            trainer(proposal, folder)
    return load(file_of(folder, proposal.id))


def made(folder: Path) -> Path:
    """A folder, made."""
    folder.mkdir()
    return folder
