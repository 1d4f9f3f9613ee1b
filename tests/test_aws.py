"""AWS without Ray: the distribution over pairs, PPO, the fine-tune trials, weight sharing."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import _recorded
import numpy as np
import pytest
import torch
from _recorded import failing, pair_answer
from conftest import dark_and_light, through_a_file
from torch import Tensor

from benchmarks._local import Configured, answer_to, carry_out
from raysearch.errors import RaysearchError, SearchFailedError
from raysearch.methods._pair_search import TrialPairs
from raysearch.methods._ppo import PPO, PairDistribution, PPOSettings, surrogate
from raysearch.methods.aws import Aws, AwsSearch
from raysearch.protocol import Answer, Failed, Proposal, Values
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


def groups(
    method: Mapping[str, Any] | None = None,
    search: Mapping[str, Any] | None = None,
    finetune: Mapping[str, Any] | None = None,
) -> Configured:
    """The settings, some of them changed."""
    changed = (METHOD | dict(method or {}), SEARCH | dict(search or {}))
    return Configured.of(*changed, FINETUNE | dict(finetune or {}))


GIVEN = {"shared_checkpoint": "elsewhere"}  # so that searches begin with fine-tunings


@pytest.fixture(scope="module")
def setup() -> Setup:
    """A small one."""
    return dark_and_light()


@pytest.fixture(scope="module")
def shared(setup: Setup) -> Values:
    """A shared checkpoint, as a file has it."""
    answer = answer_to(Proposal("shared", 0), groups().build(setup))
    assert isinstance(answer, Answer)
    assert answer.file is not None
    found: Values = through_a_file(dict(answer.file))
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

    def test_a_trial_that_drew_nothing_only_counts(self) -> None:
        distribution = PairDistribution(2, "joint")
        log_p = distribution.log_probabilities().detach()
        counts, advantage = torch.ones(1, 2, 2), torch.ones(2)
        one, _ = surrogate(log_p, log_p, counts, advantage[:1], 0.2)
        both = torch.cat([counts, torch.zeros(1, 2, 2)])
        two, _ = surrogate(log_p, log_p, both, advantage, 0.2)
        assert float(two) == pytest.approx(float(one) / 2)

    def test_the_learning_rate_warms_up(self) -> None:
        slow = PPO(PairDistribution(2, "joint"), replace(PPO_SETTINGS, warmup=10, inner_updates=1))
        fast = PPO(PairDistribution(2, "joint"), replace(PPO_SETTINGS, inner_updates=1))
        counts = torch.stack([torch.eye(2), 1 - torch.eye(2)])
        for ppo in (slow, fast):
            ppo.update(counts, [1.0, 0.0])
        ratio = slow.distribution.logits[0] / fast.distribution.logits[0]
        assert torch.allclose(ratio, torch.tensor(0.1), atol=1e-3)


class TestSearch:
    def test_the_shared_training_comes_first_and_has_no_row(self) -> None:
        search = groups().search(0)
        assert (search.rounds, search.round) == (4, 0)
        first = search.ask()
        assert first is not None
        assert (first.id, first.round, first.stage, first.needs) == ("shared", 0, "search", ())
        assert search.ask() is None
        assert search.tell("shared", pair_answer(first)) == ()
        assert search.needed() == {"shared"}
        second = search.ask()
        assert second is not None
        assert (second.id, second.round, second.needs) == ("0001-01", 1, ("shared",))
        assert second.stage == "finetune"

    def test_one_that_is_given_changes_nothing_else(self) -> None:
        own, given = groups().search(0), groups(GIVEN).search(0)
        histories = [_recorded.carry_out(one, pair_answer).history for one in (own, given)]
        assert histories[0] == histories[1]
        assert own.policy() == given.policy()

    def test_metrics_are_those_of_every_search(self) -> None:
        search = groups().search(0)
        rows = _recorded.carry_out(search, pair_answer).history
        assert [row["epoch"] for row in rows] == [1, 2, 3]
        assert [row["epoch_equivalents"] for row in rows] == [16.0, 22.0, 28.0]
        assert set(rows[0]) >= {"val_loss", "val_error", "train_loss", "lr", "reward", "kl"}
        assert {f"share/{name}" for name in METHOD["operations"]} <= set(rows[0])
        assert rows[0]["entropy"] + rows[0]["kl_uniform"] == pytest.approx(math.log(9))
        assert not search.needed()

    def test_hundreds_of_trials_find_the_pair_that_is_rewarded(self) -> None:
        search = groups({"updates": 60, "kl_limit": 1.0}, finetune={"parallel": 8}).search(0)
        assert len(_recorded.carry_out(search, pair_answer).asked) == 481
        assert int(search.policy().probabilities.argmax()) == 0

    @pytest.mark.parametrize("stop", [0, 1, 2, 4, 6, 9])
    def test_restored_anywhere_it_asks_for_nothing_twice(self, stop: int) -> None:
        undisturbed = groups().search(0)
        history = _recorded.carry_out(undisturbed, pair_answer).history
        search = groups().search(0)
        first = _recorded.carry_out(search, pair_answer, most=stop)
        search.ask()  # asked for and never told
        again = groups().search(0)
        again.load_state_dict(through_a_file(search.state_dict()))
        second = _recorded.carry_out(again, pair_answer)
        assert again.policy() == undisturbed.policy()
        assert first.history + second.history == history
        ids = [proposal.id for proposal in first.asked + second.asked]
        assert len(ids) == len(set(ids)) == 10

    def test_what_is_retracted_is_asked_for_again(self) -> None:
        search = groups(GIVEN).search(0)
        asked = [search.ask() for _ in range(3)]
        assert search.ask() is None
        assert asked[1] is not None
        search.retract(asked[1].id)
        assert search.ask() == asked[1]

    def test_it_takes_no_answer_that_it_did_not_ask_for(self) -> None:
        with pytest.raises(KeyError):
            groups().search(0).tell("0002-01", Answer({}))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"form": "both"}, "method.form"),
            ({"levels": 0}, "method.levels=0: expected at least 1"),
            ({"clip": 2}, "method.clip=2: expected a number below 1"),
            ({"operations": ["Rotate"]}, "two or more"),
            ({"levels": 200}, "fewer elements"),
            ({"best": 3}, "more than finetune.epochs=2"),
            ({"shared_checkpoint": ""}, "expected a word that is not empty"),
        ],
    )
    def test_wrong_settings_are_one_line(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(RaysearchError, match=message):
            groups(change).search(0)


class TestFailures:
    def rounds(self, draws: int, *failed: str) -> tuple[AwsSearch, list[dict[str, float]]]:
        search = groups({"draws": draws}).search(0)
        return search, _recorded.carry_out(search, failing(pair_answer, *failed)).history

    def test_a_failed_trial_has_the_rounds_worst_reward_and_the_pairs_of_its_seed(self) -> None:
        search, _ = self.rounds(4, "0002-02")
        same = groups({"draws": 4}).search(0)

        def answers(proposal: Proposal) -> Answer:
            answer = pair_answer(proposal)
            if proposal.id != "0002-02":
                return answer
            others = [pair_answer(one) for one in same.proposals if one.id != proposal.id]
            worst = min(one.values["reward"] for one in others)
            counts = TrialPairs.of(same.start, proposal, 4).counts
            return Answer({**answer.values, "counts": counts, "reward": worst})

        _recorded.carry_out(same, answers)
        assert search.policy() == same.policy()

    def test_of_images_that_draw_for_themselves_nothing_is_known(self) -> None:
        search, rows = self.rounds(0, "0002-02")
        whole, _ = self.rounds(0)
        assert search.policy() != whole.policy()
        assert bool(search.policy().probabilities.isfinite().all())
        assert rows[1]["epoch_equivalents"] == 22.0  # it counts as much as the dearest

    def test_a_round_that_fails_altogether_ends_the_search(self) -> None:
        with pytest.raises(SearchFailedError, match="all 3 trials of a round failed: the loss"):
            self.rounds(4, "0002-01", "0002-02", "0002-03")
        with pytest.raises(SearchFailedError):
            self.rounds(4, "shared")

    def test_failures_are_kept_in_the_state(self) -> None:
        whole, _ = self.rounds(4, "0001-02")
        search, answers = groups().search(0), failing(pair_answer, "0001-02")
        _recorded.carry_out(search, answers, most=3)
        again = groups().search(0)
        again.load_state_dict(through_a_file(search.state_dict()))
        _recorded.carry_out(again, answers)
        assert again.policy() == whole.policy()


class TestFineTuning:
    def proposal(self, seed: int = 5) -> Proposal:
        uniform = np.full((3, 3), -math.log(9), dtype=np.float32)
        values = {"log_probabilities": uniform, "seed": seed}
        return Proposal("0001-01", 1, values, ("shared",), "finetune")

    def values(self, build: Any, shared: Values, seed: int = 5) -> Values:
        answer = answer_to(self.proposal(seed), build, {"shared": shared})
        assert isinstance(answer, Answer)
        assert answer.file is None
        return answer.values

    def test_the_same_proposal_has_the_same_answer(self, setup: Setup, shared: Values) -> None:
        build = groups().build(setup)
        before = copy.deepcopy(shared)
        first, other = self.values(build, shared), self.values(build, shared, seed=6)
        again = self.values(build, shared)
        elsewhere = self.values(groups().build(setup), before)
        for answer in (again, elsewhere):
            assert answer["reward"] == first["reward"]
            assert np.array_equal(answer["counts"], first["counts"])
        assert other["reward"] != first["reward"]

    @pytest.mark.parametrize("draws", [0, 4])
    def test_it_is_restored_bit_for_bit(self, setup: Setup, shared: Values, draws: int) -> None:
        build = groups({"draws": draws}).build(setup)
        whole = self.values(build, shared)
        work = build(self.proposal(), {"shared": shared})
        work.step()
        state = through_a_file(work.state_dict())
        self.values(build, shared, seed=6)  # another one uses the same training
        again = build(self.proposal(), {"shared": shared})
        again.load_state_dict(state)
        assert (again.epoch, again.epochs) == (1, 2)
        again.step()
        found = again.answer().values
        assert np.array_equal(found["counts"], whole["counts"])
        assert {**found, "counts": 0} == {**whole, "counts": 0}

    def test_a_trial_draws_a_few_pairs_or_one_for_every_image(
        self, setup: Setup, shared: Values
    ) -> None:
        few = self.values(groups().build(setup), shared)
        assert few["counts"].sum() == METHOD["draws"]
        every = self.values(groups({"draws": 0}).build(setup), shared)
        assert every["counts"].sum() == 2 * 32  # epochs, images in whole batches
        assert every["counts"].shape == (9,)

    def test_the_reward_is_the_mean_of_the_best_epochs(self, setup: Setup, shared: Values) -> None:
        one = groups({"reward": "metric", "best": 1}, finetune={"epochs": 1})
        answer = self.values(one.build(setup), shared)
        assert answer["reward"] == pytest.approx(1 - answer["val_error"] / 100)
        assert answer["epoch_equivalents"] == pytest.approx(32 / 40 + 1 / 3)
        assert answer["shared_equivalents"] == shared["metrics"]["epoch_equivalents"]

    def test_a_network_that_diverges_in_the_last_step_is_a_failure(
        self, setup: Setup, shared: Values
    ) -> None:
        wild = groups({"best": 1}, finetune={"epochs": 1, "lr": 1e30, "batch_size": 40})
        build = wild.build(setup)
        answer = answer_to(self.proposal(), build, {"shared": shared})
        assert isinstance(answer, Failed)
        assert answer.reason.startswith("validation: the loss is not finite")

    @pytest.mark.parametrize("form", ["joint", "factored"])
    def test_a_whole_search_costs_what_was_forecast(self, setup: Setup, form: str) -> None:
        given = groups({"form": form}, {"batch_size": 20}, {"batch_size": 20})
        search = given.search(0)
        rows = carry_out(search, given.build(setup))
        assert rows[-1]["kl_uniform"] > 0
        expected = given.forecast(setup)
        assert rows[-1]["epoch_equivalents"] == pytest.approx(expected.equivalents)
        assert expected.proposals == 10
        assert expected.parallel == 3
        assert groups(GIVEN).forecast(setup).proposals == 9


class TestWeightSharing:
    def test_stage_one_is_restored_bit_for_bit(self, setup: Setup, shared: Values) -> None:
        build, proposal = groups().build(setup), Proposal("shared", 0)
        first, again = build(proposal, {}), build(proposal, {})
        first.step()
        again.load_state_dict(through_a_file(first.state_dict()))
        again.step()
        checkpoint = again.answer().file
        assert checkpoint is not None
        for name, tensor in shared["model"].items():
            assert torch.equal(tensor, checkpoint["model"][name])
        assert checkpoint["metrics"] == shared["metrics"] == again.answer().values

    def test_it_trains_on_the_searchs_part_of_the_images(self, setup: Setup) -> None:
        training = groups(search={"epochs": 1}).build(setup)(Proposal("shared", 0), {})
        assert training.step()["epoch_equivalents"] == pytest.approx(32 / 40 + 1 / 3)

    def test_a_checkpoint_that_fits_is_taken(self, setup: Setup, shared: Values) -> None:
        assert Aws.begins_shared
        groups().fits(shared, setup)

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
        shared: Values,
        task_change: dict[str, Any],
        search_change: dict[str, Any],
        method_change: dict[str, Any],
        message: str,
    ) -> None:
        with pytest.raises(RaysearchError, match=message):
            groups(method_change, search_change).fits(shared, replace(setup, **task_change))
        for wrong in ({"weights": 1}, [1]):
            with pytest.raises(RaysearchError, match="not a shared checkpoint"):
                groups().fits(wrong, setup)  # type: ignore[arg-type]


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
