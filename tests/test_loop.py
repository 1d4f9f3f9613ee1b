"""The training loop: it goes on bit for bit from within an epoch; every task, any network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import through_a_file
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from raysearch import methods, tasks
from raysearch.data import Dataset, TensorSplit
from raysearch.errors import RaysearchError
from raysearch.policy import trivial_augment
from raysearch.training import (
    Predefined,
    Setup,
    Training,
    evaluate,
    load_network,
    network_document,
    plain_step_flops,
)

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "method"
SGD = {"epochs": 3, "batch_size": 8, "lr": 0.05}


def stripes(n: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 4
    images = torch.randint(0, 60, (n, 3, 8, 8), dtype=torch.uint8, generator=generator)
    for i, label in enumerate(labels.tolist()):
        images[i, :, 2 * label : 2 * label + 2] += 150
    return images, labels


def labelled(images: Tensor, labels: Tensor) -> TensorSplit:
    """Images of which each has any number of the labels."""
    hot = torch.stack([labels == 0, labels < 2, labels != 3], dim=1)
    return TensorSplit(images, hot.float())


class Dropping(nn.Sequential):
    """A network with dropout, which draws from the global generator."""

    def __init__(self, classes: int, channels: int, size: tuple[int, int]) -> None:
        super().__init__(
            nn.Conv2d(channels, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Flatten(),
            nn.Linear(6 * size[0] * size[1], classes),
        )


def attention(classes: int, channels: int, size: tuple[int, int]) -> nn.Module:
    """torchvision's vision transformer, small."""
    return VisionTransformer(
        size[0], 4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=16, num_classes=classes
    )


def make(
    model: Any = Dropping, task: str = "classification", seed: int = 3, with_val: bool = True
) -> Setup:
    kind = TensorSplit if task == "classification" else labelled
    data = Dataset(
        name="stripes",
        classes=tuple("abcd" if task == "classification" else "abc"),
        train=kind(*stripes(96, 0)),
        val=kind(*stripes(32, 2)) if with_val else None,
        test=kind(*stripes(40, 1)),
        channels=3,
        size=(8, 8),
        mean=(0.25,) * 3,
        std=(0.25,) * 3,
    )
    predefined = Predefined(flip=True, padding=1, cutout=2)
    return Setup(data, model, torch.device("cpu"), seed, predefined, 0.25, tasks.find(task))


def settings(name: str, **changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["method"], **changes}


WORK: dict[str, tuple[str, dict[str, Any]]] = {
    "dada": ("dada", {}),
    "dada, warm-up": ("dada", {"warmup": 0.4, "sampling": "batch"}),
    "ddas": ("ddas", {"warmup": 0.0}),
    "ddas, by batches": ("ddas", {"warmup": 0.0, "sampling": "batch", "candidates": 2}),
    "bilevel": ("bilevel", {}),
    "bilevel, two of three steps": ("bilevel", {"unroll": 2, "interval": 3}),
    "stn": ("stn", {}),
    "training": ("training", {}),
}


def build(work: str, setup: Setup) -> Any:
    name, changes = WORK[work]
    if name == "training":
        return Training(setup, {**SGD, "enlarge_batch": 2}, trivial_augment(), predefined=True)
    return methods.find(name).of(settings(name, **changes)).training(setup, SGD)  # type: ignore[attr-defined]


class Interrupted(Exception):
    """Stands for a process that dies."""


def run(work: Any) -> list[dict[str, float]]:
    return [work.step() for _ in range(work.epochs - work.epoch)]


def result(work: Any) -> dict[str, Any]:
    answer = work.answer()
    found = {"values": dict(answer.values)}
    if answer.policy is not None:
        found["policy"] = answer.policy.to_json()
    return found


def interrupted_at(work: Any, calls: int) -> Any:
    """The state after so many calls between batches, as it comes back from a file."""
    states: list[Any] = []

    def between() -> None:
        states.append(None)
        if len(states) == calls:
            states[-1] = through_a_file(work.state_dict())
            raise Interrupted

    work.loop.between_batches = between
    with pytest.raises(Interrupted):
        run(work)
    return states[-1]


@pytest.mark.parametrize("work", WORK)
def test_interrupted_within_an_epoch_it_ends_as_if_it_had_not_been(work: str) -> None:
    setup = make(with_val=work != "bilevel")
    whole = build(work, setup)
    metrics = run(whole)
    for calls in (1, 9):
        first = build(work, setup)
        state = interrupted_at(first, calls)
        torch.rand(7)  # the global generator is nobody's business
        second = build(work, setup)
        second.load_state_dict(state)
        assert second.epoch == first.loop.epoch
        assert second.loop.step > 0
        again = interrupted_at(second, 2)  # and once more
        third = build(work, setup)
        third.load_state_dict(again)
        assert run(third) == metrics[third.epochs - len(metrics) + second.epoch :]
        assert result(third) == result(whole)
        for name, tensor in third.loop.model.state_dict().items():
            assert torch.equal(tensor, whole.loop.model.state_dict()[name])


def test_saving_between_batches_changes_nothing() -> None:
    plain, saved = build("dada", make()), build("dada", make())
    calls = []
    saved.loop.between_batches = lambda: calls.append(saved.state_dict())
    assert run(plain) == run(saved)
    assert len(calls) == 3 * (96 // 8 - 1)  # between two batches, not after an epoch's last


def test_no_state_is_asked_for_while_a_graph_is_held() -> None:
    search = build("bilevel, two of three steps", make())
    steps: list[int] = []
    search.loop.between_batches = lambda: steps.append(search.loop.step)
    search.step()
    assert steps == [1, 3, 4, 6, 7, 9, 10]  # the second step of three is kept for the third


def test_the_global_generator_is_as_it_was_even_after_an_interruption() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    interrupted_at(build("dada", make()), 2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("work", [work for work in WORK if work != "training"])
def test_what_an_epoch_will_cost_is_known_before(work: str) -> None:
    setup = make("small_cnn")
    search = build(work, setup)
    run(search)
    expected = search.settings.step_equivalents(setup, search.epochs)
    assert search.epoch_equivalents() / search.epochs == pytest.approx(expected, rel=0.1)


def test_answers_hold_what_a_search_is_told() -> None:
    search = build("dada", make())
    last = run(search)[-1]
    answer = search.answer()
    assert answer.values == {"epoch_equivalents": last["epoch_equivalents"]}
    assert answer.policy == search.policy()
    assert answer.network is None
    joint = build("bilevel", make("small_cnn"))
    run(joint)
    answer = joint.answer()
    assert set(answer.values) == {"epoch_equivalents", "test_error", "test_loss"}
    assert answer.network is not None
    training = build("training", make())
    last = run(training)[-1]
    assert training.answer().values["epoch_equivalents"] == last["epoch_equivalents"]


@pytest.mark.parametrize("work", ["dada", "ddas, by batches", "bilevel", "stn", "training"])
def test_every_method_works_on_every_task(work: str) -> None:
    setup = make("small_cnn", "multi_label", with_val=False)
    found = build(work, setup)
    metrics = run(found)[-1]
    assert ("val_map" in metrics) == (work not in ("stn", "training"))
    assert "val_error" not in metrics
    if work in ("bilevel", "stn", "training"):
        test = found.test()
        assert set(test) == {"test_map", "test_loss"}
        assert 0 <= test["test_map"] <= 1
    other = build(work, make("small_cnn", "multi_label", seed=4, with_val=False))
    run(other)
    assert result(other) != result(found)


def test_a_training_learns_labels() -> None:
    setup = make("small_cnn", "multi_label", with_val=False)
    training = Training(setup, {**SGD, "epochs": 8}, None, predefined=False)
    run(training)
    guess = 1.0 * (10 + 20 + 30) / 40 / 3
    assert training.test()["test_map"] > 0.9 > guess


def test_figures_are_those_of_the_metric() -> None:
    setup = replace(make("small_cnn"), task=tasks.find("classification", "auroc"))
    figures = evaluate(setup.build_model(), setup, setup.dataset.test)
    assert set(figures) == {"error", "loss", "auroc"}


@pytest.mark.parametrize("method", ["dada", "ddas", "bilevel", "stn"])
def test_networks_with_attention_are_searched_with(method: str) -> None:
    search = build(method, make(attention))
    assert all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in run(search))
    search.policy()


def test_attention_is_differentiated_twice_and_exactly() -> None:
    from raysearch.hypergrad import Network, SGDRule, image_gradients, train_step, validate

    torch.manual_seed(0)
    model = attention(4, 3, (8, 8)).double().train()
    images, val = torch.randn(2, 6, 3, 8, 8, dtype=torch.float64)
    labels = torch.arange(6) % 4
    network, rule, lr = Network(model), SGDRule(), 0.1
    own = network.parameters()
    step = train_step(network, own, images, labels, lr)
    gradient = {name: g.detach() for name, g in step.gradient.items()}
    ahead = {name: p.detach() - lr * gradient[name] for name, p in own.items()}
    v, _, _ = validate(network, ahead, (val, labels))
    (found,) = image_gradients([step], v, rule)

    def after(x: Tensor) -> float:
        taken = train_step(network, own, x, labels, lr)
        moved = {n: p.detach() - lr * taken.gradient[n].detach() for n, p in own.items()}
        return float(validate(network, moved, (val, labels))[1])

    direction = torch.randn_like(images)
    numeric = (after(images + 1e-5 * direction) - after(images - 1e-5 * direction)) / 2e-5
    assert float((found * direction).sum()) == pytest.approx(numeric, rel=1e-5)


def test_a_network_of_the_users_own_is_kept_and_loaded(tmp_path: Path) -> None:
    setup = make(Dropping)
    model = setup.build_model()
    assert plain_step_flops(setup, 8) > 0
    torch.save(network_document(model, setup), tmp_path / "network.pt")
    network = load_network(tmp_path / "network.pt", Dropping)
    assert network.task == "classification"
    torch.testing.assert_close(
        network.network.state_dict()["5.weight"], model.state_dict()["5.weight"]
    )
    with pytest.raises(RaysearchError, match="unknown model 'Dropping'"):
        load_network(tmp_path / "network.pt")
    with pytest.raises(RaysearchError, match="model=no_network gave a str, not a"):
        replace(setup, model=no_network).build_model()


def no_network(classes: int, channels: int, size: tuple[int, int]) -> Any:
    return "network"
