"""Methods that train an augmenter: exact, resumed bit for bit, and they find what is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import through_a_file
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from raysearch.data import Dataset, TensorSplit
from raysearch.errors import RaysearchError
from raysearch.hypergrad import Network
from raysearch.methods._augmenter import Augmenter, parameter_names
from raysearch.methods.bilevel import Bilevel, BilevelTraining
from raysearch.methods.stn import Stn, StnTraining
from raysearch.ops import differentiable
from raysearch.policy import Schedule, from_json
from raysearch.training import Predefined, Setup, evaluate, load_network

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "method"
BILEVEL: dict[str, Any] = yaml.safe_load((CONFIGS / "bilevel.yaml").read_text())["method"]
STN: dict[str, Any] = yaml.safe_load((CONFIGS / "stn.yaml").read_text())["method"]
SGD = {"epochs": 4, "batch_size": 16, "lr": 0.05}


def split(n: int, seed: int, channels: int = 3) -> TensorSplit:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 4
    images = torch.randint(0, 60, (n, channels, 8, 8), dtype=torch.uint8, generator=generator)
    for i, label in enumerate(labels.tolist()):
        images[i, :, 2 * label : 2 * label + 2] += 150
    return TensorSplit(images, labels)


def make_task(channels: int = 3, model: str = "small_cnn", **fields: Any) -> Setup:
    data = Dataset(
        name="stripes",
        classes=tuple("abcd"),
        train=split(96, 0, channels),
        val=None,
        test=split(40, 1, channels),
        channels=channels,
        size=(8, 8),
        mean=(0.25,) * channels,
        std=(0.25,) * channels,
    )
    predefined = Predefined(flip=True, padding=1, cutout=2)
    return Setup(replace(data, **fields), model, torch.device("cpu"), 3, predefined, 0.25)


def build(**changes: Any) -> BilevelTraining:
    found = Bilevel.of({**BILEVEL, **changes}).training(make_task(), SGD)
    assert isinstance(found, BilevelTraining)
    return found


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "bilevel": ("bilevel", {}),
    "paper": ("bilevel", {"gain": 0.0, "lr": 0.2, "schedule": "constant", "normalise": False}),
    "two of three steps": ("bilevel", {"unroll": 2, "interval": 3, "size": "medium"}),
    "fixed split": ("bilevel", {"resplit": False, "transformations": "translation"}),
    "stn": ("stn", {}),
}


def build_variant(variant: str) -> Any:
    name, changes = VARIANTS[variant]
    settings = BILEVEL if name == "bilevel" else STN
    return (
        (Bilevel if name == "bilevel" else Stn)
        .of({**settings, **changes})
        .training(make_task(), SGD)
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_restored_it_continues_bit_for_bit(variant: str) -> None:
    whole = build_variant(variant)
    metrics = [whole.step() for _ in range(whole.epochs)]
    first = build_variant(variant)
    first.step()
    first.step()
    second = build_variant(variant)
    torch.rand(7)  # the global generator is nobody's business
    second.load_state_dict(through_a_file(first.state_dict()))
    assert [second.step() for _ in range(2)] == metrics[2:]
    assert second.policy() == whole.policy()
    assert second.test() == whole.test()


def in_float64(search: BilevelTraining) -> None:
    """Carry a search over to float64."""
    loop = search.loop
    loop.model.double()
    search.augmenter.double()
    search.network = Network(loop.model)
    single = loop.val_batch

    def double() -> tuple[Tensor, Tensor]:
        images, labels = single()
        return images.double(), labels

    loop.val_batch = double  # type: ignore[method-assign]


def expected_gradient(search: BilevelTraining, count: int) -> list[Tensor]:
    """∂L_val/∂φ after `count` steps, by differentiation through everything.

    The images, noise and dropout are those of the search's own first steps.
    """
    in_float64(search)
    setup, loop = search.setup, search.loop
    sgd = loop.settings
    w = {n: p.detach().clone().requires_grad_() for n, p in loop.parameters.items()}
    m = {n: torch.zeros_like(p) for n, p in w.items()}
    search.augmenter.train()
    with loop.one_epoch() as batches:
        torch.manual_seed(0)
        for step in range(count):
            images, labels, _ = next(batches)
            images = setup.before(images, loop.generators.images)
            augmented = search.augmenter.augment(images, loop.generators.policy)
            logits = functional_call(loop.model, w, (setup.normalise(augmented),))
            loss = F.cross_entropy(logits, labels)
            found = torch.autograd.grad(loss, list(w.values()), create_graph=True)
            lr = sgd.lr_at(0, step, loop.steps)
            for (name, p), g in zip(list(w.items()), found, strict=True):
                d = g + sgd.weight_decay * p
                m[name] = sgd.momentum * m[name] + d
                w[name] = p - lr * (d + sgd.momentum * m[name])  # Nesterov's form
        images, labels = loop.val_batch()
        val_loss = F.cross_entropy(functional_call(loop.model, w, (images,)), labels)
    return list(torch.autograd.grad(val_loss, list(search.augmenter.parameters())))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_augmenter_follows_the_exact_derivative(count: int) -> None:
    """K = 1, 2, 3 with batch normalisation and momentum, from the search's own steps."""
    search, reference = (build(unroll=count, interval=count) for _ in range(2))
    found: list[Tensor] = []
    search.move_augmenter = lambda gradient: found.extend(gradient)  # type: ignore[method-assign]
    in_float64(search)
    search.augmenter.train()
    with search.loop.one_epoch() as batches:
        torch.manual_seed(0)
        for _ in range(count):
            images, labels, _ = next(batches)
            images = search.setup.before(images, search.loop.generators.images)
            taken = search.search_step(search.step_kind(), images, labels)
            search.loop.update(*taken)
    truth = expected_gradient(reference, count)
    mine, theirs = (torch.cat([g.flatten() for g in each]) for each in (found, truth))
    assert float((mine - theirs).norm() / theirs.norm()) < 1e-6


def test_every_epoch_divides_the_images_anew() -> None:
    search = build()
    seen = []
    for _ in range(2):
        search.step()
        train, val = search.loop.train, search.loop.val
        assert len(train) == 72
        assert val is not None
        assert len(val) == 24
        seen.append(next(train.batches(72, device=search.setup.device, generator=None)).images)
    assert not torch.equal(seen[0], seen[1])
    own = Bilevel.of(BILEVEL).training(make_task(val=split(24, 2)), SGD)
    assert isinstance(own, BilevelTraining)
    own.step()
    assert torch.equal(own.loop.val.images, split(24, 2).images)  # type: ignore[attr-defined]
    fixed = build(resplit=False)
    before = fixed.loop.train
    fixed.step()
    assert fixed.loop.train is before


def test_cost_is_arithmetic_in_plain_epochs() -> None:
    def cost(**changes: Any) -> float:
        search = Bilevel.of({**BILEVEL, **changes}).training(make_task(), SGD)
        return search.step()["epoch_equivalents"] * 72 / 64  # a batch's rest of 8 is left out

    # a plain step is 3 passes of the network; 3 to step, 3 to validate, 4 for the mixed derivative
    assert cost() == pytest.approx(10 / 3, rel=0.06)
    assert cost(interval=2) < 0.75 * cost()
    # 4 steps an epoch: 3 in one window and 1 in another; 3 + 1 mixed derivatives, 2 Hessian
    # products, 4 + 2 passes of gradients
    assert cost(interval=3, unroll=3) == pytest.approx(
        (4 * 3 + 2 * 3 + 4 * 4 + 2 * 3) / 12, rel=0.1
    )
    stn = Stn.of(STN).training(make_task(), SGD).step()["epoch_equivalents"]
    assert stn == pytest.approx(96 / 72, rel=0.2)  # all images, and the gradient for these


def test_the_policy_is_the_schedule_of_what_was_drawn() -> None:
    search = build()
    for _ in range(4):
        metrics = search.step()
    policy = search.policy()
    assert isinstance(policy, Schedule)
    assert len(policy.moments()) == 4
    for name, (mean, std) in policy.at(1.0).parameters().items():
        assert metrics[f"mean/{name}"] == mean
        assert metrics[f"std/{name}"] == std
    assert from_json(policy.to_json()) == policy
    images = search.setup.dataset.test.batches(40, device=search.setup.device, generator=None)
    before, _, _ = next(images)
    assert policy(before, torch.Generator().manual_seed(0), 0.5).shape == before.shape


def test_long_searches_are_put_together_in_few_phases() -> None:
    search = build()
    search._drawn = [torch.full((100, 10), float(epoch)) for epoch in range(100)]
    policy = search.policy()
    assert len(policy.moments()) == 34  # of three epochs each
    first = policy.at(0.0).parameters()["tx"]
    assert first[0] == pytest.approx(1.0, abs=0.02)  # 0, 1 and 2 in turn


def test_only_mirroring_is_predefined() -> None:
    search = build()
    assert search.setup.predefined == Predefined(flip=True)
    assert Bilevel.of(BILEVEL).predefined(Predefined(True, True, 4, 16), (32, 32)) == Predefined(
        True, True
    )


@pytest.mark.parametrize("size", ["small", "medium", "large"])
@pytest.mark.parametrize("transformations", ["translation", "affine", "colour", "affine+colour"])
def test_augmenters_are_those_of_the_paper(size: str, transformations: str) -> None:
    names = parameter_names(transformations, 3)
    augmenter = Augmenter(names, size)
    widths = [m.in_features for m in augmenter.network if isinstance(m, torch.nn.Linear)]
    n = len(names)
    expected = {
        "small": [n, n, 10 * n],
        "medium": [100, 64, 32],
        "large": [100, 512, 1024, 124, 512],
    }
    assert widths == expected[size]
    drawn = augmenter.draw(50, torch.Generator().manual_seed(0))
    assert tuple(drawn) == names
    for name in set(names) & set(differentiable.COLOUR):
        assert drawn[name].abs().max() <= 1


def test_grey_images_have_no_hue() -> None:
    assert parameter_names("affine+colour", 1)[-2:] == ("brightness", "contrast")
    setup = make_task(channels=1)
    metrics = Bilevel.of(BILEVEL).training(setup, SGD).step()
    assert "mean/contrast" in metrics
    assert "mean/hue" not in metrics


def test_stn_transforms_test_images_too() -> None:
    search = Stn.of({**STN, "lr": 0.001}).training(make_task(), {**SGD, "epochs": 10})
    assert isinstance(search, StnTraining)
    for _ in range(10):
        search.step()
    last = search.augmenter.network[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.zero_()  # transforms nothing
    plain = evaluate(search.loop.model, search.setup, search.setup.dataset.test)["error"]
    assert search.test()["test_error"] == plain < 50
    with torch.no_grad():
        last.bias += 3.0  # moves everything out of sight
    assert search.test()["test_error"] == 75  # one class for all


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transformations": "afine"}, "did you mean 'affine'"),
        ({"size": "tiny"}, "size"),
        ({"unroll": 2}, "unroll=2: expected at most method.interval=1"),
        ({"unroll": 0}, "unroll"),
        ({"lr": 0}, "lr"),
        ({"momentum": 1.0}, "momentum"),
        ({"resplit": 1}, "resplit"),
        ({"unrol": 1}, "did you mean 'unroll'"),
    ],
)
def test_wrong_settings_are_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RaysearchError, match=message) as error:
        build(**change)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_the_spread_of_what_was_planted_grows() -> None:
    """The quickest of `benchmarks.known_answers`: translation, on digits, one seed."""
    from benchmarks.known_answers import DEFAULTS, Case, search
    from benchmarks.planted import load

    values = {**DEFAULTS, "epochs": 50}
    cases = [Case("translation", planted, 0) for planted in (True, False)]
    planted, upright = (search((load(values), values, BILEVEL, case)) for case in cases)
    assert planted.last > planted.first
    assert planted.last > 1.5 * upright.last


@pytest.mark.parametrize("sgd", [{**SGD, "lr": 1e6}, SGD])
def test_an_augmenter_that_diverges_is_one_line(sgd: dict[str, Any]) -> None:
    settings = {**BILEVEL, "normalise": False, "lr": 1e38 if sgd is SGD else 0.2}
    search = Bilevel.of(settings).training(make_task(), sgd)

    def until_it_fails() -> None:
        while search.epoch < search.epochs:
            search.step()

    with pytest.raises(RaysearchError, match=r"diverged in epoch|not finite") as error:
        until_it_fails()
    assert "\n" not in str(error.value)


def test_the_network_is_kept_with_its_normalisation(tmp_path: Path) -> None:
    search = build()
    while search.epoch < search.epochs:
        search.step()
    torch.save(search.trained(), tmp_path / "network.pt")
    network = load_network(tmp_path / "network.pt")
    images, labels, _ = next(
        search.setup.dataset.test.batches(40, device=search.setup.device, generator=None)
    )
    error = 100 * float((network(images).argmax(1) != labels).float().mean())
    assert error == pytest.approx(search.test()["test_error"])
    torch.testing.assert_close(network(images / 255), network(images))
    assert network.classes == tuple("abcd")
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    for name in ("bad.pt", "missing.pt"):
        with pytest.raises(RaysearchError, match=name) as raised:
            load_network(tmp_path / name)
        assert "\n" not in str(raised.value)


def test_the_final_network_is_ready_for_clean_images() -> None:
    clean, as_trained = build(), build(clean_statistics=False)
    for search in (clean, as_trained):
        while search.epoch < search.epochs:
            search.step()
    own, other = (search.loop.model.state_dict() for search in (clean, as_trained))
    for name in own:
        same = torch.equal(own[name], other[name])
        assert same == ("running" not in name and "num_batches" not in name)
