"""Networks: sizes as published, any image the data part can produce, clear refusals."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from raysearch.errors import RaysearchError
from raysearch.models import build, choose_model, names


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "millions"),
    [("wrn40x2", 2.24), ("wrn28x10", 36.5), ("resnet18", 11.17), ("small_cnn", 0.080)],
)
def test_published_number_of_parameters(name: str, millions: float) -> None:
    count = parameters(build(name, classes=10, channels=3, size=(32, 32)))
    assert count / 1e6 == pytest.approx(millions, rel=0.004)


@pytest.mark.parametrize("name", ["small_cnn", "wrn40x2", "resnet18", "mobilenet_v3_small"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (33, 20)])
def test_logits_and_gradients(name: str, channels: int, size: tuple[int, int]) -> None:
    model = build(name, classes=7, channels=channels, size=size)
    logits = model(torch.randn(3, channels, *size))
    assert logits.shape == (3, 7)
    logits.logsumexp(1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", ["small_cnn", "resnet18", "wrn40x2", "regnet_y_400mf"])
def test_weights_come_from_the_global_generator(name: str) -> None:
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(build(name, classes=3, channels=3, size=(32, 32)).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])


@pytest.mark.parametrize("name", ["googlenet", "squeezenet1_1", "shufflenet_v2_x0_5", "vit_b_32"])
def test_torchvision_models_return_logits_in_training(name: str) -> None:
    model = build(name, classes=5, channels=1, size=(64, 64))
    assert model.training
    assert model(torch.randn(2, 1, 64, 64)).shape == (2, 5)


def test_torchvision_resnet18_is_hidden_by_ours() -> None:
    model = build("resnet18", classes=10, channels=3, size=(32, 32))
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    assert first.kernel_size == (3, 3)
    assert names().count("resnet18") == 1


def test_unknown_name() -> None:
    with pytest.raises(RaysearchError, match=r"unknown model 'resnt50': did you mean 'resnet50'"):
        build("resnt50", classes=2, channels=3, size=(32, 32))


@pytest.mark.parametrize(
    ("name", "size"),
    [("alexnet", (32, 32)), ("vit_b_16", (30, 32)), ("maxvit_t", (32, 32)), ("small_cnn", (3, 3))],
)
def test_images_that_do_not_fit(name: str, size: tuple[int, int]) -> None:
    with pytest.raises(RaysearchError, match=rf"model {name} .*data\.size=") as caught:
        build(name, classes=2, channels=3, size=size)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "size", "device", "cores", "name"),
    [
        (2000, (32, 32), "cpu", 2, "small_cnn"),
        (2000, (100, 100), "cpu", 2, "small_cnn"),
        (50_000, (32, 32), "cpu", 64, "small_cnn"),
        (200, (32, 32), "cpu", 64, "resnet18"),
        (2000, (32, 32), "cuda", 2, "resnet18"),
        (2000, (224, 224), "cuda", 8, "resnet34"),
        (2000, (6, 6), "cuda", 8, "small_cnn"),
    ],
)
def test_the_network_chosen_fits_images_and_machine(
    images: int, size: tuple[int, int], device: str, cores: int, name: str
) -> None:
    found, reason = choose_model(images, size, device, cores)
    assert found == name
    assert found in names()
    assert reason.startswith(f"model={name} was chosen: ")
    assert "takes another" in reason
    assert "\n" not in reason
    assert ("data.size=32" in reason) == (size == (100, 100))
    build(found, classes=3, channels=3, size=size)
