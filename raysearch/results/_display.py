"""What a person sees while trials run: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import importlib.util
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean

from rich.console import Console, ConsoleRenderable, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from raysearch.results._progress import Progress
from raysearch.results._words import duration, plural, short, with_unit
from raysearch.tasks import Metric
from raysearch.trials import TrialInfo

MAX_ROWS = 8  # running trials shown at once
PROGRESS_SECONDS = 10.0  # between two plain progress lines
LOSSES = ("val_loss", "train_loss")
STAGES = {"shared": "shared training", "evaluation": "evaluation"}


class Display:
    """Shows trials on `console`; a `Watcher`.

    On a terminal and in a notebook with ipywidgets: how many trials are known, done, running and
    failed, a bar for each that runs, its loss and the time left, redrawn in place. Otherwise plain
    lines: one when trials become known, one when a trial ends, and in between at most one every ten
    seconds.

    Args:
        console: where to; it decides between the two forms.
        quiet: show only errors and warnings.
        metric: what tested trials are judged by; None where that is not known yet, and set later.
    """

    def __init__(self, console: Console, quiet: bool = False, metric: Metric | None = None) -> None:
        self.metric = metric
        self._console, self._quiet = console, quiet
        self._is_live = _can_redraw(console) and not quiet
        self._live: Live | None = None
        self._progress = Progress()
        self._last_line = 0.0
        self._lock = threading.RLock()  # Rich redraws in a thread of its own

    def planned(self, trials: Sequence[TrialInfo], done: int) -> None:
        """Say what is coming and, where it can be redrawn, open the live display."""
        with self._lock:
            new = self._progress.plan(trials, done)
            self._last_line = time.monotonic()
        if new:
            before = f", {done} of them done before" if done else ""
            self._say(f"planned: {_kinds(new)}{before}", style="bold")
        if self._is_live and self._live is None:
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
            self._progress.start(trial)

    def trial_progress(self, trial: TrialInfo, epoch: int, metrics: Mapping[str, float]) -> None:
        """Move the trial's bar, or print a line when the last one is ten seconds old."""
        with self._lock:
            self._progress.move(trial, epoch, metrics)
            line = self._progress_line()
        if not self._is_live and time.monotonic() - self._last_line >= PROGRESS_SECONDS:
            self._last_line = time.monotonic()
            self._say(line)

    def trial_finished(
        self, trial: TrialInfo, error: str | None, metrics: Mapping[str, float]
    ) -> None:
        """Count the trial; print a line about it, unless the live display shows enough."""
        with self._lock:
            row = self._progress.finish(trial, error is not None)
            state = self._progress
            count = f"{state.done + state.failed}/{len(state.known)}: "
        if error is not None:
            self._print(f"{count}{trial.name} failed: {error}", style="red")
        elif not self._is_live:
            self._last_line = time.monotonic()
            self._say(f"{count}{trial.name}: {self._outcome({**row.metrics, **metrics})}")

    def message(self, text: str) -> None:
        """Show a remark; nothing when quiet."""
        self._say(text)

    def warning(self, text: str) -> None:
        """Show something that went wrong without stopping the run; also when quiet."""
        self._print(text, style="yellow")

    def ended(self) -> None:
        """Close the live display and leave one line about the trials."""
        self.close()
        with self._lock:
            state, self._progress = self._progress, Progress()
        if state.known:
            failed = f", {state.failed} failed" if state.failed else ""
            seconds = duration(time.monotonic() - state.started_at)
            self._say(
                f"{state.done} of {plural(len(state.known), 'trial')} done{failed} in {seconds}"
            )

    def close(self) -> None:
        """Give the terminal back. May be called twice."""
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
            return Group(self._headline(), self._rows()) if self._progress.known else Text("")

    def _headline(self) -> ConsoleRenderable:
        state = self._progress
        line = Text.assemble(
            (f"{state.done}/{plural(len(state.known), 'trial')} done", "bold"),
            f", {len(state.running)} running",
        )
        if state.failed:
            line.append(f", {state.failed} failed", style="red")
        table = Table.grid(
            Column(no_wrap=True, overflow="ellipsis"),
            Column(justify="right", no_wrap=True),
            expand=True,
        )
        table.add_row(line, _left(state))
        return table

    def _rows(self) -> ConsoleRenderable:
        table = Table.grid(
            Column(max_width=28, no_wrap=True, overflow="ellipsis"),
            Column(width=20),
            Column(justify="right", no_wrap=True),
            Column(no_wrap=True),
            padding=(0, 1),
        )
        rows = list(self._progress.running.values())
        for row in rows[:MAX_ROWS]:
            total, epoch = row.trial.epochs, row.epoch or 0
            bar = ProgressBar(total=total, completed=epoch, width=20, pulse=row.epoch is None)
            loss = _loss(row.metrics) or "starting"
            table.add_row(Text(row.trial.name), bar, f"{epoch}/{total}", loss)
        if len(rows) > MAX_ROWS:
            table.add_row(f"[dim]… and {len(rows) - MAX_ROWS} more[/dim]", "", "", "")
        return table

    def _progress_line(self) -> str:
        """All running trials in one line: their mean epoch and mean loss."""
        state = self._progress
        rows = [row for row in state.running.values() if row.epoch is not None]
        epoch = fmean(row.epoch or 0 for row in rows)
        epochs = fmean(row.trial.epochs for row in rows)
        parts = [
            f"{state.done}/{plural(len(state.known), 'trial')} done",
            f"{len(state.running)} running",
            f"epoch {epoch:.0f}/{epochs:.0f}",
        ]
        losses = {name: [r.metrics[name] for r in rows if name in r.metrics] for name in LOSSES}
        loss = _loss({name: fmean(values) for name, values in losses.items() if values})
        return ", ".join(part for part in (*parts, loss, _left(state)) if part)

    def _outcome(self, metrics: Mapping[str, float]) -> str:
        """A finished trial in a few words."""
        seconds = duration(metrics["wall_seconds"]) if "wall_seconds" in metrics else ""
        parts = (self._tested(metrics) or _loss(metrics), seconds)
        return ", ".join(part for part in parts if part) or "done"

    def _tested(self, metrics: Mapping[str, float]) -> str:
        if self.metric is not None and (key := f"test_{self.metric.name}") in metrics:
            return f"{short(self.metric)} {with_unit(metrics[key], self.metric)}"
        known = [key for key in metrics if key.startswith("test_") and key != "test_loss"]
        return f"{known[0].replace('_', ' ')} {metrics[known[0]]:.4g}" if known else ""


def _can_redraw(console: Console) -> bool:
    if console.is_jupyter:
        return importlib.util.find_spec("ipywidgets") is not None
    return console.is_terminal and not console.is_dumb_terminal


def _kinds(trials: Sequence[TrialInfo]) -> str:
    """Trials counted by what they are: "2 searches, 20 evaluations"."""
    counts = Counter(trial.stage for trial in trials)
    searches = counts.pop("search", 0)
    parts = [f"{searches} search{'es' if searches != 1 else ''}"] if searches else []
    parts += [plural(count, STAGES[stage]) for stage, count in counts.items()]
    return ", ".join(parts)


def _left(state: Progress) -> str:
    seconds = state.seconds_left()
    return "" if seconds is None else f"about {duration(seconds)} left"


def _loss(metrics: Mapping[str, float]) -> str:
    """The validation loss, or the training loss where nothing is validated."""
    for name in LOSSES:
        if name in metrics:
            return f"{name.replace('_', ' ')} {metrics[name]:.3f}"
    return ""
