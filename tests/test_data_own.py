"""Data sets of the user's own objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import TensorDataset

from raysearch.data import Dataset, TensorSplit
from raysearch.errors import RaysearchError

COUNT = 20
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(COUNT) % 2


class Pairs(TorchDataset[Any]):
    def __init__(self, pairs: list[Any], classes: list[str] | None = None) -> None:
        self.pairs = pairs
        if classes:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Any:
        return self.pairs[index]


def as_tensor(image: Any) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)


def as_float(image: Any) -> torch.Tensor:
    return as_tensor(image).float() / 255


@pytest.mark.parametrize(
    "form", [Image.fromarray, np.asarray, as_tensor, as_float, lambda x: x / 255.0]
)
def test_images_of_any_kind_are_the_same(form: Any) -> None:
    pairs = Pairs([(form(x), int(y)) for x, y in zip(PIXELS, LABELS, strict=True)])
    data = Dataset.of(pairs, test=pairs)
    assert (data.channels, data.size, data.classes) == (3, (6, 5), ("0", "1"))
    assert isinstance(data.train, TensorSplit)
    assert np.array_equal(data.train.images.permute(0, 2, 3, 1).numpy(), PIXELS)
    assert data.train.targets.tolist() == LABELS.tolist()
    assert data.mean == pytest.approx(PIXELS.mean((0, 1, 2)) / 255)


@pytest.mark.parametrize(
    "images", [PIXELS, torch.from_numpy(PIXELS).permute(0, 3, 1, 2), PIXELS / 255.0]
)
def test_arrays(images: Any) -> None:
    data = Dataset.of((images, torch.from_numpy(LABELS)), classes=["dark", "light"])
    assert data.classes == ("dark", "light")
    assert (len(data.train), len(data.test), data.val) == (16, 4, None)
    assert data.test.targets.bincount().tolist() == [2, 2]
    both = torch.cat((data.train.images, data.test.images)).flatten(1)
    expected = torch.from_numpy(PIXELS).permute(0, 3, 1, 2).flatten(1)
    assert sorted(both.tolist()) == sorted(expected.tolist())
    other = Dataset.of((images, LABELS), split_seed=1)
    assert not torch.equal(other.test.images, data.test.images)


def test_val_is_on_the_base_of_train() -> None:
    pair = (PIXELS, LABELS)
    data = Dataset.of(pair, val=pair, test=pair)
    assert data.val is not None
    assert data.full_train().indices.tolist() == list(range(2 * COUNT))


def test_tensor_data_sets_and_names_of_classes() -> None:
    images = torch.from_numpy(PIXELS[..., :1]).permute(0, 3, 1, 2)
    data = Dataset.of(TensorDataset(images, torch.from_numpy(LABELS)), name="mine")
    assert (data.name, data.channels) == ("mine", 1)
    named = Pairs([(image, label) for image, label in zip(images, LABELS, strict=True)], ["a", "b"])
    assert Dataset.of(named).classes == ("a", "b")


def test_sizes_and_channels_mix_where_a_size_is_given() -> None:
    pairs = [(Image.new("L", (8 + i, 9), 10 * i), i % 2) for i in range(10)]
    pairs += [(np.full((12, 7, 3), 200, np.uint8), 0)]
    data = Dataset.of(Pairs(pairs), size=8)
    assert (data.channels, data.size) == (3, (8, 8))
    assert Dataset.of(Pairs(pairs), size=(4, 6)).size == (4, 6)


def test_multi_label() -> None:
    has = np.stack([LABELS, 1 - LABELS, np.ones(COUNT, np.int64)], 1)
    for labels in (has, torch.from_numpy(has), has.astype(bool), list(has)):
        data = Dataset.of((PIXELS, labels))
        assert data.kind == "multi"
        assert data.train.targets.dtype == torch.float32
        assert data.classes == ("0", "1", "2")
    assert Dataset.of((PIXELS, LABELS)).kind == "single"


@pytest.mark.parametrize(
    ("train", "options", "message"),
    [
        ("photos", {}, "train, image 0: it is no pair"),
        (PIXELS, {}, "train is a ndarray: expected (images, labels) as arrays"),
        (7, {}, "train is a int: expected"),
        (Pairs([]), {}, "train has no images"),
        ((PIXELS, LABELS[:-1]), {}, "20 images, but 19 labels"),
        ((PIXELS, LABELS / 2), {}, "its labels are float64 of shape (20,)"),
        ((PIXELS[0, 0], LABELS), {}, "its images are of shape (5, 3)"),
        ((PIXELS * 1.0, LABELS), {}, "has values from 0 to 248, expected uint8"),
        ((PIXELS.astype(np.int64), LABELS), {}, "image 0 is int64, expected uint8"),
        ((PIXELS[..., :2], LABELS), {}, "is of shape (6, 5, 2), expected"),
        ((PIXELS * np.nan, LABELS), {}, "has values from nan to nan"),
        ((PIXELS, LABELS), {"classes": ["a"]}, "the label 1 is out of range"),
        ((PIXELS, LABELS), {"classes": ["a", "b", "c"]}, "class 'c' has no images in train"),
        ((PIXELS, LABELS - 1), {}, "train, image 0: the label -1 is out of range"),
        ((PIXELS, LABELS), {"test": (PIXELS[:, :3], LABELS)}, "test, image 0 is 3x5, the first"),
        ((PIXELS, LABELS), {"test": (PIXELS, np.eye(20))}, "of another kind"),
        (Pairs([("a.png", 0)]), {}, "train, image 0 is a str, expected an image of Pillow"),
        (Pairs([(PIXELS[0], 0), (PIXELS[0, 1:], 1)]), {}, "image 1 is 5x5, the first"),
        (Pairs([(PIXELS[0], 0), (PIXELS[0], [1, 0])]), {}, "not all of one shape"),
        ((PIXELS, np.eye(20) * 2), {}, "image 0: its label is not only of 0 and 1"),
        ((PIXELS, np.arange(20)), {}, "class '0' has 1 image, the splits need at least 3"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line(
    train: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RaysearchError) as caught:
        Dataset.of(train, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
