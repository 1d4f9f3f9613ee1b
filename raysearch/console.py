"""What a person sees while a run goes on: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from rich.console import Console, ConsoleRenderable, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from raysearch.tracking import TrialInfo

MAX_ROWS = 8  # running trials shown at once
PROGRESS_SECONDS = 10.0  # between two plain progress lines
LOSSES = ("val_loss", "train_loss")


@dataclass
class _StageState:
    """What has happened in the current stage."""

    name: str
    trials: int
    epochs: int
    finished: int
    started_at: float
    failed: int = 0
    width: int = 1  # most trials that have run at once
    running: dict[str, _Row] = field(default_factory=dict)
    epoch_seconds: list[float] = field(default_factory=list)
    trial_seconds: list[float] = field(default_factory=list)


@dataclass
class _Row:
    """A running trial."""

    name: str
    epochs: int
    started_at: float
    epoch: int | None = None
    reported_at: float = 0.0
    is_whole: bool = True  # trained from its first epoch on, not restored
    metrics: dict[str, float] = field(default_factory=dict)


class Display:
    """Shows a run on `console`; an `Observer`.

    On a terminal: stage, trials done, running and failed, a bar per running trial, its loss and
    the time left, redrawn in place. Otherwise plain lines: one when a stage starts, one when a
    trial ends, and in between at most one every ten seconds.

    Args:
        console: where to; its `is_terminal` decides between the two forms.
        quiet: show only errors, warnings and the result.
    """

    def __init__(self, console: Console, quiet: bool = False) -> None:
        self._console, self._quiet = console, quiet
        self._is_live = console.is_terminal and not console.is_dumb_terminal and not quiet
        self._live: Live | None = None
        self._stage: _StageState | None = None
        self._last_line = 0.0
        self._lock = threading.RLock()  # Rich redraws in a thread of its own

    def stage_started(self, stage: str, trials: int, epochs: int, resumed: int = 0) -> None:
        """Say what is coming and, on a terminal, open the live display."""
        with self._lock:
            now = time.monotonic()
            self._stage = _StageState(stage, trials, epochs, resumed, now)
            self._last_line = now
        done = f", {resumed} of them done before" if resumed else ""
        plural = "s" if trials != 1 else ""
        self._say(f"{stage}: {trials} trial{plural} of {epochs} epochs{done}", style="bold")
        if self._is_live:
            self._close_live()
            self._live = Live(
                get_renderable=self._render,
                console=self._console,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def trial_started(self, trial: TrialInfo) -> None:
        """Add the trial to those that run."""
        with self._lock:
            if self._stage is not None:
                epochs = trial.epochs or self._stage.epochs
                self._stage.running[trial.id] = _Row(trial.name, epochs, time.monotonic())
                self._stage.width = max(self._stage.width, len(self._stage.running))

    def trial_progress(self, trial: TrialInfo, epoch: int, metrics: Mapping[str, float]) -> None:
        """Move the trial's bar, or print a line when the last one is ten seconds old."""
        with self._lock:
            stage = self._stage
            if stage is None:
                return
            now = time.monotonic()
            row = stage.running.setdefault(
                trial.id, _Row(trial.name, trial.epochs or stage.epochs, now)
            )
            if row.epoch is None:
                row.is_whole = epoch == 1
            elif epoch > row.epoch:
                stage.epoch_seconds.append((now - row.reported_at) / (epoch - row.epoch))
            row.epoch, row.reported_at, row.metrics = epoch, now, dict(metrics)
            line = self._progress_line(stage)
        if not self._is_live and time.monotonic() - self._last_line >= PROGRESS_SECONDS:
            self._last_line = time.monotonic()
            self._say(line)

    def trial_finished(
        self, trial: TrialInfo, error: str | None, metrics: Mapping[str, float]
    ) -> None:
        """Count the trial; print a line about it, unless the live display shows enough."""
        with self._lock:
            stage = self._stage
            row = stage.running.pop(trial.id, None) if stage is not None else None
            if stage is not None:
                if error is None and row is not None and row.is_whole:
                    stage.trial_seconds.append(time.monotonic() - row.started_at)
                stage.finished += error is None
                stage.failed += error is not None
                count = f"{stage.name} {stage.finished + stage.failed}/{stage.trials}: "
            else:
                count = ""
        if error is not None:
            self._print(f"{count}{trial.name} failed: {error}", style="red")
        elif not self._is_live:
            known = {**(row.metrics if row is not None else {}), **metrics}
            self._last_line = time.monotonic()
            self._say(f"{count}{trial.name}: {_outcome(known)}")

    def message(self, text: str) -> None:
        """Show a remark; nothing when quiet."""
        self._say(text)

    def warning(self, text: str) -> None:
        """Show something that went wrong without stopping the run; also when quiet."""
        self._print(text, style="yellow")

    def stage_finished(self, stage: str) -> None:
        """Close the live display and leave one line about the stage."""
        self._close_live()
        with self._lock:
            state, self._stage = self._stage, None
        if state is not None:
            failed = f", {state.failed} failed" if state.failed else ""
            seconds = duration(time.monotonic() - state.started_at)
            self._say(f"{stage}: {state.finished} of {state.trials} done{failed} in {seconds}")

    def result(self, summary: Mapping[str, Any]) -> None:
        """Print the result table; when quiet, its two lines that matter."""
        from raysearch.report import result_lines, result_table

        if self._quiet:
            for line in result_lines(summary):
                self._print(line)
        else:
            self._console.print(result_table(summary))

    def close(self) -> None:
        """Give the terminal back. May be called twice."""
        self._close_live()

    def _close_live(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _say(self, text: str, style: str = "") -> None:
        if not self._quiet:
            self._print(text, style)

    def _print(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style=style), highlight=False, soft_wrap=True)

    def _render(self) -> ConsoleRenderable:
        with self._lock:
            stage = self._stage
            if stage is None:
                return Text("")
            return Group(self._headline(stage), self._rows(stage))

    def _headline(self, stage: _StageState) -> ConsoleRenderable:
        counts = f"{stage.finished}/{stage.trials} trials done, {len(stage.running)} running"
        failed = f", [red]{stage.failed} failed[/red]" if stage.failed else ""
        line = Table.grid(expand=True)
        line.add_column(no_wrap=True, overflow="ellipsis")
        line.add_column(justify="right", no_wrap=True)
        line.add_row(f"[bold]{escape(stage.name)}[/bold]  {counts}{failed}", _left(stage))
        return line

    def _rows(self, stage: _StageState) -> ConsoleRenderable:
        table = Table.grid(padding=(0, 1))
        table.add_column(max_width=28, no_wrap=True, overflow="ellipsis")
        table.add_column(width=20)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True)
        rows = list(stage.running.values())
        for row in rows[:MAX_ROWS]:
            epoch = row.epoch or 0
            bar = ProgressBar(total=row.epochs, completed=epoch, width=20, pulse=row.epoch is None)
            loss = _loss(row.metrics) or "starting"
            table.add_row(Text(row.name), bar, f"{epoch}/{row.epochs}", loss)
        if len(rows) > MAX_ROWS:
            table.add_row(f"[dim]… and {len(rows) - MAX_ROWS} more[/dim]", "", "", "")
        return table

    def _progress_line(self, stage: _StageState) -> str:
        """All running trials in one line: their mean epoch and mean loss."""
        rows = [row for row in stage.running.values() if row.epoch is not None]
        epoch = fmean(row.epoch or 0 for row in rows)
        epochs = fmean(row.epochs for row in rows)
        parts = [
            f"{stage.name}: {stage.finished}/{stage.trials} trials done",
            f"{len(stage.running)} running",
            f"epoch {epoch:.0f}/{epochs:.0f}",
        ]
        for name in LOSSES:
            values = [row.metrics[name] for row in rows if name in row.metrics]
            if values:
                parts.append(_loss({name: sum(values) / len(values)}))
                break
        return ", ".join(part for part in (*parts, _left(stage)) if part)


def duration(seconds: float) -> str:
    """A length of time for people.

    >>> duration(3.21), duration(75), duration(7260)
    ('3.2 s', '1 min 15 s', '2 h 1 min')
    """
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def _left(stage: _StageState) -> str:
    """Time left in the stage, from the trials so far or, before one has ended, the epochs."""
    waiting = stage.trials - stage.finished - stage.failed - len(stage.running)
    rows = list(stage.running.values())
    if stage.trial_seconds:
        whole, now = fmean(stage.trial_seconds), time.monotonic()
        rest = [max(0.0, whole - (now - row.started_at)) for row in rows]
    elif stage.epoch_seconds:
        each = fmean(stage.epoch_seconds)
        whole = each * stage.epochs
        rest = [each * (row.epochs - (row.epoch or 0)) for row in rows]
    else:
        return ""
    seconds = (sum(rest) + max(0, waiting) * whole) / stage.width
    return f"about {duration(max(seconds, *rest, 0.0))} left"


def _loss(metrics: Mapping[str, float]) -> str:
    """The validation loss, or the training loss where nothing is validated."""
    for name in LOSSES:
        if name in metrics:
            return f"{name.replace('_', ' ')} {metrics[name]:.3f}"
    return ""


def _outcome(metrics: Mapping[str, float]) -> str:
    """A finished trial in a few words."""
    parts = [f"test error {metrics['test_error']:.2f} %"] if "test_error" in metrics else []
    loss = _loss(metrics)
    if loss and not parts:
        parts.append(loss)
    if "wall_seconds" in metrics:
        parts.append(duration(metrics["wall_seconds"]))
    return ", ".join(parts) or "done"
