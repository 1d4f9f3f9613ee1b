"""What is predicted and how it is judged: scikit-learn's figures, and losses per image."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor
from torch.nn import functional as F

from raysearch import tasks
from raysearch.errors import RaysearchError
from raysearch.tasks import Classification, MultiLabel, Task


def judged(task: Task, outputs: Tensor, targets: Tensor, batch: int = 7) -> dict[str, float]:
    measure = task.measure()
    for some, goal in zip(outputs.split(batch), targets.split(batch), strict=True):
        measure.update(some, goal)
    return measure.result()


def logits(n: int, classes: int, seed: int = 0) -> Tensor:
    """Few different values, so that many scores are equal."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-3, 4, (n, classes), generator=generator).float()


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_classifications_figures_are_scikit_learns(classes: int) -> None:
    outputs = logits(60, classes)
    targets = torch.randint(classes, (60,), generator=torch.Generator().manual_seed(1))
    named = outputs.argmax(1)
    found = {
        m: judged(tasks.find("classification", m), outputs, targets)
        for m in tasks.metrics("classification")
    }
    error = 100 * (1 - sk.accuracy_score(targets, named))
    assert all(figures["error"] == pytest.approx(error) for figures in found.values())
    loss = float(F.cross_entropy(outputs, targets))
    assert all(figures["loss"] == pytest.approx(loss) for figures in found.values())
    balanced = 100 * (1 - sk.balanced_accuracy_score(targets, named))
    assert found["balanced_error"]["balanced_error"] == pytest.approx(balanced)
    scores = outputs.softmax(1)
    if classes == 2:
        expected = sk.roc_auc_score(targets, scores[:, 1])
    else:
        areas = [sk.roc_auc_score(targets == k, scores[:, k]) for k in range(classes)]
        expected = sum(areas) / classes
    assert found["auroc"]["auroc"] == pytest.approx(expected)


def test_classes_without_images_are_left_out() -> None:
    outputs, targets = logits(40, 4), torch.arange(40) % 3
    named = outputs.argmax(1)
    recalls = [float((named[targets == k] == k).double().mean()) for k in range(3)]
    balanced = judged(Classification("balanced_error"), outputs, targets)["balanced_error"]
    assert balanced == pytest.approx(100 * (1 - sum(recalls) / 3))
    scores = outputs.softmax(1)
    areas = [sk.roc_auc_score(targets == k, scores[:, k]) for k in range(3)]
    assert judged(Classification("auroc"), outputs, targets)["auroc"] == pytest.approx(
        sum(areas) / 3
    )
    one_class = judged(Classification("auroc"), outputs, torch.zeros(40, dtype=torch.int64))
    assert math.isnan(one_class["auroc"])


@pytest.mark.parametrize("ties", [True, False])
def test_mean_average_precision_is_scikit_learns(ties: bool) -> None:
    outputs = logits(50, 6) if ties else torch.randn(50, 6, generator=torch.Generator())
    targets = (torch.rand(50, 6, generator=torch.Generator().manual_seed(1)) < 0.2).long()
    targets[:, 3] = 0  # a class that does not occur
    occur = [k for k in range(6) if targets[:, k].any()]
    expected = sk.average_precision_score(targets[:, occur], outputs[:, occur], average="macro")
    found = judged(MultiLabel(), outputs, targets)
    assert found["map"] == pytest.approx(expected)
    loss = F.binary_cross_entropy_with_logits(outputs, targets.float())
    assert found["loss"] == pytest.approx(float(loss))
    wrong = MultiLabel().wrong(outputs, targets)
    assert MultiLabel().of_wrong(float(wrong))["map"] == pytest.approx(expected, abs=1e-6)


def test_losses_are_one_for_each_image_and_their_mean_is_pytorchs() -> None:
    outputs, targets = logits(12, 4), torch.arange(12) % 4
    losses = Classification().losses(outputs, targets, 0.1)
    assert losses.shape == (12,)
    expected = F.cross_entropy(outputs, targets, label_smoothing=0.1)
    torch.testing.assert_close(losses.mean(), expected)
    hot = F.one_hot(targets, 4)
    losses = MultiLabel().losses(outputs, hot, 0.2)
    assert losses.shape == (12,)
    smooth = hot * 0.8 + 0.1
    torch.testing.assert_close(losses.mean(), F.binary_cross_entropy_with_logits(outputs, smooth))
    for task, goal in ((Classification(), targets), (MultiLabel(), hot)):
        assert task.losses(outputs.bfloat16(), goal).dtype == torch.float32
        assert task.losses(outputs.double(), goal).dtype == torch.float64


def test_a_guess_is_the_best_that_is_the_same_for_all_images() -> None:
    train, test = torch.tensor([0, 1, 1, 2]), torch.tensor([0, 0, 1, 2, 2])
    assert Classification().guess(train, test) == pytest.approx(80)
    assert Classification("balanced_error").guess(train, test) == pytest.approx(200 / 3)
    assert Classification("auroc").guess(train, test) == 0.5
    hot = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]])
    same = judged(MultiLabel(), torch.zeros(4, 3), hot)["map"]
    assert MultiLabel().guess(hot, hot) == pytest.approx(same) == pytest.approx(0.5)


def test_tasks_have_names_and_metrics() -> None:
    assert tasks.find("classification").metric.label == "test error in %"
    assert tasks.find("classification", "auroc").metric.cost(0.75) == -0.75
    assert tasks.find("multi_label").metric.name == "map"
    for name in tasks.names():
        for metric in tasks.metrics(name):
            task = tasks.find(name, metric)
            assert task.metric.name == metric
            assert task.name == name
            assert pickle.loads(pickle.dumps(task)) == task
    with pytest.raises(RaysearchError, match="unknown task 'clasification': did you mean"):
        tasks.find("clasification")
    with pytest.raises(RaysearchError, match="unknown metric of task=classification 'auc'"):
        tasks.find("classification", "auc")
