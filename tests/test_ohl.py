"""OHL without Ray: REINFORCE over a round's replicas, the chain of best ones, continuation."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import dark_and_light, through_a_file
from test_aws import SEARCH, Counted
from torch import Tensor

from raysearch.cli._compose import compose
from raysearch.errors import NonFiniteLossError, RaysearchError
from raysearch.methods import Proposal, carry_out, tidy
from raysearch.methods._pair_search import TrialPairs
from raysearch.methods._ppo import PairDistribution, surrogate
from raysearch.methods._trials import file_of
from raysearch.methods.ohl import PHASES, Ohl, OhlSettings, Replica, normalised
from raysearch.policy import Pairs, Policy, Schedule, read_policy
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
TRAINING = {**SEARCH, "epochs": 5, "parallel": 3}  # rounds of 2, 2 and 1 epochs


@pytest.fixture(scope="module")
def setup() -> Setup:
    """A small one."""
    return dark_and_light()


@pytest.fixture(scope="module")
def worker(setup: Setup) -> Replica:
    """For all tests: it is told everything."""
    return Ohl.worker(setup, METHOD, TRAINING, {})


def one_round(search: Ohl, worker: Any, folder: Path, order: int = 1) -> list[Proposal]:
    """A whole round, answered in the order of asking or in reverse."""
    proposals = []
    while (proposal := search.ask()) is not None:
        proposals.append(proposal)
    for proposal in proposals[::order]:
        search.tell(proposal.id, worker(proposal, folder))
    return proposals


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

    def test_a_round_is_one_step_of_adam_along_it(self, tmp_path: Path) -> None:
        search, rule = Ohl(0, METHOD, TRAINING), Counted()
        answers = [rule(proposal) for proposal in one_round(search, rule, tmp_path)]
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
    def test_the_best_replica_is_where_the_next_round_starts(self, tmp_path: Path) -> None:
        search, rule = Ohl(0, METHOD, TRAINING), Counted()
        before = ""
        for _ in range(3):
            proposals = one_round(search, rule, tmp_path)
            assert {proposal.values["start"] for proposal in proposals} == {before}
            rewards = {proposal.id: rule(proposal)["reward"] for proposal in proposals}
            before = max(rewards, key=lambda id_: rewards[id_])
            assert list(search.needed()) == ([] if search.finished else [before])
        assert search.finished
        assert search.ask() is None

    def test_the_order_of_answers_does_not_matter(self, tmp_path: Path) -> None:
        ends = []
        for order in (1, -1):
            search = Ohl(0, METHOD, TRAINING)
            while not search.finished:
                one_round(search, Counted(), tmp_path, order)
            ends.append(search.policy())
        assert ends[0] == ends[1]

    def test_the_policy_is_the_schedule_of_what_was_in_force(self, tmp_path: Path) -> None:
        search = Ohl(0, METHOD, {**TRAINING, "epochs": 6})
        assert search.policy().phases == (search.uniform(METHOD),)
        for done in range(3):
            [first, *_] = one_round(search, Counted(), tmp_path)
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
        method = {**METHOD, "operations": operations, "levels": 3, "updates": 100}
        search = Ohl(0, method, {**TRAINING, "epochs": 45})
        carry_out(search, Counted())
        assert len(search.policy()) == PHASES
        search.policy().save(tmp_path / "policy.json")
        assert (tmp_path / "policy.json").stat().st_size < 2 * 2**20
        assert read_policy(tmp_path / "policy.json") == search.policy()
        assert len(json.dumps(search.metrics)) < 2**12

    def test_metrics_are_those_of_every_search(self) -> None:
        search, seen = Ohl(0, METHOD, TRAINING), []
        carry_out(search, Counted(), seen.append)
        assert [m["epoch_equivalents"] for m in seen] == [6.0, 12.0, 18.0]
        assert set(seen[0]) >= {"val_loss", "val_error", "train_loss", "lr", "reward", "kl"}
        assert {f"share/{name}" for name in METHOD["operations"]} <= set(seen[0])
        assert seen[0]["spread"] > 0

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"updates": 0}, "method.updates=0: expected at least 1"),
            ({"parallel": 1}, "method.parallel=1: expected at least 2"),
            ({"parallel": None}, "method.parallel=None: expected a whole number"),
            ({"same_order": 1}, "true or false"),
            ({"form": "both"}, "method.form"),
            ({"interval": 3}, "unknown setting of method ohl 'interval'"),
        ],
    )
    def test_wrong_settings_are_one_line(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(RaysearchError, match=message):
            Ohl(0, {**METHOD, **change}, TRAINING)

    @pytest.mark.parametrize("name", ["ohl", "ohl_paper"])
    def test_its_configurations_fit_a_search_of_any_length(self, name: str) -> None:
        for epochs, rounds in ((200, 40), (90, 30), (20, 20)):
            values = compose([f"method={name}", f"search.epochs={epochs}"]).values
            training = {**values["search"], "parallel": values["method"]["parallel"]}
            assert Ohl(0, values["method"], training).rounds == rounds


class TestReplicas:
    def proposal(self, **values: Any) -> Proposal:
        uniform = np.full((3, 3), -np.log(9), dtype=np.float32)
        given = {"log_probabilities": uniform, "seed": 5, "order": 6, "start": ""}
        return Proposal("0001-01", 0, {**given, **values})

    def test_the_rounds_are_one_training(
        self, setup: Setup, worker: Replica, tmp_path: Path
    ) -> None:
        """Weights, momentum and the cosine go on from round to round."""
        plain = Training(setup, TRAINING, None, True, split=setup.search_splits()[0])
        start, rates = "", []
        for name, seed in (("0001-01", 5), ("0002-03", 7), ("0003-02", 9)):
            proposal = replace(self.proposal(seed=seed, order=seed, start=start), id=name)
            answer = worker(proposal, tmp_path)
            rates.append(answer["lr"])
            plain.setup = replace(setup, seed=seed)
            plain.policy = TrialPairs.of(OhlSettings.of(METHOD).uniform, proposal, 4)
            for _ in range(1 if name == "0003-02" else 2):
                metrics = plain.step()
            assert metrics["lr"] == answer["lr"]
            kept = torch.load(file_of(tmp_path, name), weights_only=True)
            assert kept["epoch"] == plain.epoch
            for key, tensor in plain.model.state_dict().items():
                assert torch.equal(kept["model"][key], tensor)
            start = name
        assert rates == sorted(rates, reverse=True)

    def test_the_same_proposal_has_the_same_answer_and_leaves_the_same(
        self, setup: Setup, worker: Replica, tmp_path: Path
    ) -> None:
        first = worker(self.proposal(), tmp_path)
        kept = torch.load(file_of(tmp_path, "0001-01"), weights_only=True)
        other = worker(replace(self.proposal(seed=6), id="0001-02"), tmp_path)
        again = Ohl.worker(setup, METHOD, TRAINING, {})(self.proposal(), tmp_path)
        assert again["reward"] == first["reward"] != other["reward"]
        assert np.array_equal(again["counts"], first["counts"])
        repeated = torch.load(file_of(tmp_path, "0001-01"), weights_only=True)
        assert all(torch.equal(kept["model"][k], repeated["model"][k]) for k in kept["model"])
        assert len(list(tmp_path.iterdir())) == 2  # nothing half-written

    def test_what_differs_between_replicas(self, setup: Setup, tmp_path: Path) -> None:
        def loss(worker: Replica, **values: int) -> float:
            return float(worker(self.proposal(**values), tmp_path)["val_loss"])

        few = Ohl.worker(setup, METHOD, TRAINING, {})
        assert loss(few) != loss(few, order=7)
        every = Ohl.worker(setup, {**METHOD, "draws": 0}, TRAINING, {})
        assert loss(every) == loss(every, order=7) != loss(every, seed=8)
        assert every(self.proposal(), tmp_path)["counts"].sum() == 2 * 32
        for same, orders in ((True, 1), (False, 3)):
            search = Ohl(0, {**METHOD, "same_order": same}, TRAINING)
            asked = [search.ask() for _ in range(3)]
            assert len({p.values["order"] for p in asked if p}) == orders
            assert len({p.values["seed"] for p in asked if p}) == 3

    def test_cost_and_reward(self, setup: Setup, worker: Replica, tmp_path: Path) -> None:
        answer = worker(self.proposal(), tmp_path)
        assert answer["epoch_equivalents"] == pytest.approx(2 * 32 / 40 + 1 / 3)
        assert answer["reward"] == -answer["val_loss"]
        last = worker(replace(self.proposal(start="0001-01"), id="0002-01"), tmp_path)
        assert last["epoch_equivalents"] == pytest.approx(2 * 32 / 40 + 1 / 3)
        accuracy = Ohl.worker(setup, {**METHOD, "reward": "accuracy"}, TRAINING, {})
        answer = accuracy(self.proposal(), tmp_path)
        assert answer["reward"] == pytest.approx(1 - answer["val_error"] / 100)

    def test_a_lost_file_is_one_line(self, worker: Replica, tmp_path: Path) -> None:
        with pytest.raises(RaysearchError, match=r"0001-02.pt is gone.*begin it anew") as error:
            worker(self.proposal(start="0001-02"), tmp_path)
        assert "\n" not in str(error.value)

    def test_a_network_that_diverges_leaves_nothing(self, setup: Setup, tmp_path: Path) -> None:
        method = {**METHOD, "updates": 5}
        wild = Ohl.worker(setup, method, {**TRAINING, "lr": 1e30, "batch_size": 40}, {})
        with pytest.raises(NonFiniteLossError, match="validation: the loss is not finite"):
            wild(self.proposal(), tmp_path)
        assert not list(tmp_path.iterdir())


class TestContinuation:
    def search_until(
        self, search: Ohl, worker: Replica, folder: Path, answers: int | None = None
    ) -> Policy:
        """Go on until there are so many answers, or to the end."""
        while answers != 0 and (proposal := search.ask()) is not None:
            if search.tell(proposal.id, worker(proposal, folder)) is not None:
                tidy(search, folder)
            answers = None if answers is None else answers - 1
        return search.policy()

    @pytest.mark.parametrize("form", ["joint", "factored"])
    def test_killed_anywhere_it_ends_the_same(
        self, worker: Replica, tmp_path: Path, form: str
    ) -> None:
        method = {**METHOD, "form": form}
        undisturbed = Ohl(0, method, TRAINING)
        carry_out(undisturbed, worker)
        assert isinstance(undisturbed.policy(), Schedule)
        assert undisturbed.metrics["kl_uniform"] > 0
        for stop in (2, 3, 7):  # within a round, between two, in the last
            folder = tmp_path / str(stop)
            folder.mkdir()
            search = Ohl(0, method, TRAINING)
            self.search_until(search, worker, folder, stop)
            state: Any = through_a_file(search.state_dict())
            proposal = search.ask()
            assert proposal is not None
            worker(proposal, folder)  # its file is there, its answer was not kept
            again = Ohl(0, method, {**TRAINING, "parallel": 7})  # the round's size is kept
            again.load_state_dict(state)
            assert self.search_until(again, worker, folder) == undisturbed.policy()
            assert again.metrics == undisturbed.metrics
            assert not list(folder.iterdir())

    def test_between_rounds_only_the_best_replica_is_kept(
        self, worker: Replica, tmp_path: Path
    ) -> None:
        search = Ohl(0, METHOD, TRAINING)
        self.search_until(search, worker, tmp_path, 3)
        [kept] = tmp_path.iterdir()
        assert [kept.stem] == list(search.needed())


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
