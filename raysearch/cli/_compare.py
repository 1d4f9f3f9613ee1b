"""`python -m raysearch.compare`: several methods in one Ray run, and runs that there are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

from rich.console import Console

from raysearch.cli._arguments import COMPARE, Arguments, parse
from raysearch.cli._comparison import (
    SUMMARY,
    Asked,
    check_same,
    checked,
    existing,
    name_uniquely,
    read_settings,
    read_summary,
)
from raysearch.cli._compose import Configuration, load
from raysearch.cli._folder import CONFIG, lock
from raysearch.cli._main import check_reachable, guarded, wished
from raysearch.cli._storage import check_storage, copy_results
from raysearch.errors import RaysearchError
from raysearch.report.comparison import Entry


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line of `raysearch.compare`; see `raysearch.cli._main.guarded`."""
    return guarded(arguments, lambda: _compare(parse(arguments, COMPARE)))


def _compare(arguments: Arguments) -> None:
    asked = read_settings(arguments.overrides)
    others = [*existing(asked.runs), *_tracked(asked)]
    missing = _missing(asked)
    if missing:
        check_reachable(arguments)
    if arguments.dry_run:
        _describe(asked, missing, arguments)
        return
    new = not asked.folder.exists()
    check_storage(asked.common, resumed=not new)
    try:
        asked.folder.mkdir(parents=True, exist_ok=True)
        held = lock(asked.folder)
    except OSError as error:
        raise RaysearchError(f"{asked.folder} cannot be written: {error.strerror}") from error
    try:
        if missing:
            _compute(asked, missing, arguments)
        _present(asked, others, arguments.quiet)
    finally:
        os.close(held)
        if new and not any(asked.folder.glob(f"*/{CONFIG}")) and not _has_page(asked):
            shutil.rmtree(asked.folder, ignore_errors=True)


def _has_page(asked: Asked) -> bool:
    return (asked.folder / "comparison.json").exists()


def _missing(asked: Asked) -> dict[str, Configuration]:
    """The configurations of the runs that have not finished, by their methods.

    Raises:
        RaysearchError: one was begun with other settings.
    """
    missing = {}
    for method, configuration in asked.members.items():
        folder = asked.folder / method
        if (folder / CONFIG).is_file():
            check_same(f"{asked.folder}: {method}", load(folder / CONFIG), configuration)
        if not (folder / SUMMARY).is_file():
            missing[method] = configuration
    return missing


def _tracked(asked: Asked) -> list[Entry]:
    """The finished runs of an MLflow experiment.

    Raises:
        RaysearchError: there are none, or the store cannot be read.
    """
    if asked.experiment is None:
        return []
    from raysearch.tracking import read_summaries

    found = read_summaries(asked.uri, asked.experiment)
    return name_uniquely(
        [(checked(summary, f"run {run} of MLflow"), None) for run, summary in found]
    )


def _compute(asked: Asked, missing: dict[str, Configuration], arguments: Arguments) -> None:
    from raysearch.cli._members import compute, make_members
    from raysearch.tune import Interrupted

    first = next(iter(missing.values()))
    wish = wished(arguments, first.settings.device)
    try:
        compute(asked.folder, make_members(missing, wish), wish, arguments.quiet)
    except (Interrupted, KeyboardInterrupt) as error:
        raise KeyboardInterrupt(
            f"stopped; {asked.folder} keeps what was done, the same command continues it"
        ) from error


def _describe(asked: Asked, missing: dict[str, Configuration], arguments: Arguments) -> None:
    from raysearch.cli._members import describe

    done = [method for method in asked.members if method not in missing]
    print(f"# comparison {asked.folder}")
    if done:
        print(f"done: {', '.join(done)}")
    if missing:
        first = next(iter(missing.values()))
        print(describe(missing, wished(arguments, first.settings.device)))


def _present(asked: Asked, others: Sequence[Entry], quiet: bool) -> None:
    """Put all runs on one page and show the table."""
    from raysearch.report.comparison import (
        compare,
        comparison_lines,
        comparison_table,
        write_comparison,
    )
    from raysearch.tracking import log_comparison

    folders = {method: asked.folder / method for method in asked.members}
    own = [Entry(method, read_summary(folder), folder) for method, folder in folders.items()]
    comparison = compare(asked.name, [*own, *others])
    files = write_comparison(asked.folder, comparison)
    console = Console()
    view = None
    if comparison["tracking"]:
        view = log_comparison(
            comparison, files, warn=lambda text: console.print(text, style="yellow")
        )
    shown = [str(file) for file in files]
    if quiet:
        for line in comparison_lines(comparison, shown):
            console.print(line, soft_wrap=True, highlight=False)
    else:
        console.print(comparison_table(comparison, shown, view))
    if stored := copy_results(asked.common, asked.folder):
        console.print(f"results copied to {stored}", soft_wrap=True, highlight=False)
