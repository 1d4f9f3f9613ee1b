"""`python -m raysearch.compare`: several methods in one Ray run, and runs that there are."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from raysearch.cli._arguments import COMPARE, Arguments, parse
from raysearch.cli._comparison import (
    Asked,
    check_comparable,
    check_same,
    existing,
    name_uniquely,
    read_settings,
    read_summary,
    tracked,
)
from raysearch.cli._compose import Configuration, load
from raysearch.cli._folder import CONFIG, LOCK, check_unchanged, is_complete, lock
from raysearch.cli._main import check_reachable, guarded, wished
from raysearch.cli._storage import check_storage, copied, warning
from raysearch.errors import RaysearchError

if TYPE_CHECKING:
    from raysearch.cli._pool import Member
    from raysearch.report.comparison import Entry
    from raysearch.tune import Wish


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line of `raysearch.compare`; see `raysearch.cli._main.guarded`."""
    return guarded(arguments, lambda: _compare(parse(arguments, COMPARE)))


def _compare(arguments: Arguments) -> None:
    asked = read_settings(arguments.overrides)
    others = [*existing(asked.runs), *tracked(asked)]
    check_comparable(asked, others)
    _check_ours(asked)
    missing = _missing(asked)
    if missing:
        check_reachable(arguments)
    if arguments.dry_run:
        _describe(asked, missing, others, arguments)
        return
    check_storage(asked.common, resumed=asked.folder.exists())
    if said := warning(asked.common):
        print(said, file=sys.stderr)
    stored = copied(
        asked.common,
        asked.folder,
        lambda: _begun(asked),
        say=print,
        warn=lambda text: print(text, file=sys.stderr),
        again="the same command copies again",
    )
    with _held(asked), stored:
        failed = _compute(asked, missing, others, arguments) if missing else {}
        if others or len(failed) < len(asked.members):
            _present(asked, others, failed, arguments.quiet)
    if failed:
        raise LeftOutError(failed, asked.folder)


def _check_ours(asked: Asked) -> None:
    """The folder is new or empty, or a comparison's.

    Raises:
        RaysearchError: it is a run's, or has files of somebody else's.
    """
    folder = asked.folder
    if (folder / CONFIG).exists():
        raise RaysearchError(f"{folder} is a run, not a comparison: choose another name=")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / LOCK).exists():
        raise RaysearchError(f"{folder} exists and is no comparison: choose another name=")


@contextmanager
def _held(asked: Asked) -> Iterator[None]:
    """The comparison's folder, alone; one that is new and holds nothing at the end is removed."""
    new = not asked.folder.exists()
    try:
        asked.folder.mkdir(parents=True, exist_ok=True)
        held = lock(asked.folder)
    except OSError as error:
        raise RaysearchError(f"{asked.folder} cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        os.close(held)
        if new and not _begun(asked) and not (asked.folder / "comparison.json").exists():
            shutil.rmtree(asked.folder, ignore_errors=True)


def _begun(asked: Asked) -> bool:
    """Whether there is a run in the comparison's folder."""
    return any(asked.folder.glob(f"*/{CONFIG}"))


def _missing(asked: Asked) -> dict[str, Configuration]:
    """The configurations of the runs that have not finished, by their methods.

    Raises:
        RaysearchError: one was begun with other settings.
    """
    missing = {}
    for method, configuration in asked.members.items():
        folder = asked.folder / method
        if (folder / CONFIG).is_file():
            check_same(folder, load(folder / CONFIG), configuration)
        if not is_complete(folder):
            missing[method] = configuration
    return missing


def _compute(
    asked: Asked,
    missing: dict[str, Configuration],
    others: Sequence[Entry],
    arguments: Arguments,
) -> Mapping[str, RaysearchError]:
    """Run what is missing; why runs could not go on, by their methods."""
    from raysearch.cli._members import compute
    from raysearch.tune import Interrupted

    try:
        members, wish = _make_members(asked, missing, others, arguments)
        return compute(asked.folder, members, wish, arguments.quiet)
    except (Interrupted, KeyboardInterrupt) as error:
        if not _begun(asked):
            raise KeyboardInterrupt("interrupted before anything was computed") from error
        raise KeyboardInterrupt(
            f"stopped; {asked.folder} keeps what was done, the same command continues it"
        ) from error


def _make_members(
    asked: Asked,
    missing: dict[str, Configuration],
    others: Sequence[Entry],
    arguments: Arguments,
) -> tuple[list[Member], Wish]:
    """What is to be run, and on what.

    Raises:
        RaysearchError: it cannot be, or others than these images are in runs that there are.
    """
    from raysearch.cli._members import make_members
    from raysearch.report.comparison import check_images

    first = next(iter(missing.values()))
    wish = wished(arguments, first.settings.device)
    members = make_members(asked.folder, missing, wish)
    data = members[0].plan.dataset
    for method in asked.members:
        check_unchanged(asked.folder / method, data)
    now = {"images": data.counts, "classes": list(data.classes)}
    for entry in others:
        check_images(entry.name, entry.summary, members[0].name, now)
    return members, wish


def _describe(
    asked: Asked,
    missing: dict[str, Configuration],
    others: Sequence[Entry],
    arguments: Arguments,
) -> None:
    from raysearch.cli._members import describe

    done = [method for method in asked.members if method not in missing]
    print(f"# comparison {asked.folder}")
    if done:
        print(f"done: {', '.join(done)}")
    if missing:
        print(describe(_make_members(asked, missing, others, arguments)[0]))


def _own(asked: Asked, methods: Collection[str]) -> list[Entry]:
    """The comparison's own runs of some methods, which are complete, in the order asked for."""
    from raysearch.report.comparison import Entry

    folders = {method: asked.folder / method for method in asked.members if method in methods}
    return [Entry(method, read_summary(folder), folder) for method, folder in folders.items()]


class LeftOutError(RaysearchError):
    """Methods could not go on, and the comparison is without them.

    Attributes:
        expected: whether the user can mend all of it; see `TrialError`.
    """

    def __init__(self, failed: Mapping[str, RaysearchError], folder: Path) -> None:
        whose = "; ".join(f"{method}: {error}" for method, error in failed.items())
        places = " and ".join(str(folder / method) for method in failed)
        super().__init__(
            f"not in the comparison: {whose}; the same command tries again, and with other "
            f"settings once you have removed {places}"
        )
        self.expected = all(getattr(error, "expected", True) for error in failed.values())


def _present(
    asked: Asked, others: Sequence[Entry], failed: Mapping[str, RaysearchError], quiet: bool
) -> None:
    """Put all runs that are complete on one page and show the table."""
    from raysearch.report.comparison import (
        compare,
        comparison_lines,
        comparison_table,
        write_comparison,
    )
    from raysearch.tracking import log_comparison

    own = _own(asked, asked.members.keys() - failed.keys())
    reasons = {method: getattr(error, "reason", str(error)) for method, error in failed.items()}
    comparison = compare(asked.name, name_uniquely([*own, *others]), reasons)
    files = write_comparison(asked.folder, comparison)
    console, view = Console(), None
    tracking = asked.common.settings.tracking
    if tracking.enabled:
        view = log_comparison(
            comparison,
            files,
            tracking.uri,
            warn=lambda text: console.print(text, style="yellow"),
        )
    shown = [str(file) for file in files]
    if quiet:
        for line in comparison_lines(comparison, shown):
            console.print(line, soft_wrap=True, highlight=False)
    else:
        console.print(comparison_table(comparison, shown, view))
