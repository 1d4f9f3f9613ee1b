"""The result on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from raysearch.results._frame import Measured
from raysearch.results._statements import (
    applies_nothing,
    best,
    metric_of,
    references,
    searched,
    several,
    statements,
)
from raysearch.results._statistics import levels
from raysearch.results._summary import summarise
from raysearch.results._words import (
    UNITS,
    difference,
    duration,
    heading,
    method_label,
    parameter,
    phrase,
    plural,
    short,
    times,
    value,
)

STRONGEST = 8  # operations shown of the only policy
STRONGEST_OF_SEVERAL = 4  # and of each of several
BAR_WIDTH = 24


def show(console: Console, result: Mapping[str, Any] | Measured, quiet: bool = False) -> None:
    """Print an experiment's result: its table, or two lines when `quiet`.

    Args:
        console: where to.
        result: what was measured, or its summary as `summary.json` holds it.
        quiet: print the rows in one line, and where the page is.
    """
    summary = summarise(result) if isinstance(result, Measured) else result
    if not quiet:
        console.print(result_table(summary))
        return
    for line in result_lines(summary):
        console.print(Text(line), soft_wrap=True, highlight=False)


def result_table(summary: Mapping[str, Any]) -> RenderableType:
    """Costs, the metric, what it says, what the policies do, and where everything lies."""
    parts: list[RenderableType] = []
    if summary["seeds"]["search"]:
        parts.append(_search_cost(summary))
    if summary["rows"]:
        parts.append(_rows(summary))
        parts += [_differences(summary)] if references(summary) else []
        parts += [Text(line) for line in statements(summary, brief=True)]
    methods = summary["methods"]
    if several(summary):
        parts += [_policies(summary)] if any(map(_has_operations, methods.values())) else []
    else:
        for method in methods.values():
            policy = method["policy"]
            parts += [_operations(policy)] if _has_operations(method) else []
            parts += [_parameters(policy)] if policy["parameters"] else []
    parts.append(_places(summary))
    return Group(*(piece for part in parts for piece in _spaced(part)))


def result_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """The result in two lines, for `--quiet`."""
    metric, rows, errors = metric_of(summary), summary["rows"], summary["errors"]
    if rows:
        listed = ", ".join(f"{row['label']} {value(errors[n], metric)}" for n, row in rows.items())
        yield f"{heading(metric)}: {listed}"
    yield f"{summary['directory']}/report.html"


def _spaced(part: RenderableType) -> list[RenderableType]:
    """A table with an empty line before it; sentences follow on each other."""
    return [part] if isinstance(part, Text) else [Text(""), part]


def _titled_table(title: str, caption: str = "") -> Table:
    """An empty table with a title and a note below it."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption=caption or None,
        caption_justify="left",
    )


def _search_cost(summary: Mapping[str, Any]) -> RenderableType:
    """What each method's searches cost."""
    table = _titled_table("Search cost")
    methods = {name: each for name, each in summary["methods"].items() if each["searches"]}
    if several(summary):
        table.add_column("method", overflow="fold")
    for column in ("wall time", "device time", "epoch-equivalents"):
        table.add_column(column, justify="right")
    for name, method in methods.items():
        cost = method["search"]
        cells = [duration(cost["wall_seconds"]), duration(cost["device_seconds"])]
        cells.append(f"{cost['epoch_equivalents']:.1f}")
        table.add_row(*([method_label(name)] if several(summary) else []), *cells)
    return table


def _rows(summary: Mapping[str, Any]) -> RenderableType:
    """The metric and the cost of every row."""
    metric, rows, errors = metric_of(summary), summary["rows"], summary["errors"]
    seeds = max(len(error["runs"]) + len(error["failed"]) for error in errors.values())
    top = best(list(rows), summary)
    costs = summary["plain_training"] is not None
    table = _titled_table(_capital(heading(metric)), _caption(summary, seeds))
    table.add_column("policy", overflow="fold")
    table.add_column(short(metric), justify="right", no_wrap=True)
    if costs:
        table.add_column("× plain\nepochs", justify="right", no_wrap=True)
        table.add_column("× plain\ntime", justify="right", no_wrap=True)
    for name, row in rows.items():
        count = len(errors[name]["runs"])
        partial = f" ({count}/{seeds})" if count != seeds else ""
        front = " *" if row["on_front"] and len(rows) > 1 else ""
        cells = [row["label"] + partial + front, value(errors[name], metric)]
        if costs:
            cells += [times(row["total_trainings"]), times(row["total_time"])]
        bold = name == top and len(rows) > 1
        table.add_row(*(Text(cell) for cell in cells), style="bold" if bold else "")
    return table


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _caption(summary: Mapping[str, Any], seeds: int) -> str:
    notes = [f"mean ± standard deviation over {plural(seeds, 'seed')}"]
    if len(summary["rows"]) > 1:
        notes.append("bold: best mean; *: nothing cheaper is as good")
    if summary["plain_training"] is not None:
        plain = phrase(summary["plain_training"])
        notes.append(f"× plain: search and training over one\ntraining with {plain}")
    return "\n".join(notes)


def _differences(summary: Mapping[str, Any]) -> RenderableType:
    """Every row's differences from the references, the interval on a line of its own."""
    metric, rows = metric_of(summary), summary["rows"]
    points = " in points" if metric.unit == "%" else ""
    table = _titled_table(f"Difference{points}, paired by seed, with 95 % interval")
    table.add_column("policy", overflow="fold")
    others = references(summary)
    for name in others:
        table.add_column(f"− {rows[name]['label']}", justify="right")
    for name in searched(summary) or rows:
        found = [summary["differences"][name].get(each) for each in others]
        if any(found):
            cells = [difference(each, metric) if each else "" for each in found]
            broken = (cell.replace(" [", "\n[", 1) for cell in cells)
            table.add_row(*(Text(cell) for cell in (rows[name]["label"], *broken)))
    return table


def _has_operations(method: Mapping[str, Any]) -> bool:
    """Whether a method's policy has operations to list."""
    return bool(set(method["policy"]["operations"]) - {"Identity"})


def _policies(summary: Mapping[str, Any]) -> Table:
    """The policies side by side: each one's strongest operations."""
    table = _titled_table(
        "Strongest operations, share of applications in % (all are in report.html)"
    )
    table.add_column("policy", overflow="fold")
    table.add_column("an image", justify="right")
    table.add_column("operations", overflow="fold")
    for name, method in summary["methods"].items():
        if not _has_operations(method):
            continue
        policy = method["policy"]
        shares = policy["operations"]
        if applies_nothing(policy):
            table.add_row(method_label(name), "0.00", "applies nothing")
            continue
        strongest = sorted(shares.items(), key=lambda item: -item[1])[:STRONGEST_OF_SEVERAL]
        alike = len({round(share, 4) for share in shares.values()}) == 1
        words = ", ".join(f"{each} {100 * share:.1f}" for each, share in strongest)
        count = f"{policy['operations_per_image']:.2f}"
        table.add_row(method_label(name), count, f"all {len(shares)} alike" if alike else words)
    return table


def _operations(policy: Mapping[str, Any]) -> RenderableType:
    shares = policy["operations"]
    if len(set(shares.values())) == 1:  # then bars say nothing
        words = Table.grid()
        words.add_row(Text(f"  {policy['description']}", overflow="fold"))
        return _titled("Policy", words)
    strongest = sorted(shares.items(), key=lambda item: -item[1])[:STRONGEST]
    when = " over the training" if policy["phases"] > 1 else ""
    title = f"Strongest of {len(shares)} operations{when}"
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


def _titled(title: str, grid: Table) -> RenderableType:
    """A grid under a title, which may be wider than the grid."""
    return Group(Text(title, style="bold"), grid)


def _places(summary: Mapping[str, Any]) -> RenderableType:
    folder, methods = summary["directory"], summary["methods"]
    networks = any(row["kind"] == "network" for row in summary["rows"].values())
    only = None if several(summary) else next(iter(methods.values()))
    tested = only is None or only["row"] in summary["rows"] or not summary["rows"]
    policy = "policy.json" if only is not None else "policies/"
    rows = [
        ("report", f"{folder}/report.html"),
        ("policy", f"{folder}/{policy}" + ("" if tested else "  (not evaluated in this run)")),
        *([("networks", f"{folder}/networks/")] if networks else []),
        ("figures", f"{folder}/summary.json"),
    ]
    if summary["tracking"]:
        rows.append(("MLflow", summary["tracking"]["command"]))
    table = Table.grid(padding=(0, 2))
    for name, place in rows:
        table.add_row(Text(name, style="bold"), Text(place, overflow="fold"))
    return table
