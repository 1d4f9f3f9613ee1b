"""Data sets by name, their settings, and the configuration files that hold them."""

from __future__ import annotations

import pickle
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from raysearch.data import NAMES, TensorSplit, load_dataset
from raysearch.data import _public as public_module
from raysearch.data._settings import DataSettings
from raysearch.data._source import ArraySource, Listing, Part
from raysearch.errors import RaysearchError
from raysearch.models import names as model_names
from raysearch.tasks import Classification

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def digits(**options: Any) -> Any:
    return load_dataset({"name": "digits", **options})


def test_digits() -> None:
    data = digits(limit=400)
    assert (len(data.train), len(data.test), data.val) == (400, 1397, None)
    assert (data.channels, data.size) == (1, (8, 8))
    assert data.classes == tuple("0123456789")
    assert data.train.images.max() == 255
    guess = Classification().guess(data.train.targets, data.test.targets)
    assert guess == pytest.approx(90, abs=1)
    counts = data.train.targets.bincount()
    assert counts.min() >= 38
    assert counts.max() <= 42
    train, val = data.search_splits(3, 0.5)
    assert len(train) == len(val) == 200
    assert len(data.full_train()) == 400


def test_digits_are_all_there_once() -> None:
    data = digits(limit=400)
    both = torch.cat((data.train.images, data.test.images)).flatten(1).int()
    everything = digits(limit=1000).full_train().images
    more = torch.cat((everything, digits(limit=1000).test.images)).flatten(1).int()
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, more.tolist()))


def test_without_a_limit_a_fifth_is_test() -> None:
    data = digits()
    assert len(data.test) == 359
    assert len(digits(test_fraction=0.5).test) in (898, 899)
    assert len(digits(limit=400, test_fraction=0.5).test) in (898, 899)


def test_same_seed_same_splits() -> None:
    one, again, other = digits(limit=400), digits(limit=400), digits(limit=400, split_seed=1)
    assert torch.equal(one.train.images, again.train.images)
    assert not torch.equal(one.train.images, other.train.images)
    first, second = one.search_splits(0, 0.3), again.search_splits(0, 0.3)
    assert torch.equal(first[1].images, second[1].images)
    assert not torch.equal(first[1].images, one.search_splits(1, 0.3)[1].images)


def test_search_splits_are_disjoint() -> None:
    data = digits(limit=400)
    train, val = data.search_splits(0, 0.25)
    rows = {tuple(row) for row in train.images.flatten(1).tolist()}
    assert not rows & {tuple(row) for row in val.images.flatten(1).tolist()}


def test_statistics_are_those_of_train() -> None:
    data = digits(limit=400)
    values = data.train.images.double() / 255
    assert data.mean == pytest.approx((values.mean().item(),))
    assert data.std == pytest.approx((values.std(correction=0).item(),))


def test_resizing_and_pickling() -> None:
    data = digits(limit=400, size=12)
    again = pickle.loads(pickle.dumps(data))
    assert data.size == again.size == (12, 12)
    assert torch.equal(again.train.images, data.train.images)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "digts"}, "unknown data set 'digts': did you mean 'digits'"),
        ({}, "data.name is missing"),
        ({"name": "digits", "limt": 3}, "unknown setting of data 'limt': did you mean 'limit'"),
        ({"name": "digits", "limit": 0}, "data.limit=0: expected at least 1"),
        ({"name": "digits", "limit": "all"}, "data.limit='all': expected a whole number"),
        ({"name": "digits", "limit": 4}, "cannot take"),
        ({"name": "digits", "limit": 1797}, "cannot take 0 of 1797 images"),
        ({"name": "digits", "limit": 5000}, "cannot take"),
        ({"name": "digits", "val_limit": 5}, "no val split"),
        ({"name": "digits", "size": "big"}, "data.size='big': expected a number of pixels"),
        ({"name": "digits", "size": [8]}, "data.size=[8]: expected a number of pixels"),
        ({"name": "digits", "size": 0}, "data.size=0: expected a number of pixels"),
        (
            {"name": "digits", "test_fraction": 1.0},
            "data.test_fraction=1.0: expected",
        ),
        ({"name": "digits", "on_error": "ignore"}, "unknown choice for data.on_error 'ignore'"),
        ({"name": "digits", "workers": -1}, "data.workers=-1: expected at least 0"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RaysearchError) as caught:
        load_dataset(settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn"])
def test_without_a_network_one_line_says_what_to_do(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    root = tmp_path / "data"
    with pytest.raises(RaysearchError) as caught:
        load_dataset({"name": name, "root": str(root)})
    assert f"data={name}: not in {root}, and the download failed" in str(caught.value)
    assert "data=parquet data.root=DIR" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not root.exists()


def test_a_download_arrives_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    part = Part(ArraySource.of("made up", pixels), np.arange(40) % 4)
    listing = Listing(("a", "b", "c", "d"), {"train": part, "test": part})

    def fake(name: str, root: Path, *, download: bool = False) -> Listing:
        if not download and not (root / "files").exists():
            raise RuntimeError("Dataset not found or corrupted.")
        (root / "files").mkdir(exist_ok=True)
        return listing

    monkeypatch.setattr(public_module, "_open", fake)
    for _ in range(2):  # from the network, then from the folder
        data = load_dataset({"name": "cifar10", "root": str(tmp_path), "limit": 20})
        assert [path.name for path in tmp_path.iterdir()] == ["files"]
        assert (len(data.train), len(data.test)) == (20, 40)
    assert isinstance(data.test, TensorSplit)
    assert np.array_equal(data.test.images.permute(0, 2, 3, 1).numpy(), pixels)


@pytest.mark.parametrize("name", NAMES)
def test_configuration_files_are_valid(tmp_path: Path, name: str) -> None:
    for group in ("data", "model"):
        shutil.copytree(CONFIGS / group, tmp_path / group)
    # A data file overrides the model, which Hydra allows for groups listed before it.
    (tmp_path / "config.yaml").write_text(f"defaults: [model: small_cnn, data: {name}]\n")
    with initialize_config_dir(str(tmp_path), version_base=None):
        config: Any = OmegaConf.to_container(compose("config"))
    settings = DataSettings.of(config["data"])
    assert settings.name == name
    assert set(config["data"]["predefined"]) == {
        "flip",
        "vertical_flip",
        "padding",
        "cutout",
    }
    assert config["model"]["name"] in (*model_names(), "auto")


def test_model_configuration_files_name_models() -> None:
    for path in (CONFIGS / "model").glob("*.yaml"):
        assert OmegaConf.load(path).name in (*model_names(), "auto")
