"""Every benchmark runs, at a size that says nothing, and closes with one JSON line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from conftest import ROOT

SMALL = {
    "ops": ["rounds=1", "batch=8", "seconds=0.01"],
    "step_cost": ["model=small_cnn", "batch=8", "rounds=1", "size=8"],
    "planted": ["operations=Invert,Rotate", "seeds=2", "epochs=1", "size=8", "workers=1"],
    "second_order": ["model=small_cnn", "batch=8", "rounds=1", "size=8"],
    "known_answers": ["kinds=translation", "seeds=1", "epochs=1", "size=8", "workers=1"],
    "gain": ["seeds=2", "search_seeds=1", "search_epochs=1", "epochs=1", "workers=1"],
}
KEYS = {
    "ops": {"ratio_32", "ratio_224"},
    "step_cost": {"method", "ratio", "arithmetic_ratio"},
    "planted": {"method", "found", "cases", "seconds", "not_identifiable"},
    "second_order": {"pytorch", "ours", "difference"},
    "known_answers": {"method", "cases", "grows", "kinds"},
    "gain": {"method", "errors", "difference", "search_epochs"},
}


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.parametrize("name", SMALL)
def test_it_runs_and_closes_with_json(name: str) -> None:
    process = run(name, *SMALL[name])
    assert process.returncode == 0, process.stderr
    result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    assert result["benchmark"] == name
    assert set(result) >= KEYS[name]


def test_a_schedules_last_phase_is_ranked() -> None:
    process = run("planted", "method=ddas", *SMALL["planted"])
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout.splitlines()[-1])["method"] == "ddas"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["method=bilevel"], "method=bilevel does not search over operations"),
        (["method=ddas", "operations=Identity"], "unknown operation 'Identity'"),
        (["operations=Rotat"], "did you mean 'Rotate'"),
    ],
)
def test_what_cannot_be_planted_is_one_line(arguments: list[str], message: str) -> None:
    process = run("planted", *arguments)
    assert process.returncode != 0
    assert message in process.stderr
    assert process.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["method=dadaa"], "did you mean 'dada'"),
        (["metod=dada"], "did you mean 'method='"),
        (["rounds=many"], "rounds=many: expected a whole number"),
    ],
)
def test_wrong_arguments_are_one_line(arguments: list[str], message: str) -> None:
    process = run("step_cost", *arguments)
    assert process.returncode != 0
    assert message.strip() in process.stderr
    assert process.stderr.count("\n") == 1
