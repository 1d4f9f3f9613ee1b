"""Searches made of many trials, on Ray: workers that are kept and killed, rounds, continuation."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from conftest import dark_and_light
from ray import cloudpickle
from raysearch.methods._trials import file_of
from test_aws import FINETUNE, METHOD, Counted
from test_ohl import METHOD as OHL
from test_ohl import TRAINING

from raysearch.errors import NonFiniteLossError, RaysearchError
from raysearch.methods import Proposal, TrialSearch, carry_out, tidy
from raysearch.methods.aws import Aws
from raysearch.methods.ohl import Ohl
from raysearch.policy import Pairs, read_policy
from raysearch.training import Setup
from raysearch.tune import (
    Capacity,
    Progress,
    RoundsJob,
    Share,
    TrialError,
    Wish,
    cluster,
    run_rounds,
)

BEFORE = Progress(
    epochs=1, wall_seconds=3.0, device_seconds=2.0, history=[{"epoch_equivalents": 10.0}]
)


@pytest.fixture(scope="module", autouse=True)
def _by_value() -> Iterator[None]:
    """Ray's workers cannot import test modules."""
    modules = [__import__(name) for name in (__name__, "test_aws", "test_ohl", "conftest")]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    yield
    for module in modules:
        cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture(scope="module")
def running() -> Iterator[Capacity]:
    """Ray with two CPUs."""
    with cluster(Wish(device="cpu", cpus=2)) as capacity:
        yield capacity


@dataclass(frozen=True)
class Trial:
    """A search as stages know it."""

    seed: int
    policy: str | None = None

    @property
    def id(self) -> str:
        return f"search-seed-{self.seed}"

    @property
    def name(self) -> str:
        return f"aws seed {self.seed}"


@dataclass(frozen=True)
class Rule:
    """Builds workers that answer by a rule; may die (once, where there is a mark) or go wrong."""

    die_at: str = ""
    mark: str = ""
    wrong: bool = False
    seconds: float = 0.0

    def __call__(self, seed: int) -> Any:
        counted = Counted()

        def worker(proposal: Proposal, folder: Path) -> dict[str, Any]:
            time.sleep(self.seconds)
            if self.wrong:
                raise NonFiniteLossError("training", 1, 2)
            if proposal.id == self.die_at and not (self.mark and Path(self.mark).exists()):
                if self.mark:
                    Path(self.mark).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return {**counted(proposal), "pid": os.getpid()}

        return worker


class Notes:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.rounds: list[tuple[str, int]] = []
        self.finished: list[str] = []
        self.messages: list[str] = []
        self.resumed = -1

    def stage_started(self, stage: str, trials: int, epochs: int, resumed: int = 0) -> None:
        self.resumed = resumed

    def trial_started(self, trial: Trial) -> None: ...

    def trial_progress(self, trial: Trial, epoch: int, metrics: Mapping[str, float]) -> None:
        self.rounds.append((trial.id, epoch))

    def trial_finished(self, trial: Trial, error: str | None, metrics: Mapping[str, float]) -> None:
        self.finished.append(trial.id)

    def message(self, text: str) -> None:
        self.messages.append(text)

    def stage_finished(self, stage: str) -> None: ...


def rounds(
    folder: Path,
    rule: Rule,
    *,
    at_once: int = 2,
    seeds: int = 1,
    updates: int = 3,
    notes: Notes | None = None,
    **more: Any,
) -> Any:
    """A stage of AWS searches."""
    trials = [Trial(seed) for seed in range(seeds)]
    method = {**METHOD, "updates": updates}
    return run_rounds(
        "search",
        {trial.id: Aws(trial.seed, method, FINETUNE) for trial in trials},
        trials,
        RoundsJob(rule, Share(cpus=1.0, gpus=0.0, device="cpu")),
        folder=folder,
        before={trial.id: BEFORE for trial in trials},
        max_failures=2,
        at_once=at_once,
        watchers=[notes or Notes()],
        **more,
    )


def expected(seed: int = 0, updates: int = 3) -> Pairs:
    """The policy of a search in one process."""
    search = Aws(seed, {**METHOD, "updates": updates}, FINETUNE)
    carry_out(search, Counted())
    return search.policy()


@pytest.mark.parametrize("at_once", [1, 2])
def test_workers_are_kept_their_number_changes_nothing_and_all_is_counted(
    running: Capacity, tmp_path: Path, at_once: int
) -> None:
    processes: set[int] = set()
    notes = Notes()
    [outcome] = rounds(
        tmp_path,
        Rule(seconds=0.3),
        at_once=at_once,
        notes=notes,
        answered=lambda _, result: processes.add(result["answer/pid"]),
    )
    assert read_policy(outcome.policy) == expected()
    assert len(processes) == at_once
    assert notes.rounds == [("search-seed-0", n) for n in (1, 2, 3)]
    assert notes.finished == ["search-seed-0"]
    progress = outcome.progress
    assert progress.finished
    assert [row["epoch_equivalents"] for row in progress.history] == [16.0, 22.0, 28.0]
    assert progress.device_seconds == pytest.approx(2.0 + 9 * 0.3, abs=0.5)
    assert progress.wall_seconds > 3.0


def test_seeds_take_turns(running: Capacity, tmp_path: Path) -> None:
    outcomes = rounds(tmp_path, Rule(), seeds=2)
    for seed, outcome in enumerate(outcomes):
        assert read_policy(outcome.policy) == expected(seed)


def test_a_killed_worker_repeats_its_trial(running: Capacity, tmp_path: Path) -> None:
    notes = Notes()
    rule = Rule(die_at="0002-02", mark=str(tmp_path / "mark"))
    [outcome] = rounds(tmp_path, rule, notes=notes)
    assert read_policy(outcome.policy) == expected()
    [message] = notes.messages
    assert message.startswith("aws seed 0 trial 0002-02 died")
    assert message.endswith("it is repeated (retry 1 of 2)")


@pytest.mark.slow
def test_a_kept_process_that_died_idle_costs_a_retry(running: Capacity, tmp_path: Path) -> None:
    def kill_idle(proposal: str, result: Mapping[str, Any]) -> None:
        if proposal == "0002-02":  # its worker has nothing to do until the round ends
            os.kill(result["answer/pid"], signal.SIGKILL)

    notes = Notes()
    [outcome] = rounds(tmp_path, Rule(seconds=0.2), notes=notes, answered=kill_idle)
    assert read_policy(outcome.policy) == expected()


@pytest.mark.slow
def test_a_trial_that_dies_too_often_ends_the_search(running: Capacity, tmp_path: Path) -> None:
    rule = Rule(die_at="0001-02")
    with pytest.raises(TrialError, match="trial 0001-02 failed after 2 retries"):
        rounds(tmp_path, rule, updates=1)


def test_a_loss_that_is_not_finite_ends_the_search_in_one_line(
    running: Capacity, tmp_path: Path
) -> None:
    with pytest.raises(TrialError, match=r"aws seed 0 trial 0001-0\d failed: training: the loss"):
        rounds(tmp_path, Rule(wrong=True))


def stopped_after(answers: int, folder: Path) -> list[str]:
    """Stop a search after so many answers; the proposals that had them."""

    class Stop(Exception):
        pass

    asked: list[str] = []

    def stop(proposal: str, result: Mapping[str, Any]) -> None:
        asked.append(proposal)
        if len(asked) == answers:
            raise Stop

    with pytest.raises(Stop):
        rounds(folder, Rule(), answered=stop)
    return asked


def test_a_search_goes_on_with_the_answers_that_it_had(running: Capacity, tmp_path: Path) -> None:
    asked = stopped_after(5, tmp_path)
    again: list[str] = []
    [outcome] = rounds(tmp_path, Rule(), answered=lambda proposal, _: again.append(proposal))
    assert read_policy(outcome.policy) == expected()
    assert sorted(asked + again) == sorted({*asked, *again})
    assert len(asked + again) == 9
    notes = Notes()
    [once_more] = rounds(tmp_path, Rule(wrong=True), notes=notes)  # nothing is left to run
    assert notes.resumed == 1
    assert once_more.progress == outcome.progress


def test_of_a_damaged_state_the_one_before_is_used_and_this_is_said(
    running: Capacity, tmp_path: Path
) -> None:
    asked = stopped_after(5, tmp_path)
    state = tmp_path / "rounds" / "search-seed-0" / "state.pt"
    os.truncate(state, 100)
    again: list[str] = []
    notes = Notes()
    [outcome] = rounds(
        tmp_path, Rule(), notes=notes, answered=lambda proposal, _: again.append(proposal)
    )
    assert read_policy(outcome.policy) == expected()
    assert len(asked + again) == 9 + 1
    [message] = notes.messages
    assert message.endswith("state.pt is damaged; it goes on from the answer before the last")
    os.truncate(state, 100)
    os.truncate(state.with_name("before.pt"), 100)
    with pytest.raises(RaysearchError, match=r"state.pt is damaged, and there is none before it"):
        rounds(tmp_path, Rule())


def test_its_state_is_saved_with_the_experiment_too(running: Capacity, tmp_path: Path) -> None:
    from raysearch.tune._proposals import fetched
    from raysearch.tune._rounds import AskAndTell, _running

    search = Aws(0, METHOD, FINETUNE)
    share = Share(1.0, 0.0, "cpu")
    searcher = AskAndTell({"s": _running(Trial(0), search, share, tmp_path, BEFORE)}, [])
    suggested = searcher.suggest("tune-1")
    assert suggested is not None
    answer = Counted()(fetched(suggested["trial"]["proposal"]))
    flat = {f"answer/{key}": value for key, value in answer.items()}
    searcher.on_trial_complete("tune-1", {**flat, "seconds": 1.0})
    searcher.save(str(tmp_path / "searcher.pt"))
    fresh = Aws(0, METHOD, FINETUNE)
    other = AskAndTell({"s": _running(Trial(1), fresh, share, tmp_path, BEFORE)}, [])
    other.restore(str(tmp_path / "searcher.pt"))
    proposal = fresh.ask()
    assert proposal is not None
    assert proposal.id == "0001-02"
    assert np.array_equal(
        next(iter(fresh.state_dict()["answers"].values()))["counts"].numpy(), answer["counts"]
    )
    assert isinstance(torch.load(tmp_path / "searcher.pt", weights_only=True), dict)


@dataclass(frozen=True)
class Replicas:
    """Builds OHL's workers; one dies after it has left its file, before it answers."""

    setup: Setup
    die_at: str = ""
    mark: str = ""

    def __call__(self, seed: int) -> Any:
        replica = Ohl.worker(self.setup, OHL, TRAINING, {})

        def worker(proposal: Proposal, folder: Path) -> dict[str, Any]:
            answer = replica(proposal, folder)
            if proposal.id == self.die_at and not Path(self.mark).exists():
                Path(self.mark).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return worker


class TestFiles:
    """What workers leave for each other."""

    def run(self, folder: Path, build: Replicas, notes: Notes, **more: Any) -> Any:
        trial = Trial(0)
        return run_rounds(
            "search",
            {trial.id: Ohl(0, OHL, TRAINING)},
            [trial],
            RoundsJob(build, Share(cpus=1.0, gpus=0.0, device="cpu")),
            folder=folder,
            before={trial.id: BEFORE},
            max_failures=1,
            at_once=2,
            watchers=[notes],
            **more,
        )

    def test_rounds_go_on_from_each_others_whoever_dies(
        self, running: Capacity, tmp_path: Path
    ) -> None:
        class Stop(Exception):
            pass

        def stop(proposal: str, result: Mapping[str, Any]) -> None:
            if proposal.startswith("0003"):
                raise Stop

        setup, notes = dark_and_light(), Notes()
        build = Replicas(setup, die_at="0002-02", mark=str(tmp_path / "mark"))
        with pytest.raises(Stop):
            self.run(tmp_path, build, notes, answered=stop)
        assert [message.partition(" died")[0] for message in notes.messages] == [
            "aws seed 0 trial 0002-02"
        ]
        [outcome] = self.run(tmp_path, build, notes)
        alone = Ohl(0, OHL, TRAINING)
        carry_out(alone, Ohl.worker(setup, OHL, TRAINING, {}))
        assert read_policy(outcome.policy) == alone.policy()
        assert outcome.progress.metrics["reward"] == alone.metrics["reward"]

    def test_only_what_is_needed_survives_a_round(self, tmp_path: Path) -> None:
        class Needs:
            def needed(self) -> list[str]:
                return ["0001-01"]

        for name in ("0001-01", "0001-02", "0002-01"):
            file_of(tmp_path, name).touch()
        tidy(cast(TrialSearch, Needs()), tmp_path)
        assert [path.stem for path in tmp_path.iterdir()] == ["0001-01"]
