"""The command line of `raysearch.compare`: several methods, and experiments that there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from raysearch.cli._arguments import COMPARE, Arguments, parse
from raysearch.cli._main import check_reachable, guarded, wished
from raysearch.errors import RaysearchError
from raysearch.experiment._compose import compose
from raysearch.experiment._experiment import Experiment, compose_experiment
from raysearch.experiment._storage import AGAIN, check_storage, copy_results

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
    check_reachable(arguments)
    from raysearch.experiment._session import earlier

    folder = earlier(experiment)
    try:
        _carry_out(experiment, folder, others, arguments)
    finally:
        if folder is not None:
            folder.release()


def _carry_out(
    experiment: Experiment,
    folder: Folder | None,
    others: Sequence[Measured],
    arguments: Arguments,
) -> None:
    """Run the methods that have not been carried out; all go on one page."""
    from raysearch.experiment._describe import describe
    from raysearch.experiment._run import LeftOutError
    from raysearch.experiment._session import begin, prepare

    done = [] if folder is None else folder.complete
    asked = experiment if folder is None else folder.experiment
    if not arguments.dry_run:
        check_storage(asked, resumed=folder is not None)
        if folder is not None and set(asked.methods) <= set(done):
            _again(folder, others, arguments)
            return
    wish = wished(arguments, asked.settings.device)
    kept = None if folder is None else folder.path
    plan, forecast = prepare(asked, wish, kept=kept, others=others)
    if arguments.dry_run:
        print(describe(plan, forecast, done))
        return
    folder, ended = begin(
        plan, forecast, wish, folder=folder, quietly=arguments.quiet, others=others
    )
    if ended.failed:
        raise LeftOutError(ended.failed, folder)


def _again(folder: Folder, others: Sequence[Measured], arguments: Arguments) -> None:
    """Nothing is left to run: show the page anew, with the others on it."""
    from raysearch import results

    found = results.read(folder.path)
    _present([found, *others], found.name, folder.path, arguments.quiet)
    copy_results(folder.experiment, folder.path, AGAIN)


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
        try:
            value = OverridesParser.create().parse_override(line).value()
        except HydraException:
            value = None
        if key in LISTS and not isinstance(value, list):
            raise RaysearchError(f"{line}: expected a list, for example {key}=[a,b]")
        value = str(value) if key not in LISTS and type(value) is int else value
        if key not in LISTS and not isinstance(value, str):
            raise RaysearchError(f"{line}: expected a name")
        given[key] = value
    return given, rest
