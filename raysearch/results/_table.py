"""The result on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Column, Table
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
    capital,
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
from raysearch.trials import COSTS

STRONGEST = 8  # operations shown of the only policy; half as many of each of several
BAR_WIDTH = 24
IDENTITY = {"Identity"}


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
    policies = {name: each["policy"] for name, each in summary["methods"].items()}
    listed = {name: each for name, each in policies.items() if set(each["operations"]) - IDENTITY}
    parts: list[RenderableType] = []
    if summary["seeds"]["search"]:
        parts.append(_search_cost(summary))
    if summary["rows"]:
        parts.append(_rows(summary))
        parts += [_differences(summary)] if references(summary) else []
        parts += [Text(line) for line in statements(summary, brief=True)]
    if several(summary):
        parts += [_policies(listed)] if listed else []
    else:
        parts += [_operations(policy) for policy in listed.values()]
        parts += [_parameters(policy) for policy in policies.values() if policy["parameters"]]
    parts.append(_places(summary))
    # A table has an empty line before it; sentences follow on each other.
    return Group(*(part if isinstance(part, Text) else _below_a_line(part) for part in parts))


def _below_a_line(part: RenderableType) -> RenderableType:
    """With an empty line before it, which sentences do without."""
    return Padding(part, (1, 0, 0, 0), expand=False)


def result_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """The result in two lines, for `--quiet`."""
    metric, rows, errors = metric_of(summary), summary["rows"], summary["errors"]
    if rows:
        listed = ", ".join(f"{row['label']} {value(errors[n], metric)}" for n, row in rows.items())
        yield f"{heading(metric)}: {listed}"
    yield f"{summary['directory']}/report.html"


def _titled_table(title: str, *columns: Column, caption: str = "") -> Table:
    """An empty table with a title and a note below it."""
    return Table(
        *columns,
        title=title,
        title_justify="left",
        title_style="bold",
        caption=caption or None,
        caption_justify="left",
    )


def _names(header: str = "policy") -> Column:
    return Column(header, overflow="fold")


def _numbers(header: str) -> Column:
    return Column(header, justify="right", no_wrap=True)


def _search_cost(summary: Mapping[str, Any]) -> RenderableType:
    """What each method's searches cost."""
    first = [_names("method")] if several(summary) else []
    units = map(_numbers, ("wall time", "device time", "epoch-equivalents"))
    table = _titled_table("Search cost", *first, *units)
    for name, method in summary["methods"].items():
        if method["searches"]:
            wall, device, arithmetic = (method["search"][cost] for cost in COSTS)
            cells = duration(wall), duration(device), f"{arithmetic:.1f}"
            table.add_row(*([method_label(name)] if first else []), *cells)
    return table


def _rows(summary: Mapping[str, Any]) -> RenderableType:
    """The metric and the cost of every row."""
    metric, rows, errors = metric_of(summary), summary["rows"], summary["errors"]
    seeds = max(len(error["runs"]) + len(error["failed"]) for error in errors.values())
    top = best(list(rows), summary) if len(rows) > 1 else None
    costs = {}
    if summary["plain_training"] is not None:
        costs = {"total_trainings": "× plain\nepochs", "total_time": "× plain\ntime"}
    table = _titled_table(
        capital(heading(metric)),
        _names(),
        *map(_numbers, (short(metric), *costs.values())),
        caption=_caption(summary, seeds),
    )
    for name, row in rows.items():
        count = len(errors[name]["runs"])
        partial = f" ({count}/{seeds})" if count != seeds else ""
        front = " *" if row["on_front"] and len(rows) > 1 else ""
        cells = [row["label"] + partial + front, value(errors[name], metric)]
        cells += [times(row[cost]) for cost in costs]
        table.add_row(*map(Text, cells), style="bold" if name == top else "")
    return table


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
    metric, rows, others = metric_of(summary), summary["rows"], references(summary)
    points = " in points" if metric.unit == "%" else ""
    table = _titled_table(
        f"Difference{points}, paired by seed, with 95 % interval",
        _names(),
        *(Column(f"− {rows[name]['label']}", justify="right") for name in others),
    )
    for name in searched(summary) or rows:
        found = [summary["differences"][name].get(each) for each in others]
        if any(found):
            cells = [difference(each, metric) if each else "" for each in found]
            broken = (cell.replace(" [", "\n[", 1) for cell in cells)
            table.add_row(*map(Text, (rows[name]["label"], *broken)))
    return table


def _policies(policies: Mapping[str, Any]) -> Table:
    """The policies side by side: each one's strongest operations."""
    table = _titled_table(
        "Strongest operations, share of applications in % (all are in report.html)",
        _names(),
        _numbers("an image"),
        _names("operations"),
    )
    for name, policy in policies.items():
        shares = policy["operations"]
        words = ", ".join(
            f"{each} {100 * share:.1f}" for each, share in _strongest(shares, STRONGEST // 2)
        )
        if len({round(share, 4) for share in shares.values()}) == 1:
            words = f"all {len(shares)} alike"
        if applies_nothing(policy):
            words = "applies nothing"
        table.add_row(method_label(name), f"{policy['operations_per_image']:.2f}", words)
    return table


def _strongest(shares: Mapping[str, float], count: int) -> list[tuple[str, float]]:
    return sorted(shares.items(), key=lambda item: -item[1])[:count]


def _operations(policy: Mapping[str, Any]) -> RenderableType:
    shares = policy["operations"]
    if len(set(shares.values())) == 1:  # then bars say nothing
        words = Text(policy["description"], overflow="fold")
        return _titled("Policy", Padding(words, (0, 0, 0, 2), expand=False))
    strongest = _strongest(shares, STRONGEST)
    table = Table.grid(padding=(0, 1))
    largest = strongest[0][1] or 1.0
    for name, share in strongest:
        bar = "█" * round(BAR_WIDTH * share / largest)
        table.add_row(f"  {name}", f"{100 * share:5.1f} %", Text(bar, style="blue"))
    when = " over the training" if policy["phases"] > 1 else ""
    uniform = " or ".join(f"{level:g}" for level in levels(policy["uniform"]))
    title = f"Strongest of {len(shares)} operations{when} (uniform: {uniform} %)"
    return _titled(title, table)


def _parameters(policy: Mapping[str, Any]) -> RenderableType:
    table = Table.grid("", Column(justify="right"), padding=(0, 1))
    for name, figures in policy["parameters"].items():
        unit = Text(UNITS.get(name, ""), style="dim")
        table.add_row(f"  {name}", parameter(figures, name), unit)
    over = "over all seeds and the whole training" if policy["phases"] > 1 else "over all seeds"
    return _titled(f"Parameters, mean ± standard deviation {over}", table)


def _titled(title: str, part: RenderableType) -> RenderableType:
    """A part under a title, which may be wider than it."""
    return Group(Text(title, style="bold"), part)


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
