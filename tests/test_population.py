"""Populations on Ray's scheduler: who copies whom, processes that die, drivers that stop."""

from __future__ import annotations

import copy
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import cloudpickle
from torch import Tensor

from raysearch.errors import NonFiniteLossError
from raysearch.methods import Levels
from raysearch.policy import RandomOrder, Schedule
from raysearch.tune import Capacity, MembersJob, Share, TrialError, Wish, cluster, run_populations
from raysearch.tune._pbt import POPULATIONS

SIZE, EPOCHS, INTERVAL = 6, 8, 3


@pytest.fixture(scope="module", autouse=True)
def _by_value() -> Iterator[None]:
    """Ray's workers cannot import test modules."""
    module = __import__(__name__)
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture(scope="module")
def running() -> Iterator[Capacity]:
    """Ray with two CPUs."""
    with cluster(Wish(device="cpu", cpus=2)) as capacity:
        yield capacity


@dataclass(frozen=True)
class Rules:
    """A population whose policies are one number that grows when it is explored."""

    seed: int = 0
    size: int = SIZE
    epochs: int = EPOCHS
    interval: int = INTERVAL
    quantile: float = 0.34  # 3 of 6

    def start(self, member: int) -> Levels:
        return [[member], [0]]

    def choose(self, best: list[int], member: int, epoch: int) -> int:
        return best[(self.seed + epoch + member) % len(best)]

    def explore(self, policy: Levels, member: int, epoch: int) -> Levels:
        return [[(policy[0][0] + member + epoch) % 101], [member]]


class Fake:
    """A member whose weight goes with its policies in a way that no two orders share."""

    def __init__(self, seed: int, member: int, act: Callable[[int, int], None]) -> None:
        self.epochs, self.epoch, self.interval = EPOCHS, 0, INTERVAL
        self.member, self.act = member, act
        self.weight = 7 * seed + member
        self.lineage: list[int] = []

    def follow(self, policy: Levels) -> None:
        self.number = policy[0][0]

    def step(self) -> dict[str, float]:
        self.epoch += 1
        self.act(self.member, self.epoch)
        self.weight = (31 * self.weight + 17 * self.number + self.epoch + self.member) % 1009
        self.lineage.append(self.number)
        row = {
            "train_loss": self.weight / 1009,
            "lr": 0.1,
            "epoch_equivalents": 1.5 * self.epoch,
            "number": self.number,
        }
        if self.epoch % INTERVAL == 0 or self.epoch == EPOCHS:
            score = self.weight % 5  # with ties
            row |= {"score": score, "val_loss": -score, "val_error": 100.0 - score}
        return row

    def policy(self) -> Schedule:
        phases = [torch.tensor([number / 100]) for number in self.lineage]
        return Schedule([RandomOrder(["Rotate"], p, p) for p in phases])

    def state_dict(self) -> dict[str, Any]:
        lineage: Tensor = torch.tensor(self.lineage)
        return {"epoch": self.epoch, "weight": self.weight, "lineage": lineage}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epoch, self.weight = state["epoch"], state["weight"]
        self.lineage = state["lineage"].tolist()


@dataclass(frozen=True)
class Build:
    """Makes fake members, which note down what they do; one may die, once or always."""

    notes: Path
    die_at: tuple[int, int] = (-1, -1)
    once: bool = True
    wrong: bool = False
    seconds: float = 0.0

    def __call__(self, seed: int, member: int) -> Fake:
        def act(member: int, epoch: int) -> None:
            time.sleep(self.seconds)
            if self.wrong:
                raise NonFiniteLossError("training", 1, 2)
            mark = self.notes / "died"
            if (member, epoch) == self.die_at and not (self.once and mark.exists()):
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            with (self.notes / f"{os.getpid()}.txt").open("a") as file:
                file.write(f"{seed} {member} {epoch}\n")

        return Fake(seed, member, act)

    def pids(self) -> set[int]:
        return {int(path.stem) for path in self.notes.glob("*.txt")}

    def steps(self) -> list[str]:
        return sorted(
            line for path in self.notes.glob("*.txt") for line in path.read_text().splitlines()
        )


@dataclass(frozen=True)
class Trial:
    """A search as stages know it."""

    seed: int = 0
    policy: str | None = None

    @property
    def id(self) -> str:
        return f"search-seed-{self.seed}"

    @property
    def name(self) -> str:
        return f"pba seed {self.seed}"


@dataclass
class Notes:
    """Writes down what it is told; may do something after an epoch."""

    after: Callable[[int], None] = lambda epoch: None
    epochs: list[tuple[int, int]] = field(default_factory=list)
    finished: list[str | None] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    resumed: int = -1

    def stage_started(self, stage: str, trials: int, epochs: int, resumed: int = 0) -> None:
        self.resumed = resumed

    def trial_started(self, trial: Trial) -> None: ...

    def trial_progress(self, trial: Trial, epoch: int, metrics: Mapping[str, float]) -> None:
        self.epochs.append((trial.seed, epoch))
        self.after(epoch)

    def trial_finished(self, trial: Trial, error: str | None, metrics: Mapping[str, float]) -> None:
        self.finished.append(error)

    def message(self, text: str) -> None:
        self.messages.append(text)

    def stage_finished(self, stage: str) -> None: ...


def search(
    folder: Path, build: Build, notes: Notes | None = None, *, at_once: int = 2, seeds: int = 1
) -> Any:
    """A stage of populations."""
    trials = [Trial(seed) for seed in range(seeds)]
    return run_populations(
        "search",
        {trial.id: Rules(trial.seed) for trial in trials},
        trials,
        MembersJob(build, Share(cpus=1.0, gpus=0.0, device="cpu")),  # type: ignore[arg-type]
        folder=folder,
        max_failures=2,
        at_once=at_once,
        watchers=[notes or Notes()],
    )


def expected(seed: int = 0) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """The policy and the history, by the algorithm written down once more, in this process."""
    rules = Rules(seed)
    members = [Fake(seed, i, lambda member, epoch: None) for i in range(SIZE)]
    policies = [rules.start(i) for i in range(SIZE)]
    history: list[dict[str, float]] = []
    for epoch in range(1, EPOCHS + 1):
        rows = []
        for member, policy in zip(members, policies, strict=True):
            member.follow(policy)
            rows.append(member.step())
        history.append(rows)  # type: ignore[arg-type]
        if "score" not in rows[0]:
            continue
        best = max(range(SIZE), key=lambda i: (rows[i]["score"], i))
        found = {key: rows[best][key] for key in ("score", "val_loss", "val_error")}
        for i, several in enumerate(history):
            if isinstance(several, list):
                total = sum(row["epoch_equivalents"] for row in several)
                history[i] = {**several[best], **found, "epoch_equivalents": total}
        if epoch == EPOCHS:
            return members[best].policy().to_json(), history
        order = sorted(range(SIZE), key=lambda i: (rows[i]["score"], i))
        old = copy.deepcopy(members)
        old_policies = list(policies)
        for i in order[:3]:
            parent = rules.choose(order[-3:], i, epoch)
            members[i].load_state_dict(old[parent].state_dict())
            policies[i] = rules.explore(old_policies[parent], i, epoch)
    raise AssertionError


def policy_of(outcome: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(outcome.policy.read_text())
    return document


def history_of(outcome: Any) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k != "epoch"} for row in outcome.progress.history]


@pytest.mark.parametrize("at_once", [1, 2])
def test_the_worst_copy_weights_and_policy_of_the_best_and_explore(
    running: Capacity, tmp_path: Path, at_once: int
) -> None:
    notes, build = Notes(), Build(tmp_path, seconds=0.05)
    [outcome] = search(tmp_path, build, notes, at_once=at_once)
    policy, history = expected()
    assert policy_of(outcome) == policy
    assert history_of(outcome) == history
    assert [row["epoch"] for row in outcome.progress.history] == list(range(1, EPOCHS + 1))
    assert outcome.progress.metrics["epoch_equivalents"] == SIZE * EPOCHS * 1.5
    assert notes.epochs == [(0, epoch) for epoch in range(1, EPOCHS + 1)]
    assert notes.finished == [None]
    assert len(build.steps()) == SIZE * EPOCHS
    assert len(build.pids()) == at_once  # processes are kept
    progress = outcome.progress
    assert progress.device_seconds == pytest.approx(SIZE * EPOCHS * 0.05, rel=0.5)
    kept = {path.name for path in tmp_path.glob(f"{POPULATIONS}/*/*/epoch-*")}
    assert kept == {"epoch-00006"}  # what the state before the last one names


@pytest.mark.slow
def test_seeds_have_populations_of_their_own(running: Capacity, tmp_path: Path) -> None:
    notes = Notes()
    outcomes = search(tmp_path, Build(tmp_path), notes, seeds=2)
    for seed, outcome in enumerate(outcomes):
        assert (policy_of(outcome), history_of(outcome)) == expected(seed)
    assert notes.finished == [None, None]


@pytest.mark.parametrize(
    "epoch", [5, pytest.param(1, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow)]
)
def test_a_killed_member_goes_on_from_the_last_synchronisation(
    running: Capacity, tmp_path: Path, epoch: int
) -> None:
    notes, build = Notes(), Build(tmp_path, die_at=(4, epoch))
    [outcome] = search(tmp_path, build, notes)
    assert (policy_of(outcome), history_of(outcome)) == expected()
    [message] = notes.messages
    assert message.startswith("pba seed 0 member 5 died (its worker process ended unexpectedly)")
    since = INTERVAL * ((epoch - 1) // INTERVAL)
    assert message.endswith(f"the population goes on from epoch {since} (retry 1 of 2)")
    # members that had ended the interval did not train it again
    again = len(build.steps()) - SIZE * EPOCHS
    assert again <= 2 * INTERVAL


@pytest.mark.slow
def test_a_kept_process_that_died_idle_costs_a_retry(running: Capacity, tmp_path: Path) -> None:
    build = Build(tmp_path, seconds=0.05)

    def kill_idle(epoch: int) -> None:
        if epoch == 2 * INTERVAL:
            os.kill(min(build.pids()), signal.SIGKILL)

    notes = Notes(kill_idle)
    [outcome] = search(tmp_path, build, notes)
    assert (policy_of(outcome), history_of(outcome)) == expected()
    assert len(notes.messages) == 1


@pytest.mark.slow
def test_a_member_that_dies_too_often_ends_the_search(running: Capacity, tmp_path: Path) -> None:
    notes = Notes()
    with pytest.raises(TrialError, match="member 2 failed after 2 retries") as error:
        search(tmp_path, Build(tmp_path, die_at=(1, 2), once=False), notes)
    assert not error.value.expected
    assert len(notes.finished) == 1


def test_a_loss_that_is_not_finite_ends_the_search_in_one_line(
    running: Capacity, tmp_path: Path
) -> None:
    with pytest.raises(TrialError, match=r"pba seed 0 member \d failed: training: the loss") as e:
        search(tmp_path, Build(tmp_path, wrong=True))
    assert e.value.expected
    assert "\n" not in str(e.value)


def stopped_half_way(folder: Path) -> Build:
    """A search whose driver stops after the second synchronisation; what its members did."""

    class Stop(Exception):
        pass

    def stop(epoch: int) -> None:
        if epoch == 2 * INTERVAL:
            raise Stop

    build = Build(folder)
    with pytest.raises(Stop):
        search(folder, build, Notes(stop))
    return build


def test_a_stopped_driver_goes_on_from_the_last_synchronisation(
    running: Capacity, tmp_path: Path
) -> None:
    build = stopped_half_way(tmp_path)
    assert len(build.steps()) == SIZE * 2 * INTERVAL
    kept = sorted(tmp_path.glob(f"{POPULATIONS}/*/*/epoch-*"))
    # of those from which members go on, and of those from which they went on before
    assert {path.name for path in kept} == {"epoch-00003", "epoch-00006"}
    [outcome] = search(tmp_path, build)
    assert (policy_of(outcome), history_of(outcome)) == expected()
    assert len(build.steps()) == SIZE * EPOCHS
    notes = Notes()
    [once_more] = search(tmp_path, Build(tmp_path, wrong=True), notes)  # nothing is left to run
    assert notes.resumed == 1
    assert once_more.progress == outcome.progress
    assert policy_of(once_more) == policy_of(outcome)


@pytest.mark.slow
def test_of_a_damaged_state_the_one_before_is_used_and_this_is_said(
    running: Capacity, tmp_path: Path
) -> None:
    build = stopped_half_way(tmp_path)
    [state] = tmp_path.glob(f"{POPULATIONS}/*/state.pt")
    os.truncate(state, 100)
    notes = Notes()
    [outcome] = search(tmp_path, build, notes)
    assert (policy_of(outcome), history_of(outcome)) == expected()
    assert len(build.steps()) == SIZE * (EPOCHS + INTERVAL)
    [message] = notes.messages
    assert message.endswith("state.pt is damaged; it goes on from the synchronisation before")


@pytest.mark.slow
def test_more_room_than_members(running: Capacity, tmp_path: Path) -> None:
    """Sixteen halves of a CPU would fit."""
    build = Build(tmp_path)
    [outcome] = run_populations(
        "search",
        {"search-seed-0": Rules()},
        [Trial()],
        MembersJob(build, Share(cpus=0.125, gpus=0.0, device="cpu")),  # type: ignore[arg-type]
        folder=tmp_path,
        max_failures=0,
        at_once=16,
    )
    assert (policy_of(outcome), history_of(outcome)) == expected()
    assert len(build.pids()) <= SIZE
