"""The result on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from raysearch.console import duration
from raysearch.report._statistics import levels
from raysearch.report._words import (
    UNITS,
    difference,
    guessing,
    idle,
    label,
    ordered,
    parameter,
    percent,
    phrase,
    short,
    times,
    unpaired,
    verdict,
)

STRONGEST = 8  # operations shown
BAR_WIDTH = 24


def result_table(summary: Mapping[str, Any]) -> RenderableType:
    """Search cost, test errors, what the policy does, and where everything lies.

    Args:
        summary: what `write_report` returned or `summary.json` holds.
    """
    parts: list[RenderableType] = [_cost(summary)] if summary["seeds"]["search"] else []
    if summary["errors"]:
        parts.append(_errors(summary))
        if summary["differences"] and summary["joint_differences"]:
            parts.append(_joint(summary))
        parts += [Text(text) for text in (*_verdicts(summary), *unpaired(summary))]
    policy = summary["policy"]
    parts += [_operations(policy)] if set(policy["operations"]) - {"Identity"} else []
    parts += [_parameters(policy)] if policy["parameters"] else []
    parts.append(_places(summary))
    return Group(*(piece for part in parts for piece in _spaced(part)))


def result_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """The result in two lines, for `--quiet`."""
    errors = summary["errors"]
    if errors:
        listed = ", ".join(f"{label(name)} {percent(errors[name])}" for name in ordered(errors))
        yield f"test error in %: {listed}"
    yield f"{summary['directory']}/report.html"


def _spaced(part: RenderableType) -> list[RenderableType]:
    """A table with an empty line before it; sentences follow on each other."""
    return [part] if isinstance(part, Text) else [Text(""), part]


def titled_table(title: str, caption: str = "") -> Table:
    """An empty table with a title and a note below it."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption=caption or None,
        caption_justify="left",
    )


def _cost(summary: Mapping[str, Any]) -> RenderableType:
    search = summary["search"]
    table = titled_table("Search cost")
    for heading in ("wall time", "device time", "epoch-equivalents"):
        table.add_column(heading, justify="right")
    table.add_row(
        duration(search["wall_seconds"]),
        duration(search["device_seconds"]),
        f"{search['epoch_equivalents']:.1f}",
    )
    return table


def _errors(summary: Mapping[str, Any]) -> RenderableType:
    errors, costs = summary["errors"], summary["relative_cost"]
    row, differences = _differences(summary)
    seeds = max(len(error["runs"]) for error in errors.values())
    table = titled_table(
        f"Test error in %, mean ± standard deviation over {seeds} seed{'s' if seeds != 1 else ''}",
        _caption(summary),
    )
    table.add_column("policy", overflow="fold")
    table.add_column("test error", justify="right", no_wrap=True)
    if costs:
        table.add_column("× plain\nepochs", justify="right", no_wrap=True)
        table.add_column("× plain\ntime", justify="right", no_wrap=True)
    if differences:
        table.add_column(f"{short(row)} − this\n[95 % interval]", justify="right", no_wrap=True)
    best = min(errors, key=lambda name: errors[name]["mean"])
    for name in ordered(errors):
        marked = name == best and len(errors) > 1
        count = len(errors[name]["runs"])
        partial = f" ({count}/{seeds})" if count != seeds else ""
        cells = [label(name) + partial + (" *" if marked else ""), percent(errors[name])]
        if costs:
            cells += [times(costs[name][cost]) for cost in ("epoch_equivalents", "device_seconds")]
        if differences:
            cells.append(difference(differences[name]) if name in differences else "")
        table.add_row(*(Text(cell) for cell in cells), style="bold" if marked else "")
    return table


def _caption(summary: Mapping[str, Any]) -> str:
    notes = ["* lowest mean"] if len(summary["errors"]) > 1 else []
    if summary["plain_training"] is not None:
        plain = phrase(summary["plain_training"])
        notes.append(f"× plain: search and training over one training with {plain}")
    return "\n".join(notes)


def _differences(summary: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Those of the run's policy, or of the joint network where only that was tested."""
    if summary["differences"] or not summary["joint_differences"]:
        return summary["row"], summary["differences"]
    return "joint", summary["joint_differences"]


def _joint(summary: Mapping[str, Any]) -> RenderableType:
    """The joint network's differences, beside a table that has the learned policy's."""
    table = titled_table("Jointly trained network, difference in points")
    table.add_column("compared with")
    table.add_column("joint − this [95 % interval]", justify="right")
    for name in ordered(summary["joint_differences"]):
        table.add_row(Text(label(name)), Text(difference(summary["joint_differences"][name])))
    return table


def _verdicts(summary: Mapping[str, Any]) -> Iterator[str]:
    """In words: against the best of the others, against TrivialAugment and the learned policy."""
    errors = summary["errors"]
    yield from guessing(list(errors.values()), summary["guess_error"], summary["images"])
    yield from idle(summary)
    for row, key in ((summary["row"], "differences"), ("joint", "joint_differences")):
        found = summary[key]
        if found:
            others = [name for name in found if name != "learned"] or ["learned"]
            best = min(others, key=lambda name: errors[name]["mean"])
            for name in dict.fromkeys([best, "trivial_augment", "learned"]):
                if name in found:
                    yield verdict(name, found[name], row)


def _operations(policy: Mapping[str, Any]) -> RenderableType:
    shares = policy["operations"]
    if len(set(shares.values())) == 1:  # then bars say nothing
        words = Table.grid()
        words.add_row(Text(f"  {policy['description']}", overflow="fold"))
        return _titled("Policy", words)
    strongest = sorted(shares.items(), key=lambda item: -item[1])[:STRONGEST]
    title = f"Strongest of {len(shares)} operations{_when(policy)}"
    table = Table.grid(padding=(0, 1))
    largest = max(share for _, share in strongest) or 1.0
    for name, share in strongest:
        bar = "█" * round(BAR_WIDTH * share / largest)
        table.add_row(f"  {name}", f"{100 * share:5.1f} %", Text(bar, style="blue"))
    uniform = " or ".join(f"{level:g}" for level in levels(policy["uniform"]))
    return _titled(f"{title} (uniform: {uniform} %)", table)


def _parameters(policy: Mapping[str, Any]) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    table.add_column()
    table.add_column(justify="right")
    for name, figures in policy["parameters"].items():
        unit = Text(UNITS.get(name, ""), style="dim")
        table.add_row(f"  {name}", parameter(figures, name), unit)
    over = "over all seeds and the whole training" if policy["phases"] > 1 else "over all seeds"
    return _titled(f"Parameters, mean ± standard deviation {over}", table)


def _when(policy: Mapping[str, Any]) -> str:
    """What the figures of a policy that changes are of."""
    return " over the training" if policy["phases"] > 1 else ""


def _titled(title: str, grid: Table) -> RenderableType:
    """A grid under a title, which may be wider than the grid."""
    return Group(Text(title, style="bold"), grid)


def _places(summary: Mapping[str, Any]) -> RenderableType:
    folder = summary["directory"]
    tested = summary["row"] in summary["errors"] or not summary["errors"]
    rows = [
        ("report", f"{folder}/report.html"),
        ("policy", f"{folder}/policy.json" + ("" if tested else "  (not evaluated in this run)")),
        *([("networks", f"{folder}/networks/")] if "joint" in summary["errors"] else []),
        ("figures", f"{folder}/summary.json"),
    ]
    tracking = summary.get("tracking")
    if tracking:
        rows.append(("MLflow", tracking["command"]))
    table = Table.grid(padding=(0, 2))
    for name, place in rows:
        table.add_row(Text(name, style="bold"), Text(place, overflow="fold"))
    return table
