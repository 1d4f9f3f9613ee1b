"""Damaged files are read or refused in one line: no other error, no waiting, little memory.

`RAYSEARCH_FUZZ=100` tries a hundred times as many, each time others.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from raysearch.data import load_dataset
from raysearch.errors import RaysearchError
from raysearch.policy import (
    Basic,
    Candidates,
    Mixture,
    Pairs,
    Policy,
    RandomOrder,
    Schedule,
    Sequence,
    SubPolicies,
    Transformations,
    rand_augment,
    read_policy,
)

TIMES = int(os.environ.get("RAYSEARCH_FUZZ", "1"))
MEMORY = 1 << 30  # bytes that reading a file of a few kilobytes may take, whatever it says


def fuzz(examples: int) -> settings:
    """So many, always the same; with RAYSEARCH_FUZZ more, and others."""
    return settings(
        max_examples=examples * TIMES,
        deadline=None,
        derandomize=TIMES == 1,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """Whoever allocates more within gets a MemoryError, which is not a `RaysearchError`."""
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes, tail: int) -> bytes:
    """A few bytes of `whole` changed, left out, put in or moved; half of that in its `tail`."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        start = max(0, len(content) - tail) if draw(st.booleans()) else 0
        place = draw(st.integers(start, max(start, len(content) - 1)))
        length = draw(st.integers(0, 12))
        kind = draw(st.sampled_from(["byte", "bytes", "insert", "cut", "copy", "end"]))
        if kind == "byte":
            content[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
        elif kind == "bytes":
            content[place : place + length] = draw(st.binary(min_size=length, max_size=length))
        elif kind == "insert":
            content[place:place] = draw(st.binary(max_size=12))
        elif kind == "cut":
            del content[place : place + length]
        elif kind == "copy":
            source = draw(st.integers(0, len(content)))
            content[place:place] = content[source : source + length]
        else:
            del content[place:]
    return bytes(content)


def one_line(error: RaysearchError, path: Path) -> None:
    assert str(error).isprintable()
    assert str(path.parent) in str(error)


# Policies.


def policies() -> dict[str, Policy]:
    """One of each kind, small."""
    half = torch.full((2,), 0.5, dtype=torch.float64)
    simple: dict[str, Policy] = {
        "sub_policies": SubPolicies([("Rotate", "Color")] * 2, half, half[:, None] * torch.ones(2),
                                    half[:, None] * torch.ones(2)),
        "random_operations": rand_augment(),
        "candidates": Candidates(["Invert", "Solarize"], half, half, 0.5),
        "pairs": Pairs(["Invert", "Solarize"], half, torch.ones(2, 2)),
        "random_order": RandomOrder(["Invert", "Solarize"], half, half),
        "transformations": Transformations(["tx", "a11"], torch.tensor([[0.1, 0.2], [0.0, 0.3]])),
        "basic": Basic(flip=True, padding=1, cutout=2, fill=(0.1, 0.2, 0.3)),
    }  # fmt: skip
    schedule = Schedule(list(simple.values()))
    sequence = Sequence([simple["basic"], schedule])
    mixture = Mixture([schedule, sequence, simple["pairs"]])
    return {**simple, "schedule": schedule, "sequence": sequence, "mixture": mixture}


POLICIES = {kind: json.dumps(policy.to_json()).encode() for kind, policy in policies().items()}
IMAGES = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8)
NUMBERS = st.sampled_from(
    [0, -0.0, 1, -1, 2, 3.0, 0.5, 17, 1e-320, 1e308, -1e308, 2**31, 2**63, 10**30, 10**400, True]
)
VALUES = st.recursive(
    NUMBERS | st.none() | st.text(max_size=5) | st.sampled_from(["Rotate", "wide", "pairs"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def read_and_use(path: Path) -> None:
    """A policy that is read can do all that policies do."""
    with little_memory():
        try:
            policy = read_policy(path)
        except RaysearchError as error:
            return one_line(error, path)
    assert policy(IMAGES, torch.Generator(), 0.5).shape == IMAGES.shape
    assert policy.describe()
    policy.save(path)
    assert read_policy(path) == policy
    return None


@fuzz(150)
@given(data=st.data())
def test_damaged_policy_files(data: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = POLICIES[data.draw(st.sampled_from(sorted(POLICIES)))]
    path = folder_of(tmp_path_factory) / "policy.json"
    path.write_bytes(data.draw(damaged(whole, len(whole))))
    read_and_use(path)


@fuzz(300)
@given(data=st.data())
def test_policies_with_other_values(data: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Values anywhere in a policy are replaced by others, left out or repeated."""
    document = json.loads(POLICIES[data.draw(st.sampled_from(sorted(POLICIES)))])
    for _ in range(data.draw(st.integers(1, 3))):
        holder, key = document, data.draw(st.sampled_from(list(document)))
        while isinstance(holder[key], list | dict) and holder[key] and data.draw(st.integers(0, 4)):
            holder = holder[key]
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            key = data.draw(st.sampled_from(keys))
        kind = data.draw(st.sampled_from(["replace", "leave out", "repeat"]))
        if kind == "leave out" and len(document) > 1:
            del holder[key]
        elif kind == "repeat" and isinstance(holder, list):
            holder.insert(key, holder[key])
        else:
            holder[key] = data.draw(VALUES)
    path = folder_of(tmp_path_factory) / "policy.json"
    path.write_text(json.dumps(document))
    read_and_use(path)


# Parquet files.


def parquet(**options: Any) -> bytes:
    buffer = io.BytesIO()
    values = []
    for number in range(12):
        image = io.BytesIO()
        Image.new("L", (4, 4), number).save(image, "PNG")
        values.append({"bytes": image.getvalue(), "path": f"{number}.png"})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    names = {"info": {"features": {"label": {"names": ["ant", "bee"]}}}}
    whole = pa.table({"image": pa.array(values, kind), "label": pa.array([0, 1] * 6)})
    whole = whole.replace_schema_metadata({"huggingface": json.dumps(names)})
    pq.write_table(whole, buffer, row_group_size=6, **options)
    return buffer.getvalue()


FILES = [
    parquet(),
    parquet(compression="none", use_dictionary=False, store_schema=False),
    parquet(compression="zstd", data_page_version="2.0", write_page_index=True),
]


@fuzz(300)
@given(data=st.data())
def test_damaged_parquet_files(data: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = data.draw(st.sampled_from(FILES))
    tail = int.from_bytes(whole[-8:-4], "little") + 8  # the footer
    path = folder_of(tmp_path_factory) / "train.parquet"
    path.write_bytes(data.draw(damaged(whole, tail)))
    options = {"on_error": "skip", "memory_limit_mb": data.draw(st.sampled_from([0, 4096]))}
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    with little_memory():
        try:
            found = load_dataset(
                {"name": "parquet", "root": str(path.parent), "workers": 0, **options}
            )
            batches = found.train.batches(4, device=torch.device("cpu"), generator=None)
            count = sum(len(labels) for _, labels, _ in batches)
        except RaysearchError as error:
            one_line(error, path)
        else:
            assert count == len(found.train)
            assert np.isfinite(found.mean).all()
    assert pool.bytes_allocated() - before < 1 << 24


@fuzz(100)
@given(data=st.data())
def test_damaged_label_files(data: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.getbasetemp() / "fuzz-labels"
    root.mkdir(exist_ok=True)
    names = [f"{number}.png" for number in range(8)]
    for name in names:
        Image.new("L", (4, 4)).save(root / name)
    named = ["image,labels", *(f"{names[i]},{('a', 'a|b', 'b', '')[i % 4]}" for i in range(8))]
    columns = ["image,a,b", *(f"{names[i]},{i % 2},{i % 3 % 2}" for i in range(8))]
    rows = data.draw(st.sampled_from([named, columns]))
    path = root / "labels.csv"
    path.write_bytes(data.draw(damaged("\n".join(rows).encode(), 40)))
    try:
        found = load_dataset({"name": "folder", "root": str(root), "on_error": "skip"})
    except RaysearchError as error:
        one_line(error, path)
    else:
        assert len(found.train) + len(found.test) + found.skipped >= 3
        assert found.train.target_shape in ((), (len(found.classes),))


def folder_of(factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples: a folder of each takes longer than reading it."""
    folder = factory.getbasetemp() / "fuzz"
    folder.mkdir(exist_ok=True)
    return folder
