"""The race of `method=auto`: its candidates, its layout in a budget, and who wins."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from _settings import method_settings
from conftest import dark_and_light

from raysearch.errors import RaysearchError
from raysearch.methods._portfolio import Images, complete_policy, distinct, neighbours, richness
from raysearch.methods._race import FAILED, lay_out, scores, simplest, standing, trainings
from raysearch.methods.auto import Auto, HeatData, Race
from raysearch.policy import Basic, Sequence, Transformations, rand_augment, trivial_augment
from raysearch.protocol import Answer, Failed
from raysearch.training import Predefined, SGDSettings

IMAGES = Images((32, 24), (0.5, 0.4, 0.3), Predefined(flip=True, padding=4))
CANDIDATES = method_settings("auto")["candidates"]


def test_a_complete_policy_has_what_is_predefined() -> None:
    policy = complete_policy("predefined+trivial_augment+cutout", IMAGES)
    first, last = Basic(flip=True, padding=4), Basic(cutout=12, fill=IMAGES.mean)
    assert policy == Sequence([first, trivial_augment(), last])
    assert complete_policy("randaugment@1/5", IMAGES) == rand_augment(1, 5)
    assert complete_policy("none", IMAGES) == Basic()
    assert complete_policy("crop", Images((32, 24), (0.5,), Predefined())) == Basic(padding=3)


@pytest.mark.parametrize("candidate", CANDIDATES)
@pytest.mark.parametrize("channels", [1, 3])
def test_candidates_augment(candidate: str, channels: int) -> None:
    images = Images((9, 9), (0.5,) * channels, Predefined(flip=True, padding=1, cutout=3))
    batch = torch.randint(256, (4, channels, 9, 9), dtype=torch.uint8)
    out = complete_policy(candidate, images)(batch, torch.Generator().manual_seed(0))
    assert out.shape == batch.shape


def test_strengths_scale_the_transformations() -> None:
    def spread(name: str) -> float:
        policy = complete_policy(name, Images((9, 9), (0.5,), Predefined()))
        assert isinstance(policy, Transformations)
        return policy.parameters()["a11"][1]

    assert spread("affine@0.1") == pytest.approx(0.1 / math.sqrt(3), rel=0.02)
    assert spread("affine@0.3") == pytest.approx(3 * spread("affine@0.1"), rel=0.01)


def test_what_is_the_same_on_these_images_races_once() -> None:
    same = Images((8, 8), (0.5,), Predefined(padding=1))
    assert distinct(["predefined", "crop", "none", "flip", "crop+none"], same) == [
        "predefined",
        "none",
        "flip",
    ]


@pytest.mark.parametrize(
    "name", ["rotate", "affine@2", "affine@x", "uniform@0.5", "randaugment@2", "none@1", ""]
)
def test_candidates_that_there_are_not(name: str) -> None:
    with pytest.raises(RaysearchError):
        complete_policy(name, IMAGES)


def test_the_simpler_of_equals() -> None:
    order = ["none", "crop", "predefined", "predefined+affine@0.1", "predefined+affine@0.2"]
    assert sorted({*order}, key=richness) == order
    assert richness("predefined+affine@0.3") < richness("predefined+randaugment@2/9")


def test_neighbours_are_weaker_and_stronger() -> None:
    assert neighbours("predefined+affine@0.2", 2) == [
        "predefined+affine@0.1",
        "predefined+affine@0.4",
    ]
    assert neighbours("trivial_augment", 2) == ["trivial_augment@0.5"]
    assert neighbours("crop", 2) == []


@pytest.mark.parametrize("candidates", [1, 2, 3, 4, 5, 14, 40])
@pytest.mark.parametrize("budget", [0.1, 1, 2, 4, 8, 16, 32, 100])
def test_a_race_stays_within_its_budget(candidates: int, budget: float) -> None:
    heats = lay_out(candidates, budget)
    cost = sum(heat.entrants * heat.length for heat in heats)
    assert cost <= budget + 1e-6
    assert 0 < heats[0].entrants <= candidates
    assert all(0 < heat.length <= 1 for heat in heats)
    for before, after in itertools.pairwise(heats):
        assert before.entrants >= after.entrants
        assert before.length <= after.length


@pytest.mark.parametrize("budget", ["8", "x", "-1x", "0x", "8 x", "1e3x"])
def test_budgets_that_are_none(budget: str) -> None:
    with pytest.raises(RaysearchError, match="as in 8x, 30m or 2h"):
        trainings(budget)


def test_standing_is_over_heats_that_all_have_run() -> None:
    heats = [{"a": 1.0, "b": 2.0, "c": 0.0}, {"b": 0.0, "a": math.inf}]
    assert standing(heats) == {"b": 1.0, "a": math.inf}


def test_what_counts() -> None:
    found = {"sure": (2.0, 10.0), "vague": (1.0, 20.0), "middling": (1.5, 10.0), "dead": FAILED}

    def order(objective: str) -> list[str]:
        found_scores = scores(found, objective)
        return sorted(found_scores, key=lambda name: found_scores[name])

    assert order("loss") == ["vague", "middling", "sure", "dead"]
    assert order("metric") == ["middling", "sure", "vague", "dead"]
    assert order("both")[0] == "middling"
    assert scores({"dead": FAILED}, "both") == {"dead": math.inf}


def race(**changes: object) -> Race:
    return Race(0, Auto.of(method_settings("auto", **changes)))


def play(search: Race, losses: dict[str, float]) -> list[str]:
    """The race with these losses, infinite for a failure; who ran in each heat."""
    heats: list[list[str]] = []
    while (proposal := search.ask()) is not None:
        name, heat = proposal.values["candidate"], proposal.values["heat"]
        heats += [[]] * (heat + 1 - len(heats))
        heats[heat] = [*heats[heat], name]
        policy = json.dumps(complete_policy(name, IMAGES).to_json())
        loss = losses.get(name, 1.0)
        values = {
            "val_loss": loss,
            "cost": loss,
            "losses": loss + torch.zeros(5),
            "policy": policy,
            "epoch_equivalents": 1.0,
        }
        failed = math.isinf(losses.get(name, 1.0))
        search.tell(proposal.id, Failed("diverged") if failed else Answer(values))
    return [" ".join(names) for names in heats]


def test_the_best_goes_on_and_wins() -> None:
    search = race()
    heats = play(search, {"predefined+affine_colour@0.2": 0.1, "crop": 0.2})
    assert all("predefined+affine_colour@0.2" in heat for heat in heats)
    assert search.policy() == complete_policy("predefined+affine_colour@0.2", IMAGES)


def test_of_what_cannot_be_told_apart_the_simplest_wins() -> None:
    images = np.array([0.1, 0.2, 0.1, 0.4])
    wide = images + np.array([0.2, -0.2, 0.2, -0.1])
    losses = {"crop+affine": images, "crop": wide, "none": images + 0.01}
    assert simplest(["crop+affine", "crop", "none"], losses, richness) == "crop"
    assert simplest(["crop+affine", "none"], losses, richness) == "crop+affine"
    assert simplest(["crop+affine", "failed"], {"crop+affine": images}, richness) == "crop+affine"


def test_with_room_the_leaders_neighbours_in_strength_race_too() -> None:
    losses = {"predefined+affine_colour@0.3": 0.1, "predefined+affine_colour@0.45": 0.05}
    search = race(budget="16x")
    heats = play(search, losses)
    assert len(heats[1].split()) == search.heats[1].entrants
    assert "predefined+affine_colour@0.45" in heats[1]  # 0.2 has run
    assert search.policy() == complete_policy("predefined+affine_colour@0.45", IMAGES)
    assert all("@0.45" not in heat for heat in play(race(budget="8x"), losses))


def test_who_diverges_is_out() -> None:
    search = race()
    play(search, {"predefined": math.inf, "crop": 0.5})
    assert search.policy() == complete_policy("crop", IMAGES)


def test_a_fold_takes_as_many_steps_as_all_images_would() -> None:
    setup = dark_and_light()
    data = HeatData(setup, 5)
    train, val = data.splits(7)
    total = len(setup.dataset.full_train())
    assert len(train) + len(val) == total
    assert not set(train.indices.tolist()) & set(val.indices.tolist())
    schedule = SGDSettings(epochs=12, batch_size=40, lr=0.1)
    epochs = data.epochs(schedule, len(train), 1.0)
    assert epochs * schedule.steps(len(train)) == pytest.approx(12 * schedule.steps(total), abs=2)
    assert data.epochs(schedule, len(train), 0.001) == 1


def test_every_image_is_held_out_once() -> None:
    setup = dark_and_light()
    data = HeatData(setup, 3)
    held = torch.cat([data.splits(heat)[1].indices for heat in range(3)])
    assert sorted(held.tolist()) == sorted(setup.dataset.train.indices.tolist())
