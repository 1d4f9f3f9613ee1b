"""OHL without Ray: REINFORCE over a round's replicas, the chain of best ones, continuation."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import _recorded
import numpy as np
import pytest
import torch
from _recorded import failing, pair_answer
from _settings import method_settings
from conftest import dark_and_light, through_a_file
from test_aws import SEARCH
from torch import Tensor

from benchmarks._local import Configured, answer_to, carry_out
from raysearch.errors import RaysearchError
from raysearch.methods._pair_search import TrialPairs
from raysearch.methods._ppo import PairDistribution, surrogate
from raysearch.methods.ohl import PHASES, Ohl, normalised
from raysearch.policy import Pairs, Schedule, read_policy
from raysearch.protocol import Answer, Build, Failed, Proposal, Values
from raysearch.training import Setup, Training

METHOD: dict[str, Any] = {
    "name": "ohl",
    "operations": ["Rotate", "Invert"],
    "levels": 2,
    "form": "joint",
    "updates": 3,
    "parallel": 3,
    "draws": 4,
    "same_order": True,
    "reward": "loss",
    "lr": 0.05,
    "betas": [0.5, 0.999],
    "label_smoothing": 0.0,
}
TRAINING = {**SEARCH, "epochs": 5}  # rounds of 2, 2 and 1 epochs


def groups(
    method: Mapping[str, Any] | None = None, search: Mapping[str, Any] | None = None
) -> Configured:
    """The settings, some of them changed."""
    return Configured.of(METHOD | dict(method or {}), TRAINING | dict(search or {}))


@pytest.fixture(scope="module")
def setup() -> Setup:
    """A small one."""
    return dark_and_light()


@pytest.fixture(scope="module")
def build(setup: Setup) -> Build:
    """For all tests: it is told everything."""
    return groups().build(setup)


def answered(build: Any, proposal: Proposal, files: Mapping[str, Values] | None = None) -> Answer:
    """The answer, which is no failure."""
    answer = answer_to(proposal, build, files)
    assert isinstance(answer, Answer)
    return answer


class TestReinforce:
    def test_rewards_are_normalised_within_the_round(self) -> None:
        found = torch.tensor(normalised([1.0, 2.0, 6.0]), dtype=torch.float64)
        assert float(found.mean()) == pytest.approx(0)
        assert float(found.square().mean()) == pytest.approx(1)
        assert found.argsort().tolist() == [0, 1, 2]
        assert torch.allclose(found, torch.tensor(normalised([-10.0, 10.0, 90.0])).double())
        assert normalised([0.3, 0.3]) == [0.0, 0.0]

    @pytest.mark.parametrize("form", ["joint", "factored"])
    def test_the_mean_step_is_the_exact_gradient(self, form: Any) -> None:
        """Over all groups of three replicas of one draw: that of the expected reward, by 1 − 1/3,
        because the mean that is subtracted has a replica's own reward in it."""
        reward = torch.tensor([0.3, -1.0, 0.7, 2.0])
        distribution = PairDistribution(2, form)
        with torch.no_grad():
            for logits in distribution.logits:
                logits.normal_(generator=torch.Generator().manual_seed(1))
        log_p = distribution.log_probabilities()
        wanted = torch.autograd.grad((log_p.exp().flatten() * reward).sum(), distribution.logits)
        log_p = distribution.log_probabilities()
        found = [torch.zeros_like(logits) for logits in distribution.logits]
        for group in itertools.product(range(4), repeat=3):
            drawn = torch.tensor(group)
            counts = torch.nn.functional.one_hot(drawn, 4).float().reshape(3, 2, 2)
            centred = reward[drawn] - reward[drawn].mean()
            gain, clipped = surrogate(log_p, log_p.detach(), counts, centred, 0.5)
            assert clipped == 0
            own = torch.autograd.grad(gain, distribution.logits, retain_graph=True)
            for total, one in zip(found, own, strict=True):
                total += float(log_p.detach().flatten()[drawn].sum().exp()) * one
        for total, exact in zip(found, wanted, strict=True):
            assert torch.allclose(total, exact * 2 / 3, atol=1e-6)

    def test_a_round_is_one_step_of_adam_along_it(self) -> None:
        search = groups().search(0)
        asked = _recorded.carry_out(search, pair_answer, most=3).asked
        answers = [pair_answer(proposal).values for proposal in asked]
        counts = torch.stack([torch.from_numpy(answer["counts"]) for answer in answers]).float()
        advantage = torch.tensor(normalised([answer["reward"] for answer in answers]))
        distribution = PairDistribution(3, "joint")
        log_p = distribution.log_probabilities().flatten()
        gain = (advantage * (counts * log_p).sum(1)).mean() / counts[0].sum()
        adam = torch.optim.Adam(distribution.logits, METHOD["lr"], METHOD["betas"])
        (-gain).backward()
        adam.step()
        log_p = distribution.log_probabilities().detach()
        proposal = search.ask()
        assert proposal is not None
        assert np.allclose(proposal.values["log_probabilities"], log_p.numpy(), atol=1e-5)


class TestSearch:
    def test_the_best_replica_is_where_the_next_round_starts(self) -> None:
        search, needs = groups().search(0), ()
        for _ in range(3):
            asked = _recorded.carry_out(search, pair_answer, most=3).asked
            assert {proposal.needs for proposal in asked} == {needs}
            rewards = {one.id: pair_answer(one).values["reward"] for one in asked}
            needs = (max(rewards, key=lambda id: rewards[id]),)
            assert list(search.needed()) == ([] if search.finished else list(needs))
        assert search.finished
        assert search.ask() is None

    def test_a_failed_replica_is_the_worst_and_nobody_starts_from_it(self) -> None:
        def alike(proposal: Proposal) -> Answer:
            answer = pair_answer(proposal)
            return Answer({**answer.values, "reward": 1.0}, file=answer.file)

        search = groups().search(0)
        answers = failing(alike, "0001-01")
        found = _recorded.carry_out(search, answers)
        assert {one.needs for one in found.asked if one.round == 1} == {("0001-02",)}
        assert found.history[0]["reward_std"] == 0

    def test_the_policy_is_the_schedule_of_what_was_in_force(self) -> None:
        search = groups(search={"epochs": 6}).search(0)
        assert search.policy().phases == (Ohl.of(METHOD).uniform,)
        for done in range(3):
            [first, *_] = _recorded.carry_out(search, pair_answer, most=3).asked
            phases = search.policy().phases
            assert len(phases) == done + 1
            p = torch.from_numpy(first.values["log_probabilities"]).double().exp()
            last = phases[-1]
            assert isinstance(last, Pairs)
            assert torch.allclose(last.probabilities, p / p.sum())

    def test_a_long_search_has_few_phases_and_a_file_that_is_read(self, tmp_path: Path) -> None:
        operations = [
            *("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "AutoContrast", "Invert"),
            *("Equalize", "Solarize", "Posterize", "Contrast", "Color", "Brightness", "Sharpness"),
        ]
        changed = {"operations": operations, "levels": 3, "updates": 100}
        search = groups(changed, {"epochs": 45}).search(0)
        rows = _recorded.carry_out(search, pair_answer).history
        assert len(search.policy()) == PHASES
        search.policy().save(tmp_path / "policy.json")
        assert (tmp_path / "policy.json").stat().st_size < 2 * 2**20
        assert read_policy(tmp_path / "policy.json") == search.policy()
        assert len(json.dumps(rows[-1])) < 2**12

    def test_metrics_are_those_of_every_search(self) -> None:
        rows = _recorded.carry_out(groups().search(0), pair_answer).history
        assert [row["epoch_equivalents"] for row in rows] == [6.0, 12.0, 18.0]
        assert set(rows[0]) >= {"val_loss", "val_error", "train_loss", "lr", "reward", "kl"}
        assert {f"share/{name}" for name in METHOD["operations"]} <= set(rows[0])
        assert rows[0]["reward_std"] > 0

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"updates": 0}, "method.updates=0: expected at least 1"),
            ({"parallel": 1}, "method.parallel=1: expected at least 2"),
            ({"parallel": None}, "method.parallel=None: expected a whole number"),
            ({"same_order": 1}, "true or false"),
            ({"draws": 0}, "method.same_order=True: expected false with method.draws=0"),
            ({"form": "both"}, "method.form"),
            ({"interval": 3}, "unknown setting of method 'interval'"),
        ],
    )
    def test_wrong_settings_are_one_line(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(RaysearchError, match=message):
            groups(change).search(0)

    @pytest.mark.parametrize("name", ["ohl", "ohl_paper"])
    def test_its_configurations_fit_a_search_of_any_length(self, name: str) -> None:
        method = method_settings(name)
        for epochs, rounds in ((200, 40), (90, 30), (20, 20)):
            assert Configured.of(method, {"epochs": epochs}).search(0).rounds == rounds


class TestReplicas:
    def proposal(self, id: str = "0001-01", start: str = "", **values: Any) -> Proposal:
        uniform = np.full((3, 3), -np.log(9), dtype=np.float32)
        given = {"log_probabilities": uniform, "seed": 5, "order": 6}
        return Proposal(id, int(id[:4]) - 1, {**given, **values}, (start,) if start else ())

    def test_the_rounds_are_one_training(self, setup: Setup, build: Build) -> None:
        """Weights, momentum and the cosine go on from round to round."""
        plain = Training(setup, TRAINING, None, True, split=setup.search_splits()[0])
        start, rates, files = "", [], {}
        for name, seed in (("0001-01", 5), ("0002-03", 7), ("0003-02", 9)):
            proposal = self.proposal(name, start, seed=seed, order=seed)
            answer = answered(build, proposal, files)
            rates.append(answer.values["lr"])
            plain.setup = replace(setup, seed=seed)
            plain.policy = TrialPairs.of(Ohl.of(METHOD).uniform, proposal, 4)
            for _ in range(1 if name == "0003-02" else 2):
                metrics = plain.step()
            assert metrics["lr"] == answer.values["lr"]
            assert answer.file is not None
            files[name] = through_a_file(dict(answer.file))
            assert files[name]["epoch"] == plain.epoch
            for key, tensor in plain.model.state_dict().items():
                assert torch.equal(files[name]["model"][key], tensor)
            start = name
        assert rates == sorted(rates, reverse=True)

    def test_the_same_proposal_has_the_same_answer_and_leaves_the_same(
        self, setup: Setup, build: Build
    ) -> None:
        first = answered(build, self.proposal())
        other = answered(build, self.proposal("0001-02", seed=6))
        again = answered(groups().build(setup), self.proposal())
        assert again.values["reward"] == first.values["reward"] != other.values["reward"]
        assert np.array_equal(again.values["counts"], first.values["counts"])
        assert first.file is not None  # which the next replica has not changed
        assert again.file is not None
        for key, tensor in first.file["model"].items():
            assert torch.equal(again.file["model"][key], tensor)

    @pytest.mark.parametrize("draws", [0, 4])
    def test_it_is_restored_bit_for_bit(self, setup: Setup, draws: int) -> None:
        build = groups({"draws": draws, "same_order": draws > 0}).build(setup)
        start = answered(build, self.proposal())
        files: dict[str, Any] = {"0001-01": start.file}
        proposal = self.proposal("0002-01", "0001-01", seed=8)
        whole = answered(build, proposal, files)
        work = build(proposal, files)
        work.step()
        state = through_a_file(work.state_dict())
        answered(build, self.proposal())  # another one uses the same training
        again = build(proposal, files)
        again.load_state_dict(state)
        assert (again.epoch, again.epochs) == (1, 2)
        again.step()
        found = again.answer().values
        assert np.array_equal(found["counts"], whole.values["counts"])
        assert {**found, "counts": 0} == {**whole.values, "counts": 0}

    def test_what_differs_between_replicas(self, setup: Setup) -> None:
        def loss(build: Build, **values: int) -> float:
            return float(answered(build, self.proposal(**values)).values["val_loss"])

        few = groups().build(setup)
        assert loss(few) != loss(few, order=7)
        every = groups({"draws": 0, "same_order": False}).build(setup)
        assert loss(every) == loss(every, order=7) != loss(every, seed=8)
        assert answered(every, self.proposal()).values["counts"].sum() == 2 * 32
        for same, orders in ((True, 1), (False, 3)):
            search = groups({"same_order": same}).search(0)
            asked = [search.ask() for _ in range(3)]
            assert len({p.values["order"] for p in asked if p}) == orders
            assert len({p.values["seed"] for p in asked if p}) == 3

    def test_cost_and_reward(self, setup: Setup, build: Build) -> None:
        answer = answered(build, self.proposal())
        assert answer.values["epoch_equivalents"] == pytest.approx(2 * 32 / 40 + 1 / 3)
        assert answer.values["reward"] == -answer.values["val_loss"]
        files: dict[str, Any] = {"0001-01": answer.file}
        last = answered(build, self.proposal("0002-01", "0001-01"), files)
        assert last.values["epoch_equivalents"] == pytest.approx(2 * 32 / 40 + 1 / 3)
        accuracy = groups({"reward": "metric"}).build(setup)
        values = answered(accuracy, self.proposal()).values
        assert values["reward"] == pytest.approx(1 - values["val_error"] / 100)

    def test_a_search_costs_what_was_forecast(self, setup: Setup) -> None:
        given = groups(search={"batch_size": 20})
        rows = carry_out(given.search(0), given.build(setup))
        expected = given.forecast(setup)
        assert rows[-1]["epoch_equivalents"] == pytest.approx(expected.equivalents)
        assert expected.proposals == 9

    def test_a_network_that_diverges_is_a_failure(self, setup: Setup) -> None:
        wild = groups({"updates": 5}, {"lr": 1e30, "batch_size": 40}).build(setup)
        answer = answer_to(self.proposal(), wild)
        assert isinstance(answer, Failed)
        assert answer.reason.startswith("validation: the loss is not finite")


@pytest.mark.parametrize("form", ["joint", "factored"])
def test_a_search_goes_on_wherever_it_was_stopped(build: Build, form: str) -> None:
    given = groups({"form": form})
    undisturbed = given.search(0)
    rows = _recorded.carry_out(undisturbed, build=build).history
    assert isinstance(undisturbed.policy(), Schedule)
    assert rows[-1]["kl_uniform"] > 0
    for stop in (2, 3, 7):  # within a round, between two, in the last
        search = given.search(0)
        first = _recorded.carry_out(search, build=build, most=stop)
        again = given.search(0)
        again.load_state_dict(through_a_file(search.state_dict()))
        second = _recorded.carry_out(again, build=build, files=first.files)
        assert again.policy() == undisturbed.policy()
        assert first.history + second.history == rows
        assert not second.files


def test_between_rounds_only_the_best_replica_is_kept(build: Build) -> None:
    search = groups().search(0)
    found = _recorded.carry_out(search, build=build, most=3)
    assert list(found.files) == list(search.needed())
    assert len(found.files) == 1


def test_a_trial_counts_what_it_draws() -> None:
    uniform = Pairs.uniform(["Rotate", "Invert"], 2)
    log_p = np.full((3, 3), -np.log(9), dtype=np.float32)
    proposal = Proposal("0001-01", 0, {"log_probabilities": log_p, "seed": 1})
    images: Tensor = torch.zeros(50, 1, 8, 8, dtype=torch.uint8)
    every, few = (TrialPairs.of(uniform, proposal, draws) for draws in (0, 4))
    for policy in (every, few):
        policy(images, torch.Generator().manual_seed(0))
    assert every.counts.sum() == 50
    assert few.counts.sum() == 4
    assert not set(few.seen.nonzero().flatten().tolist()) - set(few.counts.nonzero()[0].tolist())
