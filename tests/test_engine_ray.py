"""The engine on Ray: processes that die, what cannot go on, and the names of Ray that it uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from _made_up import Told, in_rounds, once

from raysearch.engine import Place, Share, TrialError, Wish, cluster, run
from raysearch.engine import _ray as private


@pytest.fixture(scope="module", autouse=True)
def _ray_running() -> Iterator[None]:
    before = os.environ.get("PYTHONPATH", "")  # else as it is: a token is this process's for life
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    with cluster(Wish("cpu", cpus=2)):
        yield
    os.environ["PYTHONPATH"] = before


def test_all_kinds_in_one_run(tmp_path: Path) -> None:
    told = Told()
    found = run(
        [
            in_rounds("rounds", 4),
            once("once", epochs=3),
            once("diverges", epochs=3, diverges=2),
            once("dies", epochs=2, seconds=0.01, dies=str(tmp_path / "died")),
            once("too often", "third", epochs=1, dies=str(tmp_path / "nowhere" / "died")),
        ],
        10.0,
        folder=tmp_path / "trials",
        max_failures=1,
        watchers=[told],
    )
    assert found.outcomes["rounds"].result.metrics["total"] == 4 * 12.0
    assert found.outcomes["once"].result.metrics["total"] == 13.0
    assert found.outcomes["once"].result.wall_seconds > 0
    assert found.outcomes["diverges"].failed == "it came to nothing"
    assert found.outcomes["dies"].result.metrics["total"] == 12.0
    assert any("dies died (its worker process ended unexpectedly)" in one for one in told.events)
    assert set(found.failed) == {"third"}
    assert "too often failed after 1 retries: FileNotFoundError" in str(found.failed["third"])
    assert told.events[-1] == "ended"
    again = run([once("once", epochs=3)], 10.0, folder=tmp_path / "trials", max_failures=0)
    assert again.outcomes["once"].result.metrics["total"] == 13.0


def test_what_a_person_has_to_mend_ends_everything(tmp_path: Path) -> None:
    entries = [in_rounds("wrong", 2, "other", wrong=True), in_rounds("long", 400, seconds=0.05)]
    with pytest.raises(TrialError, match="a person has to mend this") as error:
        run(entries, 0.0, folder=tmp_path, max_failures=1)
    assert error.value.method == "other"
    assert error.value.expected


def test_short_trials_use_all_processes_and_are_not_reported_one_by_one(tmp_path: Path) -> None:
    """No process is started in vain, and an epoch of a millisecond is no result of Tune's."""
    told = Told()
    entries = [once(f"{i}", epochs=100, seconds=0.002, pid=True) for i in range(8)]
    found = run(entries, 0.0, folder=tmp_path, max_failures=0, watchers=[told])
    workers = [outcome.result.metrics["worker"] for outcome in found.outcomes.values()]
    assert len(set(workers)) == 2
    assert len(list((tmp_path / "0").rglob("checkpoint_*"))) == 0
    assert sum(event.startswith("progress 0 ") for event in told.events) == 100


def test_two_kinds_of_shares_take_turns(tmp_path: Path) -> None:
    """Processes that hold something else make room."""
    half = {"search": Place(Share(0.5, 0.0, "cpu"), 4)}
    entries = [once("a"), replace(once("b"), places=half), in_rounds("c", 2)]
    found = run(entries, 0.0, folder=tmp_path, max_failures=0)
    assert len(found.outcomes) == 3


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
