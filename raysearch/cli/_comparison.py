"""What a comparison is asked to hold: the configurations of its runs, and runs that there are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from raysearch import methods
from raysearch.cli._compose import Configuration, choices, compose
from raysearch.cli._folder import CONFIG
from raysearch.errors import RaysearchError, unknown
from raysearch.report.comparison import Entry

SUMMARY = "summary.json"
OWN = ("methods", "runs", "experiment")  # settings of a comparison
LISTS = ("methods", "runs")
# Settings of a run that a comparison sets for all, and what to give it instead.
TAKEN = {
    "method": "methods=[NAME,...]",
    "evaluation.policies": "methods=[NAME,...], which takes none, trivial_augment and the like too",
}
# What may be another when a comparison is continued: where things go, and what computes them.
MAY_CHANGE = ("name", "runs_dir", "storage", "device", "tracking")
SEARCH = ("search", "seeds")  # what means nothing where nothing is searched
HOLDS = ("cpus_per_trial", "gpus_per_trial", "max_failures")


@dataclass(frozen=True)
class Asked:
    """What a comparison is asked to hold.

    Attributes:
        name: its own.
        folder: where it goes.
        members: the configuration of each method's run, by the method's name.
        runs: folders of runs that there are.
        experiment: MLflow experiment whose runs are compared, or None.
        uri: of the MLflow store.
        common: the configuration of what all have in common, with the comparison's name.
    """

    name: str
    folder: Path
    members: Mapping[str, Configuration]
    runs: Sequence[Path]
    experiment: str | None
    uri: str | None
    common: Configuration


def read_settings(overrides: Sequence[str]) -> Asked:
    """Compose the configurations of a comparison's runs.

    Raises:
        RaysearchError: nothing to compare, an unknown method, or what a run does not take.
    """
    given, rest = _own_settings(overrides)
    names = [str(name) for name in given.get("methods") or []]
    known = choices("method")
    for name in names:
        if name not in known:
            raise unknown("method", name, known)
    if len(set(names)) < len(names):
        raise RaysearchError("methods names a method twice")
    runs = [Path(str(run)) for run in given.get("runs") or []]
    experiment = given.get("experiment")
    if not names and not runs and experiment is None:
        raise RaysearchError("name what to compare: methods=[none,dada], runs=[...] or experiment=")
    for line in rest:
        key = line.partition("=")[0]
        if key in TAKEN:
            raise RaysearchError(f"{line}: in a comparison give {TAKEN[key]}")
        owner, dot, _ = key.partition(".")
        if dot and owner in known and owner not in names:
            raise RaysearchError(f"{line}: {owner} is not one of methods=[{','.join(names)}]")
    common = [line for line in rest if line.partition(".")[0] not in names or "." not in line]
    composed = compose(common)
    base = composed.settings
    name = base.name or (f"compare-{base.data.name}" if names else "compare-runs")
    named = replace(composed, settings=base.model_copy(update={"name": name}))
    folder = Path(base.runs_dir) / name
    tracked = any(line.startswith("tracking.experiment=") for line in rest)
    into = [f"runs_dir={folder}", *([] if tracked else [f"tracking.experiment={name}"])]
    members = {}
    for method in names:
        own = [line.removeprefix(f"{method}.") for line in rest if line.startswith(f"{method}.")]
        policy = method if method in methods.FIXED else "learned"
        members[method] = compose(
            [
                f"method={method}",
                *common,
                *own,
                f"evaluation.policies=[{policy}]",
                f"name={method}",
                "storage=null",  # the comparison is copied as a whole
                *into,
            ]
        )
    return Asked(name, folder, members, runs, experiment, base.tracking.uri, named)


def _own_settings(overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The comparison's own settings, and the others."""
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
        if key not in LISTS and not isinstance(value, str):
            raise RaysearchError(f"{line}: expected a name")
        given[key] = value
    return given, rest


def check_same(method: str, before: Configuration, now: Configuration) -> None:
    """A run that a comparison goes on with has the settings that are asked for.

    Raises:
        RaysearchError: it has others.
    """
    first, second = dict(_leaves(before.values)), dict(_leaves(now.values))
    searched = now.settings.method.name not in methods.FIXED
    free = MAY_CHANGE if searched else (*MAY_CHANGE, *SEARCH)
    for key in sorted(first.keys() | second.keys()):
        if key.partition(".")[0] in free or key.rpartition(".")[2] in HOLDS:
            continue
        if first.get(key) != second.get(key):
            raise RaysearchError(
                f"{method} was run with {key}={first.get(key)} there, not {second.get(key)}: "
                "choose another name=, or leave that setting"
            )


def _leaves(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, values


def existing(runs: Sequence[Path]) -> list[Entry]:
    """The runs in folders; one that holds a comparison stands for all of its runs.

    Raises:
        RaysearchError: there is no finished run.
    """
    folders = []
    for run in runs:
        if (run / SUMMARY).is_file():
            folders.append(run)
            continue
        inner = sorted(path.parent for path in run.glob(f"*/{SUMMARY}"))
        if not inner:
            started = (run / CONFIG).is_file()
            said = f"has not finished (--resume {run} continues it)" if started else "is no run"
            raise RaysearchError(f"runs: {run} {said}")
        folders += inner
    return name_uniquely([(read_summary(folder), folder) for folder in folders])


def read_summary(folder: Path) -> dict[str, Any]:
    """A finished run's summary.

    Raises:
        RaysearchError: it cannot be read.
    """
    try:
        summary = json.loads((folder / SUMMARY).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise RaysearchError(f"{folder / SUMMARY} cannot be read: {error}") from None
    return checked(summary, str(folder / SUMMARY))


def checked(summary: Any, where: str) -> dict[str, Any]:
    """A summary, if it is one.

    Raises:
        RaysearchError: it is not, or of another version.
    """
    wanted = ("name", "errors", "row", "search", "evaluations", "seeds", "policy", "configuration")
    missing = [key for key in wanted if not isinstance(summary, dict) or key not in summary]
    if missing:
        raise RaysearchError(f"{where} is not a run's summary: it has no {missing[0]!r}")
    found: dict[str, Any] = summary
    return found


def name_uniquely(found: Sequence[tuple[dict[str, Any], Path | None]]) -> list[Entry]:
    """Runs by their methods' names, or with their own where several have the same method."""
    names = [str(summary["configuration"]["method"]["name"]) for summary, _ in found]
    entries = []
    for (summary, folder), name in zip(found, names, strict=True):
        unique = names.count(name) == 1
        entries.append(Entry(name if unique else f"{name} ({summary['name']})", summary, folder))
    return entries
