"""Progress reaches the workers, however a transform came about and however they are started."""

from __future__ import annotations

import copy
import io
import os
import pickle
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.transforms import v2

from raysearch.policy import Candidates, Mixture, PolicyTransform, Schedule, load_policy

IMAGE = torch.arange(3 * 4 * 4, dtype=torch.uint8).reshape(3, 4, 4)
AT_END, AT_START = IMAGE.flip(2), 255 - IMAGE


def schedule() -> Schedule:
    """Inverts in the first half of a training, flips in the second."""
    return Schedule([Candidates([name], [0.0], [1.0], 1.0, 1) for name in ("Invert", "FlipLR")])


def fresh() -> PolicyTransform:
    return PolicyTransform(schedule())


def through_state_dict(transform: PolicyTransform) -> PolicyTransform:
    network = nn.Sequential(transform, nn.Linear(2, 2))
    other = nn.Sequential(fresh(), nn.Linear(2, 2))
    other.load_state_dict(network.state_dict(), assign=True)
    return other.to(torch.float64).share_memory()[0]


def through_file(transform: PolicyTransform) -> PolicyTransform:
    file = io.BytesIO()
    torch.save(transform, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def in_inference_mode(transform: PolicyTransform) -> PolicyTransform:
    with torch.inference_mode():
        return copy.deepcopy(transform)


WAYS: dict[str, Callable[[PolicyTransform], PolicyTransform]] = {
    "constructor": lambda transform: transform,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "twice": lambda transform: copy.deepcopy(copy.deepcopy(transform)),
    "pickle": lambda transform: pickle.loads(pickle.dumps(transform)),
    "cloudpickle": lambda transform: cloudpickle.loads(cloudpickle.dumps(transform)),
    "queue": lambda transform: pickle.loads(bytes(ForkingPickler.dumps(transform))),
    "torch.save": through_file,
    "state_dict": through_state_dict,
    "in Compose": lambda transform: copy.deepcopy(v2.Compose([transform])).transforms[0],
    "in Sequential": lambda transform: copy.deepcopy(nn.Sequential(transform))[0],
    "in a Dataset": lambda transform: copy.deepcopy(Pictures([transform])).transforms[0],
    "inference mode": in_inference_mode,
    "a mixture": lambda _: copy.deepcopy(PolicyTransform(Mixture([schedule(), schedule()]))),
}


class Pictures(Dataset):
    """An image by each of some transforms in turn."""

    def __init__(self, transforms: list[Any], rounds: int = 1) -> None:
        self.transforms, self.rounds = transforms, rounds

    def __len__(self) -> int:
        return len(self.transforms) * self.rounds

    def __getitem__(self, index: int) -> Tensor:
        return self.transforms[index % len(self.transforms)](IMAGE)


def all_are(images: Tensor, expected: Tensor) -> bool:
    return bool((images == expected).all())


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_it_reaches_workers_that_have_begun(method: str, persistent: bool, tmp_path: Path) -> None:
    schedule().save(tmp_path / "policy.json")
    own = [way(load_policy(tmp_path / "policy.json")) for way in WAYS.values()]
    used = [*own[:3], *map(nn.Sequential, own[3:6]), *(v2.Compose([one]) for one in own[6:])]
    pictures = Pictures(used, rounds=6)
    loader = DataLoader(
        Subset(pictures, range(len(pictures))),
        batch_size=len(own),
        num_workers=1,
        prefetch_factor=1,
        persistent_workers=persistent,
        multiprocessing_context=method,
    )
    batches = iter(loader)
    assert all_are(next(batches), AT_END)
    for one in own:
        one.progress = 0.0
    assert all_are(list(batches)[-1], AT_START)
    for one in own:
        one.progress = 1.0
    assert all_are(next(iter(loader)), AT_END)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "constructor"])
def test_a_copy_begins_with_the_same_and_has_its_own(way: str) -> None:
    original = fresh()
    original.progress = 0.25
    other = WAYS[way](original)
    if way not in ("state_dict", "a mixture"):  # which is a transform of its own from the start
        assert other.progress == 0.25
    other.progress = 0.75
    assert original.progress == 0.25
    original.progress = 0.0
    assert other.progress == 0.75
    assert torch.equal(other(IMAGE), AT_END)
    assert torch.equal(original(IMAGE), AT_START)


def test_a_copy_made_in_a_worker_works_there() -> None:
    transform = fresh()
    transform.progress = 0.0
    reader, writer = os.pipe()
    if not (child := os.fork()):
        other = pickle.loads(pickle.dumps(copy.deepcopy(transform)))
        other.progress = 1.0
        os.write(writer, bytes([transform.progress == 0.0 and torch.equal(other(IMAGE), AT_END)]))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 1) == b"\x01"


def test_a_network_with_a_policy_has_the_weights_of_one_without() -> None:
    weights = nn.Sequential(fresh(), nn.Linear(2, 2)).state_dict()
    assert set(weights) == {"1.weight", "1.bias"}
