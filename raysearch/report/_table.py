"""The result on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from raysearch.console import duration
from raysearch.report._words import interval, label, percent, signed, verdict

STRONGEST = 8  # operations shown
BAR_WIDTH = 24
ORDER = ("none", "predefined", "trivial_augment", "uniform")


def result_table(summary: Mapping[str, Any]) -> RenderableType:
    """Search cost, test errors, strongest operations, and where everything lies.

    Args:
        summary: what `write_report` returned or `summary.json` holds.
    """
    parts: list[RenderableType] = [Text(""), _cost(summary)]
    if summary["errors"]:
        parts += [Text(""), _errors(summary), *_verdicts(summary)]
    parts += [Text(""), _operations(summary), Text(""), _places(summary)]
    return Group(*parts)


def result_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """The result in two lines, for `--quiet`."""
    errors = summary["errors"]
    if errors:
        listed = ", ".join(f"{label(name)} {percent(errors[name])}" for name in ordered(errors))
        yield f"test error in %: {listed}"
    yield f"{summary['directory']}/report.html"


def ordered(names: Mapping[str, Any]) -> list[str]:
    """Policy names as they are listed: baselines, others, the learned one."""
    known = [name for name in ORDER if name in names]
    others = [name for name in names if name not in (*ORDER, "learned")]
    return [*known, *others, *(["learned"] if "learned" in names else [])]


def _cost(summary: Mapping[str, Any]) -> RenderableType:
    search = summary["search"]
    table = Table(title="Search cost", title_justify="left", title_style="bold")
    for heading in ("wall time", "device time", "epoch-equivalents"):
        table.add_column(heading, justify="right")
    table.add_row(
        duration(search["wall_seconds"]),
        duration(search["device_seconds"]),
        f"{search['epoch_equivalents']:.1f}",
    )
    return table


def _errors(summary: Mapping[str, Any]) -> RenderableType:
    errors, differences = summary["errors"], summary["differences"]
    seeds = max(len(error["runs"]) for error in errors.values())
    table = Table(
        title=f"Test error in %, mean ± standard deviation over {seeds} "
        f"seed{'s' if seeds != 1 else ''}",
        title_justify="left",
        title_style="bold",
        caption="* lowest mean" if len(errors) > 1 else None,
        caption_justify="left",
    )
    table.add_column("policy", no_wrap=True)
    table.add_column("test error", justify="right", no_wrap=True)
    if differences:
        table.add_column("learned − this", justify="right", no_wrap=True)
        table.add_column("95 % interval", no_wrap=True)
    best = min(errors, key=lambda name: errors[name]["mean"])
    for name in ordered(errors):
        marked = name == best and len(errors) > 1
        count = len(errors[name]["runs"])
        partial = f" ({count} of {seeds})" if count != seeds else ""
        row = [label(name) + partial + (" *" if marked else ""), percent(errors[name])]
        if differences:
            difference = differences.get(name)
            row += [signed(difference["mean"]), interval(difference)] if difference else ["", ""]
        table.add_row(*(Text(cell) for cell in row), style="bold" if marked else "")
    return table


def _verdicts(summary: Mapping[str, Any]) -> list[RenderableType]:
    """In words: against the best baseline, and against TrivialAugment."""
    errors, differences = summary["errors"], summary["differences"]
    if not differences:
        return []
    best = min(differences, key=lambda name: errors[name]["mean"])
    names = dict.fromkeys([best, *({"trivial_augment"} & differences.keys())])
    return [Text(verdict(name, differences[name])) for name in names]


def _operations(summary: Mapping[str, Any]) -> RenderableType:
    shares = summary["policy"]["operations"]
    strongest = sorted(shares.items(), key=lambda item: -item[1])[:STRONGEST]
    table = Table.grid(padding=(0, 1))
    table.title = f"Strongest of {len(shares)} operations (uniform: {100 / len(shares):.1f} %)"
    table.title_justify, table.title_style = "left", "bold"
    largest = max((share for _, share in strongest), default=0.0) or 1.0
    for name, share in strongest:
        bar = "█" * round(BAR_WIDTH * share / largest)
        table.add_row(f"  {name}", f"{100 * share:5.1f} %", Text(bar, style="blue"))
    return table


def _places(summary: Mapping[str, Any]) -> RenderableType:
    folder = summary["directory"]
    rows = [
        ("report", f"{folder}/report.html"),
        ("policy", f"{folder}/policy.json"),
        ("figures", f"{folder}/summary.json"),
    ]
    tracking = summary.get("tracking")
    if tracking:
        rows.append(("MLflow", tracking["command"]))
    table = Table.grid(padding=(0, 2))
    for name, place in rows:
        table.add_row(Text(name, style="bold"), Text(place, overflow="fold"))
    return table
