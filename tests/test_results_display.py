"""The display: live on a terminal, plain lines when piped, next to nothing when quiet."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from raysearch import console as console_module
from raysearch.console import Display, duration
from raysearch.tracking import Observer, TrialInfo


def trial(number: int, stage: str = "search") -> TrialInfo:
    policy = None if stage == "search" else "none"
    return TrialInfo(f"{stage}-{number}", stage, f"dada seed {number}", policy, number)


def play(display: Display, trials: int = 2, epochs: int = 3) -> None:
    display.stage_started("search", trials, epochs)
    for number in range(trials):
        display.trial_started(trial(number))
    for epoch in range(1, epochs + 1):
        for number in range(trials):
            display.trial_progress(trial(number), epoch, {"val_loss": 1 / epoch})
    for number in range(trials - 1):
        display.trial_finished(trial(number), None, {"val_loss": 0.25, "wall_seconds": 3.0})
    display.trial_finished(trial(trials - 1), "the loss [is] not finite", {})
    display.message("a remark")
    display.stage_finished("search")
    display.close()


def plain(quiet: bool = False) -> tuple[Display, io.StringIO]:
    out = io.StringIO()
    return Display(Console(file=out, width=80), quiet), out


def test_piped_output_is_a_line_per_event_and_no_control_codes() -> None:
    display, out = plain()
    assert isinstance(display, Observer)
    play(display)
    lines = out.getvalue().splitlines()
    assert lines[:5] == [
        "search: 2 trials of 3 epochs",
        "search 1/2: dada seed 0: val loss 0.250, 3.0 s",
        "search 2/2: dada seed 1 failed: the loss [is] not finite",
        "a remark",
        lines[4],
    ]
    assert lines[4].startswith("search: 1 of 2 done, 1 failed in ")
    assert len(lines) == 5
    assert "\x1b" not in out.getvalue()


def test_long_lines_are_not_broken_when_piped() -> None:
    display, out = plain()
    display.message("word " * 60)
    assert len(out.getvalue().splitlines()) == 1


def test_progress_lines_are_at_most_one_in_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now)
    display, out = plain()
    display.stage_started("search", 4, 100)
    display.trial_started(trial(0))
    for epoch in range(1, 61):
        now += 1.0
        display.trial_progress(trial(0), epoch, {"val_loss": 0.5})
    progress = [line for line in out.getvalue().splitlines() if "epoch" in line][1:]
    assert len(progress) == 6
    # 1 s an epoch so far, 400 − 60 epochs to go, one trial at a time
    assert progress[-1].startswith("search: 0/4 trials done, 1 running, epoch 60/100")
    assert progress[-1].endswith("val loss 0.500, about 5 min 40 s left")


def test_time_left_counts_only_what_was_trained_now(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now)
    display, out = plain()
    display.stage_started("search", 3, 100, resumed=1)
    display.trial_started(trial(0))
    for epoch in range(91, 96):  # restored from epoch 90
        now += 2.0
        display.trial_progress(trial(0), epoch, {})
    assert out.getvalue().splitlines()[0] == (
        "search: 3 trials of 100 epochs, 1 of them done before"
    )
    # 2 s an epoch; 5 epochs of this trial and 100 of another to go
    assert out.getvalue().rstrip().endswith("about 3 min 30 s left")


def test_time_left_knows_how_many_trials_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now)
    display, _ = plain()
    display.stage_started("search", 8, 10)
    for number in range(4):
        display.trial_started(trial(number))
    now = 30.0  # workers take their time to start
    for epoch in range(1, 6):
        now += 2.0
        for number in range(4):
            display.trial_progress(trial(number), epoch, {})
    assert display._stage is not None
    left = console_module._left(display._stage)
    assert left == "about 30 s left"  # 5 epochs of these and 10 of the other four, 2 s each
    for number in range(4):
        display.trial_finished(trial(number), None, {})
    assert console_module._left(display._stage) == "about 40 s left"  # 40 s a trial in all


def test_quiet_shows_errors_warnings_and_the_result_only(summary: dict[str, Any]) -> None:
    display, out = plain(quiet=True)
    play(display)
    display.warning("MLflow does not answer")
    display.result(summary)
    assert out.getvalue().splitlines() == [
        "search 2/2: dada seed 1 failed: the loss [is] not finite",
        "MLflow does not answer",
        "test error in %: no augmentation 4.00, learned policy 3.00 ± 0.50",
        "runs/demo/report.html",
    ]


@pytest.fixture
def summary() -> dict[str, Any]:
    return {
        "directory": str(Path("runs/demo")),
        "errors": {
            "learned": {"mean": 3.0, "std": 0.5, "runs": [2.5, 3.5]},
            "none": {"mean": 4.0, "std": None, "runs": [4.0]},
        },
    }


def test_a_terminal_sees_bars_for_some_trials_and_is_given_back() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, height=30)
    display = Display(console)
    display.stage_started("search", 40, 20)
    for number in range(12):
        display.trial_started(trial(number))
    for epoch in (4, 5):
        for number in range(6):
            display.trial_progress(trial(number), epoch, {"val_loss": 0.4321})
    with console.capture() as capture:
        console.print(display._render())
    screen = capture.get()
    assert "0/40 trials done, 12 running" in screen
    assert "val loss 0.432" in screen
    assert "starting" in screen
    assert "… and 4 more" in screen
    assert "left" in screen
    assert max(len(Text.from_ansi(line).plain) for line in screen.splitlines()) <= 80
    display.close()
    display.close()
    assert out.getvalue().count("\x1b[?25l") == out.getvalue().count("\x1b[?25h") == 1  # cursor


def test_a_search_that_trains_its_own_result_says_how_good_it_is() -> None:
    display, out = plain()
    display.stage_started("search", 1, 1)
    display.trial_finished(trial(0), None, {"val_loss": 0.25, "test_error": 4.06})
    assert "search 1/1: dada seed 0: test error 4.06 %" in out.getvalue()


def test_names_are_not_markup() -> None:
    display, out = plain()
    info = TrialInfo("x", "evaluation", "[red]odd[/red] seed 0", "odd", 0)
    display.stage_started("evaluation", 1, 1)
    display.trial_finished(info, None, {"test_error": 12.25})
    assert "[red]odd[/red] seed 0: test error 12.25 %" in out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.96, "10 s"),
        (59.7, "1 min 0 s"),
        (3599.6, "1 h 0 min"),
        (7325, "2 h 2 min"),
        (float("nan"), "unknown"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
