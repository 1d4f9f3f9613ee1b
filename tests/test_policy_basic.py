"""Mirroring, cropping and Cutout as a policy, and policies one after the other."""

from __future__ import annotations

import pytest
import torch

from raysearch import ops
from raysearch.errors import RaysearchError
from raysearch.policy import Basic, Mixture, Schedule, Sequence, from_json, trivial_augment

IMAGES = torch.randint(
    256, (64, 3, 12, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_basic_is_the_predefined_augmentation_draw_for_draw() -> None:
    generator = seeded()
    expected = ops.random_flip(IMAGES, generator)
    expected = ops.random_flip(expected, generator, vertical=True)
    expected = ops.random_crop(expected, 2, generator)
    expected = ops.cutout(expected, 4, generator, (25.5, 51.0, 76.5))
    policy = Basic(True, True, 2, 4, (0.1, 0.2, 0.3))
    assert torch.equal(policy(IMAGES, seeded()), expected)
    levels = policy(IMAGES / 255, seeded())
    assert (levels * 255 - expected).abs().max() < 1  # the fill alone is truncated


@pytest.mark.parametrize("fill", [(0.5,), (0.25, 0.5, 0.75)])
@pytest.mark.parametrize("channels", [1, 3])
def test_fill_fits_any_number_of_channels(fill: tuple[float, ...], channels: int) -> None:
    policy = Basic(cutout=99, fill=fill)
    out = policy(IMAGES[:, :channels], seeded())
    filled = out.reshape(64, channels, -1).float().median(2).values  # the square covers most
    expected = [127.0] * 3 if channels == 1 or len(fill) == 1 else [63.0, 127.0, 191.0]
    assert filled.tolist() == [expected[:channels]] * 64


def test_nothing_is_a_copy() -> None:
    out = Basic()(IMAGES)
    assert torch.equal(out, IMAGES)
    assert out.data_ptr() != IMAGES.data_ptr()


def test_sequence_draws_for_each_step_in_turn() -> None:
    steps = [Basic(flip=True, padding=2), trivial_augment(), Basic(cutout=3)]
    generator, expected = seeded(), IMAGES
    for step in steps:
        expected = step(expected, generator)
    assert torch.equal(Sequence(steps)(IMAGES, seeded()), expected)


def test_sequence_follows_a_schedule_within() -> None:
    schedule = Schedule([Basic(), Basic(flip=True)])
    policy = Sequence([schedule, Basic(padding=1)])
    assert policy.moments() == [0.0, 0.5]
    assert policy.at(0.1) == Sequence([Basic(), Basic(padding=1)])
    again = from_json(policy.to_json())
    assert torch.equal(again(IMAGES, seeded(), 0.7), policy(IMAGES, seeded(), 0.7))


def test_rates_add_up() -> None:
    policy = Sequence([Basic(flip=True, cutout=2), Basic(flip=True)])
    assert policy.operation_rates() == {"FlipLeftRight": 1.0, "Cutout": 1.0}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Basic(padding=-1), "padding >= 0"),
        (lambda: Basic(fill=(0.1, 0.2)), "one or three"),
        (lambda: Basic(fill=(2.0,)), r"\[0, 1\]"),
        (lambda: Sequence([]), "needs steps"),
        (lambda: Sequence([Mixture([Basic()])]), "cannot be of kind mixture"),
        (lambda: Schedule([Sequence([Basic()])]), "cannot be of kind sequence"),
    ],
)
def test_what_is_refused(make: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()  # type: ignore[operator]


def test_a_truth_value_is_no_number_in_a_file() -> None:
    document = {**Basic().to_json(), "flip": 1}
    with pytest.raises(RaysearchError, match="flip: 1 is not of type 'boolean'"):
        from_json(document)
