"""What operations on batches promise beside Pillow's results."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from raysearch import ops
from raysearch.errors import RaysearchError

IDS = {name: ops.operation_id(name) for name in ops.OPERATIONS}


def random_policy(
    batch: int, slots: int, seed: int, wide: bool = False, size: tuple[int, int] = (32, 32)
) -> tuple[Tensor, Tensor, Tensor]:
    """Random operations of all 20, values and centres."""
    generator = torch.Generator().manual_seed(seed)
    operation = torch.randint(len(ops.OPERATIONS), (batch, slots), generator=generator)
    magnitude = torch.rand(batch, slots, generator=generator)
    sign = torch.randint(2, (batch, slots), generator=generator) * 2.0 - 1.0
    ranges = ops.wide_ranges(size) if wide else ops.AUTOAUGMENT_RANGES
    center = torch.rand(batch, slots, 2, generator=generator)
    return operation, ops.to_values(operation, magnitude, sign, ranges), center


def random_images(batch: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, channels, height, width)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator)


# The catalogue.


def test_operations_have_the_agreed_order() -> None:
    assert len(ops.OPERATIONS) == len(set(ops.OPERATIONS)) == 20
    assert ops.operation_id("Identity") == 0
    assert [ops.OPERATIONS[IDS[name]] for name in IDS] == list(ops.OPERATIONS)
    assert ops.OPERATIONS[1:16] == ops.DADA_OPERATIONS
    assert (ops.DADA_OPERATIONS[0], ops.DADA_OPERATIONS[-1]) == ("ShearX", "Cutout")


def test_unknown_operation_names_the_near_ones() -> None:
    with pytest.raises(RaysearchError, match="'Posterize'"):
        ops.operation_id("Posterise")


@pytest.mark.parametrize(
    ("name", "magnitude", "sign", "expected"),
    [
        ("ShearX", 1.0, -1.0, -0.3),
        ("TranslateY", 0.5, 1.0, 0.225),
        ("Rotate", 1.0, -1.0, -30.0),
        ("Solarize", 0.0, -1.0, 256.0),
        ("Solarize", 1.0, -1.0, 0.0),
        ("Posterize", 0.0, 1.0, 8.0),
        ("Posterize", 0.3, 1.0, 7.0),
        ("Posterize", 1.0, -1.0, 4.0),
        ("Color", 0.0, -1.0, 1.0),
        ("Color", 1.0, -1.0, 0.1),
        ("Brightness", 1.0, 1.0, 1.9),
        ("Cutout", 0.5, -1.0, 0.1),
        ("Invert", 0.7, -1.0, 0.0),
        ("Identity", 0.7, -1.0, 0.0),
    ],
)
def test_values(name: str, magnitude: float, sign: float, expected: float) -> None:
    value = ops.to_values(torch.tensor(IDS[name]), torch.tensor(magnitude), torch.tensor(sign))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected, abs=1e-6)


def test_values_keep_the_shape_and_carry_gradients() -> None:
    operation, _, _ = random_policy(4, 3, seed=0)
    magnitude = torch.rand(4, 3, requires_grad=True)
    value = ops.to_values(operation, magnitude, torch.ones(4, 3))
    assert value.shape == (4, 3)
    (gradient,) = torch.autograd.grad(value.sum(), magnitude)
    assert gradient[operation == IDS["Rotate"]].eq(30.0).all()


def test_wide_ranges_translate_by_32_pixels_and_never_more_than_the_image() -> None:
    ranges = ops.wide_ranges((64, 224))
    assert ranges["TranslateX"].high * 224 == pytest.approx(32)
    assert ranges["TranslateY"].high * 64 == pytest.approx(32)
    assert ops.wide_ranges((8, 8))["TranslateX"].high == 1.0
    with pytest.raises(ValueError, match="size"):
        ops.wide_ranges((0, 8))


def test_ranges_with_an_unknown_operation_are_refused() -> None:
    with pytest.raises(RaysearchError, match="Rotated"):
        ops.to_values(
            torch.zeros(1, dtype=torch.int64),
            torch.zeros(1),
            torch.ones(1),
            {"Rotated": ops.Range(0.0, 1.0, True)},
        )


# Batches.


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (33, 47)])
@pytest.mark.parametrize("wide", [False, True])
def test_mixed_batch_equals_one_image_at_a_time(
    channels: int, size: tuple[int, int], wide: bool
) -> None:
    images = random_images(60, channels, *size)
    operation, value, center = random_policy(60, 1, seed=1, wide=wide, size=size)
    mixed = ops.apply(images, operation[:, 0], value[:, 0], center[:, 0])
    for i in range(60):
        one = slice(i, i + 1)
        alone = ops.apply(images[one], operation[one, 0], value[one, 0], center[one, 0])
        assert torch.equal(mixed[one], alone), ops.OPERATIONS[operation[i, 0]]


@pytest.mark.parametrize("slots", [2, 3, 4])
def test_sequence_equals_one_apply_after_the_other(slots: int) -> None:
    images = random_images(50, 3, 16, 20)
    operation, value, center = random_policy(50, slots, seed=2)
    expected = images
    for k in range(slots):
        expected = ops.apply(expected, operation[:, k], value[:, k], center[:, k])
    assert torch.equal(ops.apply_sequence(images, operation, value, center), expected)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 9),
    slots=st.integers(1, 3),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    seed=st.integers(0, 10_000),
)
def test_any_shape_works_and_images_do_not_mix(
    batch: int, slots: int, channels: int, height: int, width: int, seed: int
) -> None:
    images = random_images(batch, channels, height, width, seed)
    operation, value, center = random_policy(batch, slots, seed, True, (height, width))
    before = images.clone()
    result = ops.apply_sequence(images, operation, value, center)
    assert result.shape == images.shape
    assert result.dtype == torch.uint8
    assert torch.equal(images, before), "the input was written to"
    last = ops.apply_sequence(images[-1:], operation[-1:], value[-1:], center[-1:])
    assert torch.equal(result[-1:], last)


def test_parts_and_threads_do_not_change_the_result() -> None:
    images = random_images(80, 3, 160, 160)  # enough for two threads
    operation, value, center = random_policy(80, 2, seed=3)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = ops.apply_sequence(images, operation, value, center)
        torch.set_num_threads(3)
        together = ops.apply_sequence(images, operation, value, center)
        assert torch.get_num_threads() == 3, "the caller's setting was changed"
        # Threads that start afterwards have the caller's setting as well.
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert seen == [3]
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(alone, together)


def test_threads_that_augment_at_once_keep_their_own_number() -> None:
    """Those that begin to use PyTorch meanwhile, too; and so does what begins afterwards."""
    images = random_images(40, 3, 160, 160)
    operation, value, center = random_policy(40, 2, seed=3)
    before = torch.get_num_threads()
    default, numbers, stop = before + 3, [1, 2, before + 3], threading.Event()
    seen: dict[int | None, set[int]] = {number: set() for number in (*numbers, None)}

    def augment(number: int) -> None:
        torch.set_num_threads(number)
        while not stop.is_set():
            ops.apply_sequence(images, operation, value, center)
            seen[number].add(torch.get_num_threads())

    def begin() -> None:
        seen[None].add(torch.get_num_threads())
        ops.apply_sequence(images[:1], operation[:1], value[:1], center[:1])
        seen[None].add(torch.get_num_threads())

    def together(threads: list[threading.Thread]) -> list[threading.Thread]:
        for thread in threads:
            thread.start()
        return threads

    try:
        working = []
        for number in numbers:  # a thread's first step takes the number that was set last, anywhere
            working += together([threading.Thread(target=augment, args=(number,))])
            while not seen[number]:
                time.sleep(0.01)
        torch.set_num_threads(default)
        for _ in range(100):
            for thread in together([threading.Thread(target=begin) for _ in range(3)]):
                thread.join()
        stop.set()
        for thread in working:
            thread.join()
    finally:
        stop.set()
        torch.set_num_threads(before)
    assert seen == {None: {default}} | {number: {number} for number in numbers}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("parameters_on", ["cpu", "cuda"])
def test_cuda_equals_cpu(parameters_on: str) -> None:
    images = random_images(80, 3, 33, 47)
    operation, value, center = random_policy(80, 2, seed=7)
    expected = ops.apply_sequence(images, operation, value, center)
    result = ops.apply_sequence(
        images.cuda(),
        operation.to(parameters_on),
        value.to(parameters_on),
        center.to(parameters_on),
    )
    assert result.is_cuda
    assert torch.equal(result.cpu(), expected)


def test_same_arguments_same_result() -> None:
    images = random_images(40, 3, 32, 32)
    operation, value, center = random_policy(40, 2, seed=4)
    first = ops.apply_sequence(images, operation, value, center)
    assert torch.equal(first, ops.apply_sequence(images, operation, value, center))


def test_memory_layout_of_the_input_does_not_matter() -> None:
    images = random_images(40, 3, 24, 20)
    operation, value, center = random_policy(40, 2, seed=5)
    expected = ops.apply_sequence(images, operation, value, center)
    layouts = {
        "channels last": images.to(memory_format=torch.channels_last),
        "every second": images.repeat_interleave(2, dim=0)[::2],
        "transposed": images.transpose(2, 3).contiguous().transpose(2, 3),
        "expanded": images,
    }
    for name, layout in layouts.items():
        result = ops.apply_sequence(layout, operation, value, center)
        assert torch.equal(result, expected), name
        assert result.is_contiguous(), name
    same = images[:1].expand(40, -1, -1, -1)
    result = ops.apply_sequence(same, operation, value, center)
    assert torch.equal(result, ops.apply_sequence(same.contiguous(), operation, value, center))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_float_images_are_taken_as_256_levels(dtype: torch.dtype) -> None:
    images = random_images(40, 3, 16, 16)
    operation, value, center = random_policy(40, 2, seed=6)
    floats = (images.double() / 255).to(dtype)
    result = ops.apply_sequence(floats, operation, value, center)
    levels = (floats.double() * 255).round().to(torch.uint8)  # bfloat16 has fewer than 256
    expected = ops.apply_sequence(levels, operation, value, center)
    assert result.dtype == dtype
    assert torch.equal(result, (expected.double() / 255).to(dtype))


def test_operations_work_inside_training_code() -> None:
    """On float images that want gradients, and with results that autograd may save."""
    images = (random_images(4, 3, 8, 8).float() / 255).requires_grad_()
    result = ops.apply(images, torch.arange(4), torch.full((4,), 0.2, requires_grad=True))
    assert not result.requires_grad
    weight = torch.ones(3, requires_grad=True)
    loss = (result * weight.view(1, 3, 1, 1)).sum()
    assert torch.autograd.grad(loss, weight)[0].shape == (3,)
    operation = torch.full((4,), IDS["Invert"])
    bytes_ = ops.apply(random_images(4, 3, 8, 8), operation, torch.zeros(4))
    assert not bytes_.is_inference()


def test_empty_batch_and_no_operations() -> None:
    nothing = torch.zeros(0, 3, 8, 8, dtype=torch.uint8)
    none = torch.zeros(0, dtype=torch.int64)
    assert ops.apply(nothing, none, torch.zeros(0)).shape == nothing.shape
    images = random_images(2, 1, 4, 4)
    empty = torch.zeros(2, 0, dtype=torch.int64)
    result = ops.apply_sequence(images, empty, torch.zeros(2, 0))
    assert torch.equal(result, images)
    assert result.data_ptr() != images.data_ptr()


def test_color_leaves_grey_images_alone() -> None:
    images = random_images(3, 1, 9, 9)
    result = ops.apply(images, torch.full((3,), IDS["Color"]), torch.tensor([0.0, 0.5, 1.9]))
    assert torch.equal(result, images)


def test_neutral_values_change_nothing() -> None:
    images = random_images(len(ops.AUTOAUGMENT_RANGES), 3, 17, 23)
    operation = torch.tensor([IDS[name] for name in ops.AUTOAUGMENT_RANGES])
    for sign in (-1.0, 1.0):
        value = ops.to_values(operation, torch.zeros(len(operation)), torch.full((1,), sign))
        assert torch.equal(ops.apply(images, operation, value), images)


# Cutout, the operation.


def squares(side: float, center: tuple[float, float] | None, size: tuple[int, int]) -> Tensor:
    """bool [H,W], where Cutout changed a black image."""
    images = torch.zeros(1, 3, *size, dtype=torch.uint8)
    at = None if center is None else torch.tensor([center])
    result = ops.apply(images, torch.tensor([IDS["Cutout"]]), torch.tensor([side]), at)[0]
    changed = result[0] > 0
    for channel, level in zip(result, ops.MID_GREY, strict=True):
        assert torch.equal(channel, changed * torch.tensor(level, dtype=torch.uint8))
    return changed


def test_cutout_is_a_square_about_its_centre() -> None:
    changed = squares(0.2, (0.5, 0.25), (40, 60))
    rows, columns = changed.nonzero().unbind(1)
    assert int(changed.sum()) == 8 * 8  # a fifth of the shorter side
    assert (int(rows.min()), int(rows.max())) == (6, 13)
    assert (int(columns.min()), int(columns.max())) == (26, 33)


def test_cutout_is_clipped_at_the_borders() -> None:
    assert int(squares(0.2, (0.0, 0.0), (40, 60)).sum()) == 4 * 4
    assert int(squares(0.2, (0.999, 0.5), (40, 60)).sum()) == 5 * 8


def test_cutout_is_in_the_middle_by_default_and_nothing_at_zero() -> None:
    assert torch.equal(squares(0.25, None, (32, 32)), squares(0.25, (0.5, 0.5), (32, 32)))
    assert squares(0.5, None, (32, 32))[8:24, 8:24].all()
    assert not squares(0.0, (0.3, 0.3), (32, 32)).any()


def test_cutout_on_grey_images_has_the_colours_luminance() -> None:
    images = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    result = ops.apply(images, torch.tensor([IDS["Cutout"]]), torch.tensor([0.5]))
    assert sorted(result.unique().tolist()) == [0, 123]


# Refusals.


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": torch.zeros(2, 3, 8, 8, dtype=torch.int64)}, TypeError, "images"),
        ({"images": torch.zeros(2, 4, 8, 8, dtype=torch.uint8)}, ValueError, "images"),
        ({"images": torch.zeros(3, 8, 8, dtype=torch.uint8)}, ValueError, "images"),
        ({"images": torch.zeros(2, 3, 0, 8, dtype=torch.uint8)}, ValueError, "images"),
        ({"operation": torch.zeros(2)}, TypeError, "operation"),
        ({"operation": torch.zeros(2, dtype=torch.bool)}, TypeError, "operation"),
        ({"operation": torch.zeros(3, dtype=torch.int64)}, ValueError, "operation"),
        ({"operation": torch.zeros(2, 1, dtype=torch.int64)}, ValueError, "operation"),
        ({"operation": torch.tensor([0, 20])}, ValueError, "0 to 19"),
        ({"operation": torch.tensor([-1, 0])}, ValueError, "0 to 19"),
        ({"value": torch.zeros(2, dtype=torch.int64)}, TypeError, "value"),
        ({"value": torch.zeros(3)}, ValueError, "value"),
        ({"value": torch.tensor([0.0, float("nan")])}, ValueError, "finite"),
        ({"center": torch.zeros(2)}, ValueError, "center"),
        ({"center": torch.zeros(2, 2, dtype=torch.int64)}, TypeError, "center"),
        ({"center": torch.full((2, 2), float("inf"))}, ValueError, "finite"),
    ],
)
def test_wrong_arguments_are_refused(
    change: dict[str, Tensor], error: type[Exception], message: str
) -> None:
    good = {
        "images": torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
        "operation": torch.zeros(2, dtype=torch.int64),
        "value": torch.zeros(2),
        "center": torch.zeros(2, 2),
    }
    ops.apply(**good)
    with pytest.raises(error, match=message):
        ops.apply(**(good | change))


def test_extreme_values_do_no_harm() -> None:
    images = random_images(20, 3, 8, 8)
    for value in (-1e30, -300.0, -1.0, 300.0, 1e30):
        result = ops.apply(images, torch.arange(20), torch.full((20,), value))
        assert torch.equal(result[0], images[0])


@pytest.mark.parametrize("magnitude", [1.4, 2.0])
@pytest.mark.parametrize("ranges", [ops.AUTOAUGMENT_RANGES, ops.wide_ranges((32, 32))])
def test_magnitudes_beyond_one_extrapolate(ranges, magnitude: float) -> None:
    """A threshold below 0 and too few bits are the strongest that there are; others go on."""
    images = random_images(4, 3, 16, 16)
    strongest = {"Solarize": 0.0, "Posterize": 1.0}
    for name, (low, high, _) in ranges.items():
        operation = torch.full((4,), IDS[name])
        value = ops.to_values(
            operation, torch.full((4,), magnitude), torch.tensor([-1.0, 1.0]).repeat(2), ranges
        )
        torch.testing.assert_close(
            (value - low).abs(),
            torch.full((4,), magnitude * abs(high - low)),
            atol=0.5 if name == "Posterize" else 1e-5,
            rtol=1e-5,
        )
        clamped = value.clamp(min=strongest.get(name, -torch.inf))
        result = ops.apply(images, operation, value)
        assert torch.equal(result, ops.apply(images, operation, clamped)), name
