"""Searches are asked and told, and go on from what is on disk; without Ray."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import pytest
import torch
from _made_up import MadeUpBuild, MadeUpRounds, Told, in_rounds, once, trial

from raysearch.engine import Entry, Outcome
from raysearch.engine._causes import is_disk_full
from raysearch.engine._files import Progress, ProposalFolder
from raysearch.engine._pool import Assignment, Pool
from raysearch.errors import DivergedError, RaysearchError, SearchFailedError
from raysearch.protocol import Answer, Failed, Metrics


def nothing(outcome: Outcome) -> Sequence[Entry]:
    return ()


def work(pool: Pool, asked: Assignment, told: bool = True) -> None:
    """What a worker does with a proposal."""
    proposal, folder = asked.proposal, asked.folder
    files = {id_: ProposalFolder(folder.path.parent / id_).read_file() for id_ in proposal.needs}
    made = MadeUpBuild(0.0)(proposal, files)
    progress = Progress()
    try:
        while made.epoch < made.epochs:
            progress.history.append({"epoch": made.epoch + 1, **made.step()})
            progress.epoch = made.epoch
        folder.write_answer(made.answer(), progress)
    except DivergedError as error:
        folder.write_answer(Failed(str(error)), progress)
    if told:
        pool.tell(asked)


def carry_out(pool: Pool, most: int = 10_000, seed: int | None = None) -> None:
    """All that is left, or so many proposals, in their order or any."""
    rng = random.Random(seed)
    out: list[Assignment] = []
    for _ in range(most):
        while (found := pool.ask(lambda entry, stage: len(out) < 3)) is not None:
            out.append(found)
        if not out:
            return
        work(pool, out.pop(0 if seed is None else rng.randrange(len(out))))
    for asked in out:
        pool.retract(asked)


def made(
    folder: Path,
    entries: Sequence[Entry],
    told: Told | None = None,
    ended: Callable[[Outcome], Sequence[Entry]] = nothing,
) -> Pool:
    pool = Pool(folder, [told] if told else [], ended)
    pool.add(entries)
    return pool


def total(pool: Pool, name: str) -> float:
    return pool.result().outcomes[name].result.metrics["total"]


def test_hundreds_of_trials_take_a_moment(tmp_path: Path) -> None:
    start = time.perf_counter()
    pool = made(tmp_path, [in_rounds("a", 50), in_rounds("b", 50)])
    carry_out(pool)
    assert pool.finished
    assert total(pool, "a") == 2.0 * 50
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_answers_changes_nothing(tmp_path: Path, seed: int) -> None:
    pool = made(tmp_path, [in_rounds("a", 5), once("b", epochs=3)])
    carry_out(pool, seed=seed)
    outcomes = pool.result().outcomes
    assert outcomes["a"].result.history == [
        {"epoch": n, "total": 2.0 * n, "epoch_equivalents": 3.0 * n} for n in range(1, 6)
    ]
    assert [row["epoch"] for row in outcomes["b"].result.history] == [1, 2, 3]
    assert outcomes["b"].result.metrics == {"epoch": 3, "total": 3.0, "epoch_equivalents": 3.0}


@pytest.mark.parametrize("most", range(16))
def test_a_driver_may_die_after_any_answer(tmp_path: Path, most: int) -> None:
    carry_out(made(tmp_path, [in_rounds("a", 5)]), most)
    again = made(tmp_path, [in_rounds("a", 5)])
    carry_out(again)
    assert total(again, "a") == 10.0
    assert [row["epoch"] for row in again.result().outcomes["a"].result.history] == [1, 2, 3, 4, 5]


def test_an_answer_that_nobody_was_told_counts(tmp_path: Path) -> None:
    pool = made(tmp_path, [in_rounds("a", 2)])
    for _ in range(3):
        found = pool.ask(lambda entry, stage: True)
        assert found is not None
        work(pool, found, told=False)
    entry = in_rounds("a", 2)
    again = made(tmp_path, [entry])
    assert entry.search.round == 1
    carry_out(again)
    assert total(again, "a") == 4.0


def test_a_damaged_state_is_passed_over(tmp_path: Path) -> None:
    carry_out(made(tmp_path, [in_rounds("a", 5)]), 9)
    state = tmp_path / "a" / "state.pt"
    state.write_bytes(state.read_bytes()[:-30])
    told = Told()
    again = made(tmp_path, [in_rounds("a", 5)], told)
    assert any("is damaged; it goes on from the round before" in event for event in told.events)
    carry_out(again)
    assert total(again, "a") == 10.0
    for file in ("state.pt", "before.pt"):
        (tmp_path / "a" / file).write_bytes(b"nothing")
    with pytest.raises(RaysearchError, match="there is none before it"):
        made(tmp_path, [in_rounds("a", 5)])


def test_files_that_no_round_needs_are_removed(tmp_path: Path) -> None:
    pool = made(tmp_path, [in_rounds("a", 20)])
    carry_out(pool, 45)
    assert len([path for path in (tmp_path / "a").iterdir() if path.is_dir()]) <= 8
    carry_out(pool)
    assert total(pool, "a") == 40.0


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    pool = made(tmp_path, [in_rounds("a", 5)])
    carry_out(pool, 3)
    shutil.rmtree(tmp_path / "a" / "0001-2")
    with pytest.raises(RaysearchError, match=r"0001-2.*is gone"):
        carry_out(pool)


def test_outcomes_make_more_possible(tmp_path: Path) -> None:
    def ended(outcome: Outcome) -> Sequence[Entry]:
        return [once("more", epochs=2)] if outcome.entry.id == "a" else ()

    told = Told()
    pool = made(tmp_path, [once("a")], told, ended)
    carry_out(pool)
    assert pool.finished
    assert set(pool.result().outcomes) == {"a", "more"}
    assert told.events == [
        *("planned ['a'] 0", "started a", "finished a None"),
        *("planned ['more'] 0", "started more", "finished more None"),
    ]
    again = Told()
    pool = made(tmp_path, [once("a")], again, ended)
    assert pool.finished
    assert again.events[0] == "planned ['a'] 1"


def test_what_diverges_is_an_answer(tmp_path: Path) -> None:
    told = Told()
    pool = made(tmp_path, [once("a", epochs=3, diverges=2), in_rounds("b", 2, diverges=1)], told)
    carry_out(pool)
    outcomes = pool.result().outcomes
    assert outcomes["a"].failed == "it came to nothing"
    assert outcomes["a"].policy is None
    assert len(outcomes["a"].result.history) == 1
    assert total(pool, "b") == 4.0
    assert "finished a it came to nothing" in told.events
    assert made(tmp_path, [once("a", epochs=3, diverges=2)]).finished


def ended_in(told: Told) -> list[str]:
    """What watchers were told of trials' ends."""
    return [event for event in told.events if event.startswith("finished")]


def test_a_search_of_which_all_diverges_ends_no_other_seed(tmp_path: Path) -> None:
    def entries() -> list[Entry]:
        bad, good = in_rounds("a", 2), in_rounds("b", 2)
        tell = bad.search.tell

        def fails(id: str, answer: Answer | Failed) -> Sequence[Metrics]:
            tell(id, answer)
            raise SearchFailedError("all came to nothing")

        bad.search.tell = fails  # type: ignore[method-assign]
        return [bad, good]

    told = Told()
    pool = made(tmp_path, entries(), told)
    carry_out(pool)
    assert pool.finished
    assert not pool.failed
    assert pool.result().outcomes["a"].failed == "all came to nothing"
    assert pool.result().outcomes["a"].policy is None
    assert total(pool, "b") == 4.0
    assert ended_in(told) == ["finished a all came to nothing", "finished b None"]
    assert made(tmp_path, entries()).finished


def with_shared() -> Entry:
    """A search of which watchers see the first proposal as a trial of its own."""
    shared = trial("shared", stage="shared")
    return Entry(**{**vars(in_rounds("a", 2)), "shown": {"0001-0": shared}})


def test_what_had_ended_is_counted_once(tmp_path: Path) -> None:
    carry_out(made(tmp_path, [with_shared(), once("b"), once("c", diverges=1)]), 7)
    told = Told()
    pool = made(tmp_path, [with_shared(), once("b"), once("c", diverges=1), once("d")], told)
    assert told.events[0] == "planned ['shared', 'a', 'b', 'c', 'd'] 2"
    assert ended_in(told) == ["finished c it came to nothing"]
    carry_out(pool)
    assert sorted(ended_in(told)[1:]) == ["finished a None", "finished d None"]
    told = Told()
    assert made(tmp_path, [with_shared(), once("b")], told).finished
    assert told.events == ["planned ['shared', 'a', 'b'] 3"]


def test_all_that_runs_of_a_method_that_cannot_go_on_has_ended(tmp_path: Path) -> None:
    told = Told()
    pool = made(tmp_path, [with_shared(), once("b", "other")], told)
    for _ in range(4):
        assert pool.ask(lambda entry, stage: True) is not None
    pool.fail("made_up", RaysearchError("no"))
    assert told.events[1:] == [
        *("started a", "started shared", "started b"),
        *("finished a no", "finished shared no"),
    ]


def test_what_diverges_at_once_has_cost_nothing_that_is_known(tmp_path: Path) -> None:
    pool = made(tmp_path, [once("a", epochs=3, diverges=1)])
    carry_out(pool)
    assert pool.result().outcomes["a"].result.epoch_equivalents == 0.0


def test_a_method_that_cannot_go_on_leaves_the_others(tmp_path: Path) -> None:
    pool = made(tmp_path, [in_rounds("a", 2, "one"), in_rounds("b", 2, "two")])
    carry_out(pool, 2)
    pool.fail("one", RaysearchError("no"))
    carry_out(pool)
    assert pool.finished
    assert set(pool.result().outcomes) == {"b"}
    assert str(pool.result().failed["one"]) == "no"


def test_the_largest_goes_first(tmp_path: Path) -> None:
    small, large = once("a"), once("b")
    large = Entry(**{**vars(large), "size": 2.0})
    pool = made(tmp_path, [small, large])
    found = pool.ask(lambda entry, stage: True)
    assert found is not None
    assert found.entry.id == "b"


class TestCheckpoints:
    def test_the_newest_whole_one_counts(self, tmp_path: Path) -> None:
        folder = ProposalFolder(tmp_path / "p")
        assert folder.read_checkpoint() is None
        for epoch in range(1, 5):
            folder.write_checkpoint({"epoch": epoch}, Progress(epoch))
        assert len(list(folder.path.iterdir())) == 2
        newest = folder.newest()
        assert newest is not None
        (newest / "state.pt").write_bytes(b"")
        assert folder.damaged() == [newest]
        found = folder.read_checkpoint()
        assert found is not None
        assert found[0] == {"epoch": 3}
        assert found[1].epoch == 3

    def test_a_full_disk_is_an_error_of_the_system(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(descriptor: int, mode: str) -> IO[bytes]:
            os.close(descriptor)
            return open("/dev/full", mode)  # type: ignore[return-value]

        monkeypatch.setattr("raysearch.files.os.fdopen", full)
        folder = ProposalFolder(tmp_path / "p")
        with pytest.raises(OSError, match="No space left") as error:
            folder.write_checkpoint({"weights": torch.zeros(100_000)}, Progress(1))
        assert is_disk_full(error.value)
        assert not list(folder.path.iterdir())

    def test_an_answer_forgets_the_way_to_it(self, tmp_path: Path) -> None:
        folder = ProposalFolder(tmp_path / "p")
        folder.write_checkpoint({"epoch": 1}, Progress(1))
        folder.write_answer(Failed("why"), Progress(1))
        assert [path.name for path in folder.path.iterdir()] == ["answer"]
        assert folder.read_answer()[0] == Failed("why")


def test_a_search_is_found_as_it_was(tmp_path: Path) -> None:
    search = MadeUpRounds(3)
    search.load_state_dict(MadeUpRounds(3).state_dict())
    assert search.ask() is not None
