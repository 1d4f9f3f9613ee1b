"""AWS without Ray: the distribution over pairs, PPO, the fine-tune trials, weight sharing."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import dark_and_light, through_a_file
from torch import Tensor

from raysearch import methods
from raysearch.errors import NonFiniteLossError, RaysearchError
from raysearch.methods import Proposal, TrialSearch, carry_out
from raysearch.methods._ppo import PPO, PairDistribution, PPOSettings, surrogate
from raysearch.methods.aws import Aws
from raysearch.policy import Pairs
from raysearch.training import Predefined, Setup, Training

PPO_SETTINGS = PPOSettings(
    lr=0.1,
    betas=(0.5, 0.999),
    warmup=0,
    clip=0.2,
    inner_updates=5,
    kl_limit=0.002,
    baseline_decay=0.9,
)
METHOD: dict[str, Any] = {
    "name": "aws",
    "operations": ["Rotate", "Invert"],
    "levels": 2,
    "form": "joint",
    "updates": 3,
    "draws": 4,
    "reward": "loss",
    "best": 2,
    "lr": 0.1,
    "betas": [0.5, 0.999],
    "warmup_updates": 2,
    "clip": 0.2,
    "inner_updates": 5,
    "kl_limit": 0.002,
    "baseline_decay": 0.9,
    "label_smoothing": 0.0,
    "shared_checkpoint": None,
}
SEARCH = {
    "epochs": 2,
    "batch_size": 16,
    "lr": 0.1,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 5e-4,
}
FINETUNE = {**SEARCH, "lr": 0.01, "parallel": 3}


@pytest.fixture(scope="module")
def setup() -> Setup:
    """A small one."""
    return dark_and_light()


@pytest.fixture(scope="module")
def shared(setup: Setup) -> dict[str, Any]:
    """A shared checkpoint, as a file has it."""
    training = methods.build("aws", setup, SEARCH, METHOD)
    while training.epoch < training.epochs:
        training.step()
    checkpoint = training.trained()
    assert checkpoint is not None
    found: dict[str, Any] = through_a_file(checkpoint)
    return found


class TestPPO:
    @pytest.mark.parametrize("form", ["joint", "factored"])
    def test_it_starts_uniform_and_sums_to_one(self, form: Any) -> None:
        distribution = PairDistribution(5, form)
        assert torch.allclose(distribution.log_probabilities().exp(), torch.tensor(1 / 25))
        with torch.no_grad():
            for logits in distribution.logits:
                logits.normal_(generator=torch.Generator().manual_seed(0))
        assert float(distribution.log_probabilities().detach().exp().sum()) == pytest.approx(1)

    def test_joint_is_a_normalised_sigmoid(self) -> None:
        distribution = PairDistribution(3, "joint")
        with torch.no_grad():
            distribution.logits[0].normal_(generator=torch.Generator().manual_seed(0))
        sigmoid = distribution.logits[0].sigmoid()
        expected = sigmoid / sigmoid.sum()
        assert torch.allclose(distribution.log_probabilities().exp(), expected)

    @pytest.mark.parametrize("form", ["joint", "factored"])
    def test_its_first_step_follows_the_exact_gradient(self, form: Any) -> None:
        """Over all samples of n draws, the surrogate's gradient at the old policy is that of
        the expected reward, over n."""
        n, draws = 2, 2
        reward = torch.tensor([0.3, -1.0, 0.7, 2.0])
        distribution = PairDistribution(n, form)
        with torch.no_grad():
            for logits in distribution.logits:
                logits.normal_(generator=torch.Generator().manual_seed(1))
        log_p = distribution.log_probabilities()
        old = log_p.detach()
        expected = torch.zeros(())
        found = [torch.zeros_like(logits) for logits in distribution.logits]
        for first in range(4):
            for second in range(4):
                counts = torch.zeros(4)
                counts[first] += 1
                counts[second] += 1
                value = reward[first] * reward[second]
                p = log_p.flatten()[first].exp() * log_p.flatten()[second].exp()
                expected = expected + p * value
                gain, _ = surrogate(log_p, old, counts.reshape(1, 2, 2), value[None], 0.2)
                own = torch.autograd.grad(gain, distribution.logits, retain_graph=True)
                for total, one in zip(found, own, strict=True):
                    total += float(p.detach()) * one
        wanted = torch.autograd.grad(expected, distribution.logits)
        for total, exact in zip(found, wanted, strict=True):
            assert torch.allclose(draws * total, exact, atol=1e-6)

    def test_gains_stop_at_the_clipped_ratio_and_losses_do_not(self) -> None:
        old = torch.full((1, 2), 0.25).log()
        log_p = torch.tensor([[0.5, 0.1]]).log()
        counts = torch.tensor([[[1.0, 1.0]]])
        for advantage, gain in ((2.0, (1.2 * 2 + 0.4 * 2) / 2), (-2.0, (2 * -2 + 0.8 * -2) / 2)):
            value, clipped = surrogate(log_p, old, counts, torch.tensor([advantage]), 0.2)
            assert float(value) == pytest.approx(gain)
            assert clipped == 1

    def test_rewarded_pairs_become_likelier(self) -> None:
        distribution = PairDistribution(3, "joint")
        ppo = PPO(distribution, PPO_SETTINGS)
        generator = torch.Generator().manual_seed(0)
        for _ in range(60):
            p = distribution.log_probabilities().detach().exp().flatten()
            drawn = torch.multinomial(p, 4 * 16, replacement=True, generator=generator)
            counts = torch.stack([d.bincount(minlength=9) for d in drawn.reshape(4, 16)]).float()
            ppo.update(counts.reshape(4, 3, 3), (counts[:, 5] / 16).tolist())
        p = distribution.log_probabilities().detach().exp().flatten()
        assert int(p.argmax()) == 5
        assert float(p[5]) > 0.3

    def test_it_stops_at_the_limit_and_clips(self) -> None:
        counts = torch.eye(2)[None] * 4
        far = PPO(PairDistribution(2, "joint"), replace(PPO_SETTINGS, lr=5.0))
        far.update(counts, [0.0])  # the baseline
        moved = far.update(counts, [1.0])
        assert moved["inner_updates"] == 1
        assert moved["kl"] > PPO_SETTINGS.kl_limit
        free = PPO(PairDistribution(2, "joint"), replace(PPO_SETTINGS, lr=1.0, kl_limit=9.0))
        free.update(counts, [0.0])
        moved = free.update(counts, [1.0])
        assert moved["inner_updates"] == 5
        assert moved["clipped"] > 0

    def test_the_baseline_is_a_moving_average(self) -> None:
        ppo = PPO(PairDistribution(2, "joint"), PPO_SETTINGS)
        counts = torch.ones(2, 2, 2)
        ppo.update(counts, [1.0, 3.0])
        assert ppo.baseline == pytest.approx(2.0)
        ppo.update(counts, [4.0, 4.0])
        assert ppo.baseline == pytest.approx(0.9 * 2 + 0.1 * 4)

    def test_the_learning_rate_warms_up(self) -> None:
        slow = PPO(PairDistribution(2, "joint"), replace(PPO_SETTINGS, warmup=10, inner_updates=1))
        fast = PPO(PairDistribution(2, "joint"), replace(PPO_SETTINGS, inner_updates=1))
        counts = torch.stack([torch.eye(2), 1 - torch.eye(2)])
        for ppo in (slow, fast):
            ppo.update(counts, [1.0, 0.0])
        ratio = slow.distribution.logits[0] / fast.distribution.logits[0]
        assert torch.allclose(ratio, torch.tensor(0.1), atol=1e-3)


class Counted:
    """A worker that answers by a rule, and counts what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, proposal: Proposal, folder: Path | None = None) -> dict[str, Any]:
        self.asked.append(proposal.id)
        p = np.exp(proposal.values["log_probabilities"].astype(np.float64)).flatten()
        generator = np.random.default_rng(proposal.values["seed"])
        counts = generator.multinomial(8, p / p.sum()).astype(np.int32)
        value = float(counts[0])
        shown = dict.fromkeys(("train_loss", "val_loss", "val_error", "lr"), 1.0)
        return {**shown, "counts": counts, "reward": value, "epoch_equivalents": 2.0}


def whole(search: TrialSearch) -> dict[str, Tensor]:
    """What a search ended with."""
    policy = search.policy()
    assert isinstance(policy, Pairs)
    return {"p": policy.probabilities}


class TestSearch:
    def test_a_round_waits_for_all_and_the_order_does_not_matter(self) -> None:
        ends = []
        for order in (1, -1):
            search, worker = Aws(0, METHOD, FINETUNE), Counted()
            rounds = 0
            while not search.finished:
                asked = [search.ask() for _ in range(4)]
                assert asked[3] is None
                proposals = [proposal for proposal in asked if proposal]
                told = [search.tell(p.id, worker(p)) for p in proposals[::order]]
                assert [metrics is None for metrics in told] == [True, True, False]
                rounds += 1
            assert rounds == search.round == 3
            ends.append(whole(search)["p"])
        assert torch.equal(*ends)

    def test_metrics_are_those_of_every_search(self) -> None:
        search, seen = Aws(0, METHOD, FINETUNE), []
        carry_out(search, Counted(), seen.append)
        assert [m["epoch_equivalents"] for m in seen] == [6.0, 12.0, 18.0]
        assert set(seen[0]) >= {"val_loss", "val_error", "train_loss", "lr", "reward", "kl"}
        assert {f"share/{name}" for name in METHOD["operations"]} <= set(seen[0])
        assert seen[0]["entropy"] + seen[0]["kl_uniform"] == pytest.approx(math.log(9))

    @pytest.mark.parametrize("stop", range(9))
    def test_restored_anywhere_it_ends_the_same(self, stop: int) -> None:
        undisturbed = Aws(0, METHOD, FINETUNE)
        carry_out(undisturbed, Counted())
        search, worker = Aws(0, METHOD, FINETUNE), Counted()
        for _ in range(stop):
            proposal = search.ask()
            assert proposal is not None
            search.tell(proposal.id, worker(proposal))
        search.ask()  # asked for and never told
        again = Aws(0, METHOD, {**FINETUNE, "parallel": 7})  # the round's size is kept
        again.load_state_dict(through_a_file(search.state_dict()))
        carry_out(again, worker)
        assert torch.equal(whole(again)["p"], whole(undisturbed)["p"])
        assert len(worker.asked) == len(set(worker.asked)) == 9
        assert again.metrics == undisturbed.metrics

    def test_what_is_retracted_is_asked_for_again(self) -> None:
        search = Aws(0, METHOD, FINETUNE)
        asked = [search.ask() for _ in range(3)]
        assert asked[1] is not None
        search.retract(asked[1].id)
        again = search.ask()
        assert again is not None
        assert again.id == asked[1].id
        assert again.values["seed"] == asked[1].values["seed"]

    def test_it_takes_no_answer_that_it_did_not_ask_for(self) -> None:
        with pytest.raises(KeyError):
            Aws(0, METHOD, FINETUNE).tell("0002-01", {})

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"form": "both"}, "method.form"),
            ({"levels": 0}, "method.levels=0: expected at least 1"),
            ({"clip": 2}, "method.clip=2: expected between 0 and 1"),
            ({"operations": ["Rotate"]}, "two or more"),
            ({"levels": 200}, "fewer elements"),
            ({"best": 3}, "more than finetune.epochs=2"),
            ({"shared_checkpoint": 3}, "a path or nothing"),
        ],
    )
    def test_wrong_settings_are_one_line(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(RaysearchError, match=message):
            Aws(0, {**METHOD, **change}, FINETUNE)


class TestFineTuning:
    def proposal(self, setup: Setup, seed: int = 5, size: int = 3) -> Proposal:
        uniform = np.full((size, size), -math.log(size * size), dtype=np.float32)
        return Proposal("0001-01", 0, {"log_probabilities": uniform, "seed": seed})

    def test_the_same_proposal_has_the_same_answer(
        self, setup: Setup, shared: dict[str, Any]
    ) -> None:
        worker = Aws.worker(setup, METHOD, FINETUNE, shared)
        before = copy.deepcopy(shared)
        first, other = worker(self.proposal(setup)), worker(self.proposal(setup, seed=6))
        again = worker(self.proposal(setup))
        elsewhere = Aws.worker(setup, METHOD, FINETUNE, before)(self.proposal(setup))
        for answer in (again, elsewhere):
            assert answer["reward"] == first["reward"]
            assert np.array_equal(answer["counts"], first["counts"])
        assert other["reward"] != first["reward"]

    def test_a_trial_draws_a_few_pairs_or_one_for_every_image(
        self, setup: Setup, shared: dict[str, Any]
    ) -> None:
        few = Aws.worker(setup, METHOD, FINETUNE, shared)(self.proposal(setup))
        assert few["counts"].sum() == METHOD["draws"]
        every = Aws.worker(setup, {**METHOD, "draws": 0}, FINETUNE, shared)(self.proposal(setup))
        assert every["counts"].sum() == 2 * 32  # epochs, images in whole batches
        assert every["counts"].shape == (9,)

    def test_the_reward_is_the_mean_of_the_best_epochs(
        self, setup: Setup, shared: dict[str, Any]
    ) -> None:
        settings = {**METHOD, "reward": "accuracy", "best": 1}
        answer = Aws.worker(setup, settings, {**FINETUNE, "epochs": 1}, shared)(
            self.proposal(setup)
        )
        assert answer["reward"] == pytest.approx(1 - answer["val_error"] / 100)
        assert answer["epoch_equivalents"] == pytest.approx(32 / 40 + 1 / 3)

    def test_a_network_that_diverges_in_the_last_step_is_an_error(
        self, setup: Setup, shared: dict[str, Any]
    ) -> None:
        finetune = {**FINETUNE, "epochs": 1, "lr": 1e30, "batch_size": 40}
        worker = Aws.worker(setup, {**METHOD, "best": 1}, finetune, shared)
        with pytest.raises(NonFiniteLossError, match="validation: the loss is not finite"):
            worker(self.proposal(setup))

    def test_a_whole_search_runs(self, setup: Setup, shared: dict[str, Any]) -> None:
        for form in ("joint", "factored"):
            search = Aws(0, {**METHOD, "form": form}, FINETUNE)
            carry_out(search, Aws.worker(setup, METHOD, FINETUNE, shared))
            assert search.metrics["kl_uniform"] > 0


class TestWeightSharing:
    def test_stage_one_is_restored_bit_for_bit(self, setup: Setup, shared: dict[str, Any]) -> None:
        first = methods.build("aws", setup, SEARCH, METHOD)
        first.step()
        again = methods.build("aws", setup, SEARCH, METHOD)
        again.load_state_dict(through_a_file(first.state_dict()))
        again.step()
        checkpoint = again.trained()
        assert checkpoint is not None
        for name, tensor in shared["model"].items():
            assert torch.equal(tensor, checkpoint["model"][name])
        assert checkpoint["metrics"] == shared["metrics"]

    def test_it_trains_on_the_searchs_part_of_the_images(self, setup: Setup) -> None:
        training = methods.build("aws", setup, {**SEARCH, "epochs": 1}, METHOD)
        assert training.step()["epoch_equivalents"] == pytest.approx(32 / 40 + 1 / 3)

    def test_a_checkpoint_that_fits_is_taken(self, setup: Setup, shared: dict[str, Any]) -> None:
        Aws.fits(shared, setup, SEARCH, METHOD)

    @pytest.mark.parametrize(
        ("task_change", "search_change", "method_change", "message"),
        [
            ({"model": "resnet18"}, {}, {}, "model small_cnn, not resnet18"),
            ({"seed": 1}, {}, {}, "training images .*another seed divides"),
            ({"predefined": Predefined()}, {}, {}, "predefined augmentation"),
            ({}, {"epochs": 9}, {}, "search.epochs 2, not 9"),
            ({}, {}, {"levels": 3}, "method.levels 2, not 3"),
            ({}, {}, {"operations": ["Rotate", "Equalize"]}, "method.operations"),
        ],
    )
    def test_one_that_does_not_fit_is_refused_with_the_reason(
        self,
        setup: Setup,
        shared: dict[str, Any],
        task_change: dict[str, Any],
        search_change: dict[str, Any],
        method_change: dict[str, Any],
        message: str,
    ) -> None:
        with pytest.raises(RaysearchError, match=message):
            Aws.fits(
                shared,
                replace(setup, **task_change),
                {**SEARCH, **search_change},
                {**METHOD, **method_change},
            )
        with pytest.raises(RaysearchError, match="not a shared checkpoint"):
            Aws.fits({"weights": 1}, setup, SEARCH, METHOD)
        with pytest.raises(RaysearchError, match="not a shared checkpoint"):
            Aws.fits([1], setup, SEARCH, METHOD)  # type: ignore[arg-type]


class TestEnlargeBatch:
    def test_each_image_is_there_several_times_augmented_anew(self, setup: Setup) -> None:
        seen: list[Tensor] = []
        training = Training(setup, {**SEARCH, "enlarge_batch": 3}, None, predefined=True)
        forward = training.model.forward
        training.model.forward = lambda x: (seen.append(x), forward(x))[1]  # type: ignore[method-assign]
        metrics = training.step()
        assert [len(batch) for batch in seen] == [48] * 5  # as many steps
        parts = seen[0].reshape(3, 16, *seen[0].shape[1:])
        assert not torch.equal(parts[0], parts[1])
        assert metrics["epoch_equivalents"] == pytest.approx(3 * 80 / 40)
