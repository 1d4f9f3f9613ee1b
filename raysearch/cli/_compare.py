"""The command line of `raysearch.compare`: several methods, and experiments that there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysearch.cli._arguments import COMPARE, Arguments, parse
from raysearch.cli._main import guarded, start
from raysearch.errors import RaysearchError
from raysearch.experiment._compose import compose, parse_override
from raysearch.experiment._experiment import Experiment, compose_experiment
from raysearch.experiment._storage import check_storage, copy_results

if TYPE_CHECKING:
    from raysearch.experiment._folder import Folder
    from raysearch.results import Measured

OWN = ("methods", "runs", "experiment")  # settings of a comparison
LISTS = ("methods", "runs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line of `raysearch.compare`; see `raysearch.cli._main.guarded`."""
    return guarded(arguments, lambda: _compare(parse(arguments, COMPARE)))


def _compare(arguments: Arguments) -> None:
    given, lines = own_settings(arguments.overrides)
    if not any(given.get(key) for key in OWN):
        raise RaysearchError("name what to compare: methods=[none,dada], runs=[...] or experiment=")
    methods = [str(name) for name in given.get("methods") or []]
    experiment = compose_experiment(methods, lines) if methods else None
    others = _others(given, experiment, lines)
    if experiment is None:
        _join(lines, others, arguments)
        return
    from raysearch.experiment._session import earlier

    folder = earlier(experiment)
    try:
        asked = experiment if folder is None else folder.experiment
        if not arguments.dry_run:
            check_storage(asked, resumed=folder is not None)
        if folder is not None and folder.is_complete and not arguments.dry_run:
            _again(folder, others, arguments)
        else:
            start(arguments, asked, folder, others)
    finally:
        if folder is not None:
            folder.release()


def _again(folder: Folder, others: Sequence[Measured], arguments: Arguments) -> None:
    """Nothing is left to run: show the page anew, with the others on it."""
    from raysearch import results

    found = results.read(folder.path)
    _present([found, *others], found.name, folder.path, arguments.quiet)
    copy_results(folder)


def _join(lines: Sequence[str], others: Sequence[Measured], arguments: Arguments) -> None:
    """Put experiments that there are on one page; nothing is run."""
    settings = compose(lines).settings
    name = settings.name or "compare-runs"
    path = Path(settings.runs_dir) / name
    if arguments.dry_run:
        print(f"# comparison {path} of {', '.join(other.name for other in others)}")
        return
    _present(others, name, path, arguments.quiet)


def _present(found: Sequence[Measured], name: str, path: Path, quiet: bool) -> None:
    from rich.console import Console

    from raysearch import results

    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RaysearchError(f"{path} cannot be written: {error.strerror}") from error
    summary = results.write(path, results.join(name, str(path), found))
    results.show(Console(), summary, quiet)


def _others(
    given: dict[str, Any], experiment: Experiment | None, lines: Sequence[str]
) -> list[Measured]:
    """Experiments that there are: in folders, and in MLflow."""
    if not given.get("runs") and given.get("experiment") is None:
        return []
    from raysearch import results

    found = [results.read(Path(str(run))) for run in given.get("runs") or []]
    if given.get("experiment") is not None:
        settings = (compose(lines) if experiment is None else experiment).settings
        found += results.read_experiment(settings.tracking.uri, given["experiment"])
    return found


def own_settings(overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The comparison's own settings, and the others.

    Raises:
        RaysearchError: one of them is not what it should be.
    """
    given: dict[str, Any] = {}
    rest = []
    for line in overrides:
        key = line.partition("=")[0]
        if key not in OWN:
            rest.append(line)
            continue
        value = parse_override(line).value()
        if key in LISTS and not isinstance(value, list):
            raise RaysearchError(f"{line}: expected a list, for example {key}=[a,b]")
        if key not in LISTS and (isinstance(value, bool) or not isinstance(value, str | int)):
            raise RaysearchError(f"{line}: expected a name")
        given[key] = value if key in LISTS else str(value)
    return given, rest
