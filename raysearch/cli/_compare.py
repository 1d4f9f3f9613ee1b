"""The command line of `raysearch.compare`: several methods, and experiments that there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_type_hints

from raysearch.cli._arguments import Arguments, parse
from raysearch.cli._main import guarded, start
from raysearch.errors import RaysearchError
from raysearch.experiment._compose import compose
from raysearch.experiment._experiment import compose_experiment
from raysearch.experiment._folder import CONFIG
from raysearch.experiment._overrides import Override
from raysearch.experiment._storage import copy_results
from raysearch.settings import PathWord, Word, checked

if TYPE_CHECKING:
    from raysearch.results import Measured


@dataclass(frozen=True)
class Given:
    """Settings of a comparison, beside those of a run.

    Attributes:
        methods: names that `method=` takes.
        runs: folders of experiments that there are.
        experiment: of MLflow, whose finished runs are compared with.
    """

    methods: tuple[Word, ...] = ()
    runs: tuple[PathWord, ...] = ()
    experiment: Word | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line of `raysearch.compare`; see `raysearch.cli._main.guarded`."""
    return guarded(arguments, lambda: _compare(parse(arguments, compare=True)))


def _compare(arguments: Arguments) -> None:
    given, overrides = own_settings(arguments.overrides)
    if given == Given():
        raise RaysearchError("name what to compare: methods=[none,dada], runs=[...] or experiment=")
    experiment = compose_experiment(given.methods, overrides) if given.methods else None
    settings = compose(overrides).settings if experiment is None else experiment.settings
    others = _others(given, settings.tracking.uri)
    if experiment is None:
        path = Path(settings.runs_dir) / (settings.name or "compare-runs")
        joined = [Path(run).resolve() for run in given.runs]
        if (path / CONFIG).exists() or path.resolve() in joined:
            raise RaysearchError(f"{path} holds an experiment of its own: choose another name=")
        _present(others, path, arguments)
        return
    from raysearch.experiment._session import earlier

    folder = earlier(experiment)
    try:
        asked = experiment if folder is None else folder.experiment
        if folder is not None and folder.is_complete and not arguments.dry_run:
            from raysearch import results

            found = results.without_others(results.read(folder.path))
            _present([found, *others], folder.path, arguments)
            copy_results(folder)
        else:
            start(arguments, asked, folder, others)
    finally:
        if folder is not None:
            folder.release()


def _present(found: Sequence[Measured], path: Path, arguments: Arguments) -> None:
    """Put experiments that there are on one page; nothing is run."""
    if arguments.dry_run:
        print(f"# comparison {path} of {', '.join(each.name for each in found)}")
        return
    from rich.console import Console

    from raysearch import results

    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RaysearchError(f"{path} cannot be written: {error.strerror}") from error
    summary = results.write(path, results.join(path.name, str(path), found))
    results.show(Console(), summary, arguments.quiet)


def _others(given: Given, uri: str | None) -> list[Measured]:
    """Experiments that there are: in folders, and in MLflow."""
    if not given.runs and given.experiment is None:
        return []
    from raysearch import results

    found = [results.read(Path(run)) for run in given.runs]
    if given.experiment is not None:
        found += results.read_experiment(uri, given.experiment)
    return found


def own_settings(lines: Sequence[str]) -> tuple[Given, list[Override]]:
    """The comparison's own settings, and the others.

    Raises:
        RaysearchError: one of them is not what it should be.
    """
    own = get_type_hints(Given, include_extras=True)
    overrides = [Override.of(line) for line in lines]
    values = {one.key: one.read(own[one.key]) for one in overrides if one.key in own}
    return checked(Given, "", values), [one for one in overrides if one.key not in own]
