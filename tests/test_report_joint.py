"""Reports on networks that the search trained itself, and on policies of continuous parameters."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from scipy import stats
from test_report import ERRORS, NAMES, evaluation_results, page, search_results, shown, write
from torch import Tensor

from raysearch.policy import Candidates, Mixture, Policy, Schedule, SubPolicies, Transformations
from raysearch.report._augmented import augmented_png
from raysearch.report._curves import curves_png, policy_png
from raysearch.report._words import UNITS
from raysearch.tracking import TrialInfo, TrialResult

PARAMETERS = ("a11", "a12", "tx", "a21", "a22", "ty", "brightness", "contrast", "saturation", "hue")
JOINT = [3.3, 3.2, 3.6, 3.1, 3.4]
EPOCHS = 6


def joint_search(
    errors: list[float] = JOINT, names: tuple[str, ...] = PARAMETERS
) -> tuple[list[TrialResult], dict[int, Schedule]]:
    """Searches that end with a test error, and their policies; the spread grows with the epochs."""
    generator = torch.Generator().manual_seed(0)
    results, policies = [], {}
    for seed, error in enumerate(errors):
        phases = [
            Transformations(names, 0.05 * epoch * torch.randn(20, len(names), generator=generator))
            for epoch in range(1, EPOCHS + 1)
        ]
        history = [
            {"epoch": float(epoch), "train_loss": 1 / epoch, "val_loss": 2 / epoch}
            | {f"mean/{name}": mean for name, (mean, _) in phase.parameters().items()}
            | {f"std/{name}": std for name, (_, std) in phase.parameters().items()}
            for epoch, phase in enumerate(phases, start=1)
        ]
        info = TrialInfo(f"search-{seed}", "search", f"bilevel seed {seed}", None, seed)
        metrics = {**history[-1], "test_error": error}
        results.append(TrialResult(info, history, metrics, 22.0, 11.0, 156.0))
        policies[seed] = Schedule(phases)
    return results, policies


def write_joint(run_dir: Path, seeds: int = 5, **changes: Any) -> dict[str, Any]:
    search, policies = joint_search(JOINT[:seeds])
    policy = Policy.merge(list(policies.values()))
    samples = torch.randint(0, 256, (9, 3, 8, 8)).to(torch.uint8)
    given = {"policy": policy, "seed_policies": policies, "search": search, "samples": samples}
    return write(run_dir, **{**given, **changes})


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    run_dir = tmp_path_factory.mktemp("joint")
    return run_dir, write_joint(run_dir)


# The network that the search trained


def test_the_joint_network_is_paired_by_seed_with_all_others(
    joint: tuple[Path, dict[str, Any]],
) -> None:
    summary = joint[1]
    assert summary["errors"]["joint"]["runs"] == JOINT
    assert summary["errors"]["joint"]["seeds"] == [0, 1, 2, 3, 4]
    assert set(summary["differences"]) == {"none", "predefined", "trivial_augment"}
    found = summary["joint_differences"]
    assert set(found) == {"none", "predefined", "trivial_augment", "learned"}
    for name in found:
        reference = stats.ttest_rel(JOINT, ERRORS[name]).confidence_interval(0.95)
        assert (found[name]["low"], found[name]["high"]) == pytest.approx(tuple(reference))


def test_the_joint_network_has_verdicts_of_its_own(joint: tuple[Path, dict[str, Any]]) -> None:
    for text in (page(joint[0])[1].text, shown(joint[1])):
        words = " ".join(text.split())
        assert "The jointly trained network beats the learned policy by 1.08 points" in words
        assert "The jointly trained network beats TrivialAugment" in words
        assert "Against TrivialAugment it is not settled: the learned policy's error" in words


def test_a_run_may_have_the_joint_network_alone(tmp_path: Path) -> None:
    errors = {name: ERRORS[name] for name in ("none", "trivial_augment")}
    summary = write_joint(tmp_path, evaluations=evaluation_results(errors))
    assert summary["differences"] == {}
    assert set(summary["joint_differences"]) == {"none", "trivial_augment"}
    text = shown(summary)
    assert "joint − this" in text
    assert "learned" not in text
    assert "beats TrivialAugment" in page(tmp_path)[1].text


def test_without_any_evaluation_there_is_only_its_error(tmp_path: Path) -> None:
    summary = write_joint(tmp_path, evaluations=[])
    assert list(summary["errors"]) == ["joint"]
    assert (summary["relative_cost"], summary["plain_training"]) == ({}, None)
    assert "3.32 ± 0.19" in shown(summary)
    assert "3.32 ± 0.19" in page(tmp_path)[1].text


# Cost


def test_cost_is_that_of_everything_over_a_plain_training(
    joint: tuple[Path, dict[str, Any]],
) -> None:
    # A search: 156 epoch-equivalents and 11 s; a training: 30 and 2 s.
    summary = joint[1]
    assert summary["plain_training"] == "none"
    costs = summary["relative_cost"]
    assert list(costs) == list(summary["errors"])
    assert costs["predefined"] == {"epoch_equivalents": 1.0, "device_seconds": 1.0}
    assert costs["joint"] == {"epoch_equivalents": 156 / 30, "device_seconds": 11 / 2}
    assert costs["learned"] == pytest.approx(
        {"epoch_equivalents": (5 * 156 + 30) / 30, "device_seconds": (5 * 11 + 2) / 2}
    )
    row = next(line for line in shown(summary).splitlines() if "joint network" in line)
    assert "5.20" in row
    assert "5.50" in row


def test_the_plain_training_is_the_plainest_that_there_is(tmp_path: Path) -> None:
    def costs(seconds: dict[str, float]) -> tuple[str, dict[str, float | None]]:
        results = [
            replace(result, device_seconds=seconds[str(result.trial.policy)])
            for result in evaluation_results({name: [5.0, 6.0] for name in seconds})
        ]
        summary = write(tmp_path, evaluations=results, search=search_results(1))
        assert shown(summary)
        found = {row: cost["device_seconds"] for row, cost in summary["relative_cost"].items()}
        return summary["plain_training"], found

    plain, found = costs({"uniform": 1.0, "predefined": 2.0})
    assert (plain, found["uniform"]) == ("predefined", 0.5)
    plain, found = costs({"uniform": 4.0, "trivial_augment": 2.0, "learned": 3.0})
    assert (plain, found["uniform"], found["learned"]) == ("trivial_augment", 2.0, 4.0)
    assert costs({"none": 0.0}) == ("none", {"none": None})


def test_a_failed_training_does_not_make_the_others_dear(tmp_path: Path) -> None:
    results = evaluation_results({"none": [9.0, 9.0], "predefined": [6.0, 6.0]})
    results[0] = replace(results[0], device_seconds=1000.0, error="out of memory", metrics={})
    summary = write(tmp_path, evaluations=results)
    assert summary["relative_cost"]["predefined"]["device_seconds"] == 1.0


def test_everything_fits_eighty_columns(tmp_path: Path) -> None:
    evaluations = evaluation_results({**ERRORS, "uniform": [44.0, 45.0, 43.0, 44.5]})
    for seeds in (1, 4, 5):
        text = shown(write_joint(tmp_path, seeds, evaluations=evaluations))
        # the places alone may be longer
        lines = text[: text.index("\nreport ")].splitlines()
        assert max(map(len, lines)) <= 80
        assert "…" not in text


# Policies of continuous parameters, and those that change


def test_parameters_take_the_place_of_operations(joint: tuple[Path, dict[str, Any]]) -> None:
    run_dir, summary = joint
    found = summary["policy"]
    assert found["operations"] == {}
    assert found["operation_entropy"] is None
    assert list(found["parameters"]) == ["rotation", *PARAMETERS]
    assert set(found["parameters"]) == set(UNITS)
    assert found["phases"] == EPOCHS
    rotation = found["parameters"]["rotation"]
    text, html = shown(summary), page(run_dir)[1].text
    for words in (text, html):
        assert f"± {rotation['std']:.1f}" in words
        assert "degrees" in words
        assert "operations" not in words
        assert "KL divergence" not in words


def test_a_schedule_of_operations_has_both_figures_and_phases(tmp_path: Path) -> None:
    phases = [
        Candidates(NAMES, torch.full((8,), 0.5), torch.rand(8), augment) for augment in (0.2, 0.8)
    ]
    summary = write(tmp_path, policy=Schedule(phases), seed_policies={0: Schedule(phases)})
    assert summary["policy"]["phases"] == 2
    assert summary["policy"]["operations_per_image"] == pytest.approx(1.0)
    assert "Strongest of 8 operations over the training" in shown(summary)
    text = page(tmp_path)[1].text
    assert "changes over a training, 2 phases" in text
    assert "phase 2 of 2" in text


def test_the_snippet_tells_a_policy_that_changes_how_far_training_is(
    joint: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    line = "augment.progress = epoch / epochs"
    assert line in page(joint[0])[1].text
    write(tmp_path)
    assert line not in page(tmp_path)[1].text


class Watched(Schedule):
    """Notes for which points of a training it was asked."""

    asked: list[float]

    def __call__(
        self, images: Tensor, generator: torch.Generator | None = None, progress: float = 0.0
    ) -> Tensor:
        self.asked.append(progress)
        return images


def test_images_are_shown_at_four_points_of_the_training() -> None:
    policy = Watched(2 * [SubPolicies.pairs(NAMES)])
    policy.asked = []
    samples = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    assert Image.open(io.BytesIO(augmented_png(policy, samples))).height > 800
    assert policy.asked == pytest.approx([p for p in (0, 1 / 3, 2 / 3, 1) for _ in range(2)])


def test_a_mixture_of_schedules_is_shown_too() -> None:
    _, policies = joint_search()
    picture = augmented_png(Mixture(list(policies.values())), torch.zeros(3, 3, 8, 8).byte())
    assert Image.open(io.BytesIO(picture)).height > 800


def size(picture: bytes | None) -> tuple[int, int]:
    assert picture is not None
    return Image.open(io.BytesIO(picture)).size


@pytest.mark.parametrize(("names", "rows"), [(("tx", "ty"), 1), (PARAMETERS, 3)])
def test_each_parameter_has_a_panel(names: tuple[str, ...], rows: int) -> None:
    search, policies = joint_search(names=names)
    width, height = size(policy_png(search, policies[0], {}))
    assert (width, height) == (1040, round(130 * (0.3 + 1.7 * rows)))


def test_a_search_that_reports_nothing_has_its_policy_drawn() -> None:
    search, policies = joint_search([4.0])
    assert size(policy_png([replace(search[0], history=[])], policies[0], {}))[0] > 500
    assert size(policy_png([], SubPolicies.pairs(NAMES), {}))[0] > 500


def test_curves_show_how_often_images_are_augmented_and_bear_trials_that_ended_early() -> None:
    search = search_results(2)
    one_row = size(curves_png(search))[1]
    for result in search:
        for record in result.history:
            record |= {"augment": 0.5, "entropy": 1.0}
    search[1] = replace(search[1], history=search[1].history[:2])
    assert size(curves_png(search))[1] > one_row
    assert curves_png([]) is None


# What else a run is told about


def test_the_report_says_what_goes_with_the_policy(tmp_path: Path) -> None:
    config = {"data": {"predefined": {"flip": True, "padding": 4, "cutout": 0}}}
    write(tmp_path, config=config)
    text = page(tmp_path)[1].text
    assert "mirroring left-right, random crops after padding by 4 pixels. Use both." in text
    summary = write(tmp_path, config=config, predefined={"flip": True, "padding": 0})
    assert summary["predefined"] == {"flip": True, "padding": 0}
    assert "mirroring left-right. Use both." in page(tmp_path)[1].text
    write(tmp_path, config=config, predefined={"flip": False, "padding": 0})
    assert "with no predefined augmentation" in page(tmp_path)[1].text


def test_the_report_counts_the_images(tmp_path: Path) -> None:
    images = {"train": 12345, "val": 0, "test": 360, "skipped": 3}
    assert write(tmp_path, images=images)["images"] == images
    text = page(tmp_path)[1].text
    assert "Images: 12,345 train, 360 test, 3 skipped." in text
    assert write(tmp_path)["images"] is None
