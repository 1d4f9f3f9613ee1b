"""Policy files of earlier versions are read, wrong ones refused with the place, large ones fast."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from raysearch.errors import RaysearchError
from raysearch.policy import Transformations, from_json, read_policy

TWO = {"operations": ["Rotate", "Invert"], "magnitudes": [0.5, 1.0]}
WRITTEN: dict[str, dict[str, Any]] = {  # by raysearch 0.1.0, before checks in plain Python
    "sub_policies": {
        "ranges": "autoaugment",
        "sub_policies": [
            {
                "weight": weight,
                "operations": [
                    {"name": "Rotate", "probability": 0.25, "magnitude": 0.5},
                    {"name": "Invert", "probability": 1.0, "magnitude": 0.0},
                ],
            }
            for weight in (0.75, 0.25)
        ],
    },
    "random_operations": {
        "ranges": "wide",
        "operations": ["Identity", "ShearX"],
        "count": 1,
        "magnitude": {"low": 0.0, "high": 1.0, "levels": 31},
    },
    "candidates": {
        "ranges": "autoaugment",
        "augment": 0.35,
        "count": 2,
        **TWO,
        "probabilities": [0.25, 0.75],
    },
    "pairs": {"ranges": "autoaugment", **TWO, "probabilities": [[0.25, 0.25], [0.5, 0.0]]},
    "random_order": {
        "ranges": "autoaugment",
        "counts": [0.25, 0.25, 0.5],
        "probabilities": [0.5, 1.0],
        **TWO,
    },
    "transformations": {"names": ["tx", "hue"], "draws": [[0.1, 0.25], [-0.12346, 0.0]]},
}
WRITTEN["schedule"] = {
    "phases": [
        {"kind": "pairs", **WRITTEN["pairs"]},
        {"kind": "candidates", **WRITTEN["candidates"]},
    ]
}
WRITTEN["mixture"] = {
    "members": [
        {"kind": "schedule", **WRITTEN["schedule"]},
        {"kind": "transformations", **WRITTEN["transformations"]},
    ]
}


def document(kind: str, **changes: Any) -> dict[str, Any]:
    return {
        "format": "raysearch-policy",
        "version": 1,
        "kind": kind,
        **WRITTEN[kind],
        **changes,
    }


@pytest.mark.parametrize("kind", WRITTEN)
def test_files_that_were_written_earlier_are_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(document(kind)))
    assert read_policy(path).to_json() == document(kind)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("pairs", {"probabilities": [[0.5, 1], [1, "1"]]}, r"probabilities\[1\]\[1\]: '1' is not"),
        ("pairs", {"magnitudes": 3}, "magnitudes: 3 is not of type 'array'"),
        ("pairs", {"operations": ["Rotate", 1]}, r"operations\[1\]: 1 is not of type 'string'"),
        ("pairs", {"operations": ["R" * 65] * 2}, r"operations\[0\]: .* longer than 64"),
        ("pairs", {"operations": ["Invert"] * 301}, "operations: a list of 301; .* 1 to 300"),
        ("pairs", {"a b": 1}, "document: unknown property 'a b'"),
        ("random_order", {"counts": [1]}, "counts: a list of 1; allowed are 2 to 17"),
        ("random_operations", {"magnitude": 1}, "magnitude: 1 is not of type 'object'"),
        ("random_operations", {"magnitude": {"low": 0}}, "magnitude: 'high' is a required"),
        ("random_operations", {"count": True}, "count: True is not of type 'integer'"),
        ("random_operations", {"count": 0}, "count: 0 is less than the minimum of 1"),
        ("sub_policies", {"sub_policies": [{}]}, r"sub_policies\[0\]: 'weight' is a required"),
        ("schedule", {"phases": [1]}, r"phases\[0\]: 1 is not of type 'object'"),
        ("mixture", {"members": [{"kind": "pairs"}]}, r"members\[0\]: document: 'ranges' is a re"),
        ("candidates", {"augment": [0] * 1000}, "augment: .{,100} is not of type 'number'"),
        ("candidates", {"augment": "long" * 1000}, "augment: .{,100} is not of type 'number'"),
        ("candidates", {"augment": float("nan")}, "augment: nan"),
    ],
)
def test_what_is_refused_is_named_with_its_place(
    kind: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RaysearchError, match=f"^p.json: {message}"):
        from_json(document(kind, **changes), "p.json")


def test_a_missing_key_is_named() -> None:
    whole = document("candidates")
    del whole["count"]
    with pytest.raises(RaysearchError, match="'count' is a required property"):
        from_json(whole)


def test_checking_millions_of_numbers_takes_about_as_long_as_parsing_them(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    row = {"kind": "pairs", "ranges": "wide", "operations": ["Invert"] * 300}
    row |= {"magnitudes": [0] * 300, "probabilities": [[0.125] * 300] * 300}
    phases = [row] * 20  # 1.8 million numbers
    path.write_text(json.dumps(document("schedule", phases=phases)))
    start = time.process_time()
    json.loads(path.read_text())
    parsing = time.process_time() - start
    start = time.process_time()
    assert len(read_policy(path).to_json()["phases"]) == 20
    assert time.process_time() - start < 5 * parsing + 1


def test_a_million_numbers_of_transformations(tmp_path: Path) -> None:
    policy = Transformations(["tx", "ty"], torch.zeros(500_000, 2))
    policy.save(tmp_path / "policy.json")
    start = time.process_time()
    assert read_policy(tmp_path / "policy.json") == policy
    assert time.process_time() - start < 10
