"""What of a sample is an image, and which values an image may have."""

from __future__ import annotations

from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2

from raysearch.policy import (
    Candidates,
    Mixture,
    Policy,
    PolicyTransform,
    Schedule,
    Transformations,
    from_json,
    trivial_augment,
)
from tests.test_policy_files import WRITTEN, document

INVERT = PolicyTransform(Candidates(["Invert"], [0.0], [1.0], 1.0, 1))


def view(*shape: int, seed: int = 0, dtype: torch.dtype = torch.uint8) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    return levels if dtype == torch.uint8 else levels.to(dtype) / 255


def inverted(images: Tensor) -> Tensor:
    return 255 - images if images.dtype == torch.uint8 else 1 - images


# What is an image.

Sample = namedtuple("Sample", "label view")
STRUCTURES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "arguments": lambda one, other, label: (one, other, label),
    "label first": lambda one, other, label: (label, one, other),
    "label between": lambda one, other, label: (one, label, other),
    "a tuple of views": lambda one, other, label: ((one, other), label),
    "a dictionary": lambda one, other, label: {"label": label, "views": [one, other]},
    "ordered": lambda one, other, label: OrderedDict(label=label, first=one, second=other),
    "named": lambda one, other, label: [Sample(label, one), Sample(label, other)],
    "deep": lambda one, other, label: {"a": [{"b": (label, [one])}], "c": (other, "x", None, 3.5)},
}
LABELS = {
    "scalar": torch.tensor(3),
    "batch": torch.arange(4),
    "float": torch.rand(4),
    "one-hot": torch.eye(4),
    "pixels": torch.zeros(8, 8, dtype=torch.int64),
    "pixels of a batch": torch.zeros(4, 1, 8, 8, dtype=torch.int64),
    "boolean": torch.ones(1, 8, 8, dtype=torch.bool),
    "none": 7,
    "array": np.arange(4),
}


def flat(sample: Any) -> list[Any]:
    return torch.utils._pytree.tree_flatten(sample)[0]


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("shape", [(3, 8, 8), (4, 3, 8, 8), (4, 1, 8, 8)])
@pytest.mark.parametrize("kind", ["uint8", "float32", "Image"])
def test_views_are_augmented_and_labels_are_not(
    structure: str, shape: tuple[int, ...], kind: str
) -> None:
    dtype = torch.float32 if kind == "float32" else torch.uint8
    views = [view(*shape, seed=seed, dtype=dtype) for seed in range(2)]
    if kind == "Image":
        views = [tv_tensors.Image(one) for one in views]
    for label in LABELS.values():
        sample = STRUCTURES[structure](*views, label)
        augmented = INVERT(*sample) if isinstance(sample, tuple) else INVERT(sample)
        assert type(augmented) is type(sample)
        for one, other in zip(flat(sample), flat(augmented), strict=True):
            if any(one is each for each in views):
                torch.testing.assert_close(other, inverted(one), atol=1e-6, rtol=0)
                assert type(other) is type(one)
            else:
                assert other is one


def test_crops_of_two_sizes_are_views() -> None:
    crops = [view(3, 16, 16), view(3, 8, 8), view(3, 8, 12)]
    for one, other in zip(INVERT(crops), crops, strict=True):
        assert torch.equal(one, inverted(other))


def test_a_plain_tensor_beside_an_image_passes_through() -> None:
    plain = view(3, 8, 8)
    picture = PIL.Image.fromarray(view(8, 8, 3).numpy())
    for image in (tv_tensors.Image(view(3, 8, 8)), picture):
        assert INVERT(plain, image)[0] is plain
        assert INVERT({"features": plain, "image": image})["features"] is plain
    grey = view(1, 8, 8)
    assert INVERT(view(3, 8, 8), grey)[1] is grey  # as a mask may be
    depth = view(3, 8, 8, dtype=torch.float32)
    assert INVERT(view(3, 8, 8), depth)[1] is depth


@pytest.mark.parametrize("policy", [trivial_augment(), *(from_json(document(k)) for k in WRITTEN)])
def test_all_images_of_a_call_get_the_same_draws(policy: Policy) -> None:
    transform = PolicyTransform(policy)
    single, batch = view(3, 20, 24), view(6, 3, 20, 24)
    picture = PIL.Image.fromarray(single.permute(1, 2, 0).numpy())
    torch.manual_seed(0)
    for _ in range(4):
        for image in (single, batch, tv_tensors.Image(batch)):
            first, second, third = transform(image, image, image)
            assert torch.equal(first, second)
            assert torch.equal(first, third)
        left, right = transform(picture, picture)
        assert left.tobytes() == right.tobytes()


def test_more_views_do_not_change_what_the_first_and_later_calls_get() -> None:
    transform = PolicyTransform(trivial_augment())
    torch.manual_seed(0)
    alone = [transform(view(3, 16, 16)) for _ in range(8)]
    torch.manual_seed(0)
    pairs = [transform(view(3, 16, 16), view(3, 9, 9)) for _ in range(8)]
    assert all(torch.equal(one, pair[0]) for one, pair in zip(alone, pairs, strict=True))


def test_in_compose_with_a_label_first() -> None:
    compose = v2.Compose([v2.Identity(), INVERT])
    label, image = compose(torch.tensor(1), view(3, 8, 8))
    assert label == 1
    assert torch.equal(image, inverted(view(3, 8, 8)))


@pytest.mark.parametrize(
    "sample",
    [
        torch.zeros(8, 8, dtype=torch.uint8),
        (torch.arange(3), view(4, 8, 8)),
        {"video": view(2, 5, 3, 8, 8)},
        view(3, 8, 8).long(),
        view(8, 8, 3),
        torch.tensor(3),
        np.zeros((8, 8)),
        UserDict(image=view(3, 8, 8)),
    ],
)
def test_samples_without_an_image_are_refused(sample: Any) -> None:
    with pytest.raises(TypeError, match=r"no image in the sample: .*shape \[C, H, W\].*; got \S"):
        INVERT(sample)


def test_a_colour_image_goes_before_a_grey_one() -> None:
    mask, image, crops = view(1, 8, 8), view(3, 8, 8), view(5, 3, 4, 4)
    augmented = INVERT(mask, image, crops)
    assert augmented[0] is mask
    assert torch.equal(augmented[1], inverted(image))
    assert torch.equal(augmented[2], inverted(crops))


@pytest.mark.parametrize(
    "mode", ["1", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16", "I;16B"]
)
def test_pictures_of_other_modes_are_refused(mode: str) -> None:
    advice = "scale them to 8 bits" if mode[0] in "IF" else "convert"
    with pytest.raises(TypeError, match=f"mode L or RGB, not {mode}; .*{advice}"):
        INVERT(PIL.Image.new(mode, (8, 8)))


def test_what_has_no_tensors_passes_through() -> None:
    assert INVERT(7) == 7
    assert INVERT({"image": None, "name": "a"}) == {"image": None, "name": "a"}


# Which values it may have.

POLICIES = {
    "operations": trivial_augment(),
    "transformations": Transformations(["tx", "contrast"], [[0.2, 0.3]]),
    "mixture": Mixture([trivial_augment(), Schedule([Transformations(["hue"], [[0.1]])])]),
    "nothing": Transformations(["tx"], [[0.0]]),
}


def photograph(dtype: torch.dtype = torch.float32) -> Tensor:
    """Edges of black and white, which overshoot most, and noise between."""
    image = torch.zeros(2, 3, 16, 16)
    image[..., 4:6, 4:6] = image[..., 9:, 2:] = 1
    image[..., 12:, 12:] = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return image.to(dtype)


def resized() -> dict[str, Tensor]:
    source = photograph()
    bicubic = {"mode": "bicubic", "align_corners": False}
    pil = PIL.Image.fromarray(source[0, 0].numpy(), mode="F")
    return {
        "bicubic": F.interpolate(source, (37, 41), **bicubic),
        "smaller": F.interpolate(source, (11, 9), **bicubic),
        "antialias": F.interpolate(source, (37, 41), antialias=True, **bicubic),
        "torchvision": v2.Resize((37, 41), v2.InterpolationMode.BICUBIC)(source),
        "lanczos": torch.from_numpy(np.array(pil.resize((41, 37), PIL.Image.LANCZOS)))[None, None],
        "rounding": torch.cat([source * 1.0000001, source - 1e-7]),
        "half": (source * 1.001).half(),
        "bfloat16": (source * 1.01).bfloat16(),
        "double": source.double() * (1 + 1e-15),
        "worst": F.interpolate(
            (torch.arange(16).view(-1, 1) + torch.arange(16) & 2).sign().float()[None, None],
            scale_factor=3,
            **bicubic,
        ),
    }


@pytest.mark.parametrize("name", resized())
@pytest.mark.parametrize("policy", POLICIES)
def test_what_rounding_and_resizing_add_is_clamped(name: str, policy: str) -> None:
    images = resized()[name]
    assert float(images.min()) < 0 or float(images.max()) > 1
    clamped = images.clamp(0, 1)
    for augment in (POLICIES[policy], PolicyTransform(POLICIES[policy])):
        torch.manual_seed(0)
        result = augment(images)
        torch.manual_seed(0)
        assert torch.equal(result, augment(clamped))
        assert result.dtype == images.dtype
        assert float(result.min()) >= 0
        assert float(result.max()) <= 1


NORMALISED, SCALED, NOT_FINITE = "before v2.Normalize", "divide them by 255", "NaN or infinite"
IMAGENET = v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
MISTAKES: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "ImageNet": (IMAGENET, NORMALISED),
    "halves": (v2.Normalize([0.5] * 3, [0.5] * 3), NORMALISED),
    "MNIST": (v2.Normalize([0.1307] * 3, [0.3081] * 3), NORMALISED),
    "centred": (lambda images: images - 0.5, NORMALISED),
    "noise": (torch.randn_like, NORMALISED),
    "bright and normalised": (lambda images: IMAGENET(images * 0.3 + 0.7), NORMALISED),
    "less the mean of 255": (lambda images: images * 255 - 117, NORMALISED),
    "255": (lambda images: images * 255, SCALED),
    "dark": (lambda images: images * 9, SCALED),
    "65535": (lambda images: images * 65535, SCALED),
    "resized 255": (lambda _: resized()["bicubic"] * 255, SCALED),
    "NaN": (lambda images: images.where(images < 1, torch.nan), NOT_FINITE),
    "one NaN": (lambda images: torch.cat([images[1:], images[:1].mul(torch.nan)]), NOT_FINITE),
    "infinity": (lambda images: images.where(images < 1, torch.inf), NOT_FINITE),
    "minus infinity": (torch.log, NOT_FINITE),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("policy", POLICIES)
def test_each_mistake_has_its_own_line(policy: str, mistake: str, dtype: torch.dtype) -> None:
    make, message = MISTAKES[mistake]
    images = make(photograph()).to(dtype)
    for augment in (POLICIES[policy], PolicyTransform(POLICIES[policy])):
        with pytest.raises(ValueError, match=message) as error:
            augment(images)
        others = {NORMALISED, SCALED, NOT_FINITE} - {message}
        assert not any(other in str(error.value) for other in others)
        assert "\n" not in str(error.value)


def test_the_range_is_said() -> None:
    with pytest.raises(ValueError, match=r"these reach from -1 to 1, as normalised"):
        INVERT(photograph() * 2 - 1)
    with pytest.raises(ValueError, match="these reach from 0 to 255, as images of 0 to 255 do"):
        INVERT(photograph() * 255)


def test_every_kind_refuses_other_shapes_and_types() -> None:
    for policy in POLICIES.values():
        with pytest.raises(TypeError, match="uint8 or floating point"):
            policy(torch.zeros(2, 3, 8, 8, dtype=torch.int64))
        for shape in ((3, 8, 8), (2, 4, 8, 8), (2, 3, 0, 8)):
            with pytest.raises(ValueError, match=r"images must be \[B,C,H,W\]"):
                policy(torch.zeros(shape))
        assert policy(torch.zeros(0, 3, 8, 8)).shape == (0, 3, 8, 8)
