"""The display: live on a terminal, plain lines when piped, next to nothing when quiet."""

from __future__ import annotations

import io

import pytest
from _measured import ERROR
from rich.console import Console
from rich.text import Text

from raysearch.results import Display
from raysearch.results import _display as display_module
from raysearch.results._words import duration
from raysearch.trials import TrialInfo


def trial(number: int, stage: str = "search", epochs: int = 3) -> TrialInfo:
    policy = None if stage == "search" else "none"
    name = f"dada seed {number}"
    return TrialInfo(f"{stage}-{number}", "dada", stage, name, policy, number, epochs)


def trials(count: int, epochs: int = 3) -> list[TrialInfo]:
    return [trial(number, epochs=epochs) for number in range(count)]


def play(display: Display) -> None:
    display.planned(trials(2), 0)
    for each in trials(2):
        display.trial_started(each)
    for epoch in (1, 2, 3):
        for each in trials(2):
            display.trial_progress(each, epoch, {"val_loss": 1 / epoch})
    display.trial_finished(trial(0), None, {"val_loss": 0.25, "wall_seconds": 3.0})
    display.planned([trial(0, "evaluation")], 0)
    display.trial_finished(trial(1), "the loss [is] not finite", {})
    display.trial_started(trial(0, "evaluation"))
    display.trial_finished(trial(0, "evaluation"), None, {"test_error": 12.25})
    display.message("a remark")
    display.ended()
    display.close()


def plain(quiet: bool = False) -> tuple[Display, io.StringIO]:
    out = io.StringIO()
    return Display(Console(file=out, width=80), quiet, ERROR), out


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set."""
    now = [0.0]
    monkeypatch.setattr(display_module.time, "monotonic", lambda: now[0])
    return now


def test_piped_output_is_a_line_per_event_and_no_control_codes() -> None:
    display, out = plain()
    play(display)
    lines = out.getvalue().splitlines()
    assert lines[:-1] == [
        "planned: 2 searches",
        "1/2: dada seed 0: val loss 0.250, 3.0 s",
        "planned: 1 evaluation",
        "2/3: dada seed 1 failed: the loss [is] not finite",
        "3/3: dada seed 0: test error 12.25 %",
        "a remark",
    ]
    assert lines[-1].startswith("2 of 3 trials done, 1 failed in ")
    assert "\x1b" not in out.getvalue()


def test_quiet_shows_errors_and_warnings_only() -> None:
    display, out = plain(quiet=True)
    play(display)
    display.warning("MLflow does not answer")
    assert out.getvalue().splitlines() == [
        "2/3: dada seed 1 failed: the loss [is] not finite",
        "MLflow does not answer",
    ]


def test_long_lines_are_not_broken_when_piped() -> None:
    display, out = plain()
    display.message("word " * 60)
    assert len(out.getvalue().splitlines()) == 1


def test_progress_lines_are_at_most_one_in_ten_seconds(clock: list[float]) -> None:
    display, out = plain()
    display.planned(trials(4, 100), 0)
    display.trial_started(trial(0, epochs=100))
    for epoch in range(1, 61):
        clock[0] += 1.0
        display.trial_progress(trial(0, epochs=100), epoch, {"val_loss": 0.5})
    progress = [line for line in out.getvalue().splitlines() if "epoch" in line]
    assert len(progress) == 6
    # 1 s an epoch so far, 400 − 60 epochs to go, one trial at a time
    assert progress[-1].startswith("0/4 trials done, 1 running, epoch 60/100")
    assert progress[-1].endswith("val loss 0.500, about 5 min 40 s left")


def test_time_left_counts_only_what_was_trained_now(clock: list[float]) -> None:
    display, out = plain()
    display.planned(trials(3, 100), 1)
    display.trial_started(trial(0, epochs=100))
    for epoch in range(91, 96):  # restored from epoch 90
        clock[0] += 2.0
        display.trial_progress(trial(0, epochs=100), epoch, {})
    assert out.getvalue().splitlines()[0] == "planned: 3 searches, 1 of them done before"
    # 2 s an epoch; 5 epochs of this trial and 100 of another to go
    assert out.getvalue().rstrip().endswith("about 3 min 30 s left")


def test_time_left_knows_how_many_trials_run_at_once(clock: list[float]) -> None:
    display, _ = plain()
    many = trials(8, 10)
    display.planned(many, 0)
    for each in many[:4]:
        display.trial_started(each)
    clock[0] = 30.0  # workers take their time to start
    for epoch in range(1, 6):
        clock[0] += 2.0
        for each in many[:4]:
            display.trial_progress(each, epoch, {})
    # 5 epochs of these and 10 of the other four, 2 s each
    assert display_module._left(display._progress) == "about 30 s left"
    for each in many[:4]:
        display.trial_finished(each, None, {})
    assert display_module._left(display._progress) == "about 40 s left"  # 40 s a trial in all


def test_each_kind_of_trial_has_its_own_time(clock: list[float]) -> None:
    display, _ = plain()
    display.planned([*trials(2, 10), trial(0, "evaluation", 10)], 0)
    for kind, seconds in (("search", 3.0), ("evaluation", 1.0)):
        each = trial(0, kind, 10)
        display.trial_started(each)
        for epoch in range(1, 11):
            clock[0] += seconds
            display.trial_progress(each, epoch, {})
        display.trial_finished(each, None, {})
    assert display_module._left(display._progress) == "about 30 s left"


def test_a_terminal_sees_bars_for_some_trials_and_is_given_back() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, height=30)
    display = Display(console)
    many = trials(40, 20)
    display.planned(many, 0)
    for each in many[:12]:
        display.trial_started(each)
    for epoch in (4, 5):
        for each in many[:6]:
            display.trial_progress(each, epoch, {"val_loss": 0.4321})
    with console.capture() as capture:
        console.print(display._render())
    screen = capture.get()
    for words in ("0/40 trials done, 12 running", "val loss 0.432", "starting", "… and 4 more"):
        assert words in Text.from_ansi(screen).plain
    assert "left" in screen
    assert max(len(Text.from_ansi(line).plain) for line in screen.splitlines()) <= 80
    display.close()
    display.close()
    assert out.getvalue().count("\x1b[?25l") == out.getvalue().count("\x1b[?25h") == 1  # cursor


def test_names_are_not_markup() -> None:
    display, out = plain()
    info = TrialInfo("x", "dada", "evaluation", "[red]odd[/red] seed 0", "odd", 0, 1)
    display.planned([info], 0)
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
        (4 * 86400, "4 days"),
        (float("nan"), "unknown"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
