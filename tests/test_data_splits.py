"""Splits: what a pass over them yields, how they divide, travel and stay deterministic."""

from __future__ import annotations

import pickle
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from raysearch.data import Batch, Split, StreamSplit, TensorSplit, stratified_split
from raysearch.data._decode import Decoder
from raysearch.data._source import ArraySource, FileSource
from raysearch.errors import RaysearchError

CPU = torch.device("cpu")
COUNT = 37


def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (COUNT, 3, 6, 5), dtype=np.uint8)


def labels() -> np.ndarray:
    return np.arange(COUNT) % 4


def tensor_split() -> TensorSplit:
    return TensorSplit(pixels(), labels())


def stream_split(folder: Path, workers: int = 0) -> StreamSplit:
    paths = []
    for number, image in enumerate(pixels()):
        paths.append(str(folder / f"{number}.png"))
        Image.fromarray(image.transpose(1, 2, 0)).save(paths[-1])
    return StreamSplit(FileSource.of(paths), labels(), Decoder(3, (6, 5)), workers)


@pytest.fixture(params=["tensor", "stream"])
def split(request: pytest.FixtureRequest, tmp_path: Path) -> Split:
    return tensor_split() if request.param == "tensor" else stream_split(tmp_path)


def read(
    split: Split, batch_size: int = 8, seed: int | None = None, drop_last: bool = False
) -> list[Batch]:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return list(split.batches(batch_size, device=CPU, generator=generator, drop_last=drop_last))


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b)
        for first, second in zip(one, other, strict=True)
        for a, b in zip(first, second, strict=True)
    )


def test_in_order(split: Split) -> None:
    batches = read(split)
    assert [len(images) for images, _, _ in batches] == [8, 8, 8, 8, 5]
    images = torch.cat([images for images, _, _ in batches])
    assert images.dtype == torch.uint8
    assert torch.equal(images, torch.from_numpy(pixels()))
    assert torch.equal(torch.cat([label for _, label, _ in batches]), torch.from_numpy(labels()))


def test_shuffled_is_a_permutation_that_the_generator_decides(split: Split) -> None:
    first, again, other = read(split, seed=1), read(split, seed=1), read(split, seed=2)
    assert same(first, again)
    assert not same(first, other)
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(1))
    images = torch.cat([images for images, _, _ in first])
    assert torch.equal(images, torch.from_numpy(pixels())[order])
    assert torch.equal(torch.cat([y for _, y, _ in first]), torch.from_numpy(labels())[order])


def test_a_generator_goes_on_from_pass_to_pass(split: Split) -> None:
    generator = torch.Generator().manual_seed(0)
    passes = [list(split.batches(8, device=CPU, generator=generator)) for _ in range(2)]
    assert not same(*passes)


def test_the_global_generator_is_left_alone(split: Split) -> None:
    before = torch.get_rng_state()
    read(split, seed=3)
    assert torch.equal(before, torch.get_rng_state())


def test_drop_last(split: Split) -> None:
    assert [len(x) for x, _, _ in read(split, drop_last=True)] == [8, 8, 8, 8]
    assert [len(x) for x, _, _ in read(split, 37, drop_last=True)] == [37]
    assert read(split, 38, drop_last=True) == []


def test_subset_and_join(split: Split) -> None:
    index = torch.tensor([5, 3, 30])
    joined = split.subset(index).join(split.subset(torch.tensor([0])))
    expected = torch.tensor([5, 3, 30, 0])
    assert len(joined) == 4
    assert torch.equal(joined.targets, torch.from_numpy(labels())[expected])
    assert torch.equal(read(joined)[0][0], torch.from_numpy(pixels())[expected])


def test_pickled_split_is_the_same_split(split: Split) -> None:
    before = read(split, seed=1)
    assert same(read(pickle.loads(pickle.dumps(split)), seed=1), before)


def test_batches_are_the_callers_own(split: Split) -> None:
    before = read(split)
    for images, label, _ in read(split):
        images.fill_(7)
        label.fill_(1)
    assert same(read(split), before)


def test_batch_size_must_be_positive(split: Split) -> None:
    with pytest.raises(RaysearchError, match="batch size"):
        read(split, 0)


def test_split_kinds_do_not_mix(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        tensor_split().join(stream_split(tmp_path))
    with pytest.raises(TypeError):
        stream_split(tmp_path).join(tensor_split())


def test_stream_is_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    batches = [read(stream_split(tmp_path, workers), seed=4) for workers in (0, 1, 2)]
    assert same(batches[0], batches[1])
    assert same(batches[0], batches[2])


def test_stream_can_be_left_in_the_middle(tmp_path: Path) -> None:
    passing: Iterator[Batch] = stream_split(tmp_path, 1).batches(4, device=CPU, generator=None)
    next(passing)
    passing.close()  # type: ignore[attr-defined]


def test_stream_names_a_file_that_vanished(tmp_path: Path) -> None:
    split = stream_split(tmp_path, 1)
    (tmp_path / "9.png").unlink()
    with pytest.raises(RaysearchError, match=r"9\.png: No such file"):
        read(split)


def test_read_only_arrays_are_used_as_they_are() -> None:
    images, targets = pixels(), labels().astype(np.int64)
    images.flags.writeable = targets.flags.writeable = False
    split = TensorSplit(images, targets)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert split.images.data_ptr() == images.ctypes.data
        assert len(read(split)) == 5


def test_tensor_split_pickles_out_of_band() -> None:
    split = tensor_split()
    read(split)
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(split, protocol=5, buffer_callback=buffers.append)
    assert len(data) < 1000
    assert sum(buffer.raw().nbytes for buffer in buffers) == split.images.numel() + 2 * 8 * COUNT


def test_parts_and_unions_of_a_base_copy_and_upload_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = np.zeros((2000, 3, 32, 32), np.uint8)
    whole = TensorSplit(images, np.arange(2000) % 4)
    uploads: list[torch.Size] = []
    to = torch.Tensor.to

    def counted(tensor: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        if tensor.dtype == torch.uint8:
            uploads.append(tensor.shape)
        return to(tensor, *args, **options)

    monkeypatch.setattr(torch.Tensor, "to", counted)
    tracemalloc.start()
    try:
        rest, part = stratified_split(whole.targets, 0.3, 0)
        train, val = whole.subset(rest), whole.subset(part)
        fold = train.subset(torch.arange(0, len(train), 3))
        again = val.join(fold).subset(torch.arange(10))
        allocated = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert allocated < images.nbytes / 10
    for split in (whole, train, val, fold, again):
        next(iter(split.batches(8, device=torch.device("meta"), generator=None)))
        next(iter(split.batches(8, device=CPU, generator=None)))
    assert uploads == [images.shape] * 2  # once to each device
    assert np.shares_memory(whole.images.numpy(), images)
    assert np.shares_memory(whole.subset(torch.arange(5, 9)).images.numpy(), images)


def test_a_part_of_a_part_names_images_by_their_place_in_the_base(split: Split) -> None:
    part = split.subset(torch.arange(30, 4, -2)).subset(torch.tensor([3, 0, 5]))
    both = part.join(split.subset(torch.tensor([1])))
    assert both.indices.tolist() == [24, 30, 20, 1]
    for some in (part, both, split):
        for images, targets, indices in read(some, 2, seed=0):
            assert torch.equal(images, torch.from_numpy(pixels())[indices])
            assert torch.equal(targets, torch.from_numpy(labels())[indices])


def test_a_part_yields_what_a_copy_of_its_images_yields(split: Split) -> None:
    index = torch.randperm(COUNT)[:20]
    copy = TensorSplit(torch.from_numpy(pixels())[index], torch.from_numpy(labels())[index])
    for seed in (None, 1, 2):
        for one, other in zip(read(split.subset(index), 6, seed), read(copy, 6, seed), strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.targets, other.targets)


def test_splits_of_one_base_pickle_it_once() -> None:
    whole = tensor_split()
    splits = [whole, *(whole.subset(torch.arange(i, 30)) for i in range(4))]
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(splits, protocol=5, buffer_callback=buffers.append)
    sizes = [buffer.raw().nbytes for buffer in buffers]
    assert sizes.count(whole.images.numel()) == 1
    assert sum(sizes) < whole.images.numel() + 6 * 8 * COUNT
    first, second, *_ = pickle.loads(data, buffers=buffers)
    assert first.join(second).indices.tolist() == [*range(COUNT), *range(30)]


def test_splits_of_two_bases_join() -> None:
    joined = tensor_split().subset(torch.arange(3)).join(tensor_split())
    assert joined.indices.tolist() == list(range(COUNT + 3))
    assert torch.equal(joined.images[3:], torch.from_numpy(pixels()))


def test_splits_of_the_same_labels_are_not_of_the_same_base() -> None:
    targets = labels().astype(np.int64)
    one, other = TensorSplit(pixels(), targets), TensorSplit(255 - pixels(), targets)
    assert torch.equal(one.join(other).images[COUNT:], other.images)


def test_a_million_files_pickle_small_and_fast() -> None:
    source = FileSource.of([f"photos/train/class/{number:08}.jpg" for number in range(100_000)])
    assert len(pickle.dumps(source, protocol=5)) < 45 * 100_000


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        TensorSplit(torch.zeros(2, 1, 3, 3), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="targets of shape"):
        TensorSplit(torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))


def test_array_source_streams_as_well() -> None:
    images = pixels().transpose(0, 2, 3, 1)
    split = StreamSplit(ArraySource.of("made up", images), labels(), Decoder(3, (6, 5)), 1)
    assert same(read(split, seed=1), read(tensor_split(), seed=1))


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(2, 30), min_size=1, max_size=8),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 5),
)
def test_stratified_split_properties(counts: list[int], share: float, seed: int) -> None:
    targets = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
    rest, part = stratified_split(targets, share, seed)
    assert sorted([*rest.tolist(), *part.tolist()]) == list(range(len(targets)))
    assert rest.tolist() == sorted(rest.tolist())
    again = stratified_split(targets, share, seed)
    assert torch.equal(again[0], rest)
    assert torch.equal(again[1], part)
    taken = targets[part].bincount(minlength=len(counts))
    for number, count in zip(taken.tolist(), counts, strict=True):
        assert 1 <= number <= count - 1
    low, high = len(counts), len(targets) - len(counts)
    assert len(part) == min(max(round(share * len(targets)), low), high)


def test_stratified_split_keeps_proportions() -> None:
    targets = torch.from_numpy(np.repeat([0, 1, 2], [100, 200, 700]))
    rest, part = stratified_split(targets, 100, 0)
    assert targets[part].bincount().tolist() == [10, 20, 70]
    assert targets[rest].bincount().tolist() == [90, 180, 630]
    assert not torch.equal(part, stratified_split(targets, 100, 1)[1])


def test_smaller_parts_lie_within_larger_ones() -> None:
    targets = torch.from_numpy(np.arange(1000) % 10)
    small, large = (set(stratified_split(targets, n, 0)[1].tolist()) for n in (100, 300))
    assert small < large


def test_stratified_split_errors() -> None:
    targets = torch.tensor([0, 0, 0, 1])
    with pytest.raises(RaysearchError, match="class 'dog' has 1 image, the splits need at least 2"):
        stratified_split(targets, 0.5, 0, classes=("cat", "dog"))
    many = torch.arange(20) % 10
    with pytest.raises(RaysearchError, match="cannot take 5 of 20 images: with 10 classes"):
        stratified_split(many, 5, 0)
    with pytest.raises(RaysearchError, match="between 0 and 1, not"):
        stratified_split(many, 1.5, 0)
    with pytest.raises(RaysearchError, match="no images"):
        stratified_split(torch.zeros(0, dtype=torch.int64), 0.5, 0)
