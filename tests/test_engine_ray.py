"""The engine on Ray: processes that die, what cannot go on, and the names of Ray that it uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from _made_up import Told, in_rounds, once

from raysearch.engine import Wish, cluster, run
from raysearch.engine import _ray as private


@pytest.fixture(scope="module", autouse=True)
def _ray_running() -> Iterator[None]:
    here = str(Path(__file__).parent)
    with mock.patch.dict(os.environ, PYTHONPATH=here), cluster(Wish("cpu", cpus=2)):
        yield


def test_all_kinds_in_one_run(tmp_path: Path) -> None:
    told = Told()
    found = run(
        [
            in_rounds("rounds", 4),
            once("once", epochs=3),
            once("diverges", epochs=3, diverges=2),
            once("dies", epochs=2, seconds=0.01, dies=str(tmp_path / "died")),
            in_rounds("wrong", 2, "other", wrong=True),
        ],
        10.0,
        folder=tmp_path / "trials",
        max_failures=1,
        watchers=[told],
    )
    assert found.outcomes["rounds"].metrics["total"] == 4 * 12.0
    assert found.outcomes["once"].metrics["total"] == 13.0
    assert found.outcomes["once"].result.wall_seconds > 0
    assert found.outcomes["diverges"].failed == "it came to nothing"
    assert found.outcomes["dies"].metrics["total"] == 12.0
    assert any("dies died (its worker process ended unexpectedly)" in one for one in told.events)
    assert list(found.failed) == ["other"]
    assert "a person has to mend this" in str(found.failed["other"])
    assert told.events[-1] == "ended"
    again = run([once("once", epochs=3)], 10.0, folder=tmp_path / "trials", max_failures=0)
    assert again.outcomes["once"].metrics["total"] == 13.0


def test_one_that_dies_too_often_ends_its_method(tmp_path: Path) -> None:
    found = run(
        [once("dies", epochs=1, dies=str(tmp_path / "nowhere" / "died"))],
        0.0,
        folder=tmp_path / "trials",
        max_failures=1,
    )
    assert "after" in str(found.failed["made_up"]) or "No such file" in str(found.failed["made_up"])


def test_private_names_of_ray_are_there() -> None:
    from ray._private import ray_constants
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.utils.object_cache import _ObjectCache

    assert isinstance(ray_constants.ENABLE_RAY_CLUSTER, bool)
    assert {"increase_max", "decrease_max"} <= set(dir(_ObjectCache))
    assert "get_trials" in dir(TuneController)
    source = Path(__import__("inspect").getfile(TuneController)).read_text()
    assert "self._actor_cache = _ObjectCache" in source
    assert "self._trial_to_actor" in source
    with private.on_loopback():
        assert ray_constants.ENABLE_RAY_CLUSTER is False
