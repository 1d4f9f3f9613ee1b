"""What a comparison is asked to hold: the configurations of its runs, and runs that there are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from raysearch.cli._compose import Configuration, choices, compose
from raysearch.cli._folder import CONFIG, has_failed
from raysearch.cli._schema import check
from raysearch.errors import RaysearchError, unknown

if TYPE_CHECKING:
    from raysearch.report.comparison import Entry

SUMMARY = "summary.json"
WANTED = (  # of it
    *("name", "errors", "row", "search", "evaluations", "seeds", "policy", "configuration"),
    *("images", "classes", "tracking"),
)
OWN = ("methods", "runs", "experiment")  # settings of a comparison
LISTS = ("methods", "runs")
ALL = ("name", "runs_dir", "storage", "tracking", "device")  # what members cannot have of their own
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
        common: the configuration of what all have in common, with the comparison's name.
    """

    name: str
    folder: Path
    members: Mapping[str, Configuration]
    runs: Sequence[Path]
    experiment: str | None
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
        if owner in names and key.split(".")[1] in ("data", "model", *TAKEN, *ALL):
            group = key.split(".")[1]
            raise RaysearchError(f"{line}: {group} is the comparison's, not a method's own")
    common = [line for line in rest if line.partition(".")[0] not in names or "." not in line]
    composed = compose(common)
    base = composed.settings
    name = base.name or (f"compare-{base.data.name}" if names else "compare-runs")
    named = replace(composed, settings=base.model_copy(update={"name": name}))
    folder = Path(base.runs_dir) / name
    chosen = any(line.startswith("tracking.experiment=") for line in rest)
    experiment_of_runs = base.tracking.experiment if chosen else name
    members = {}
    for method in names:
        own = [line.removeprefix(f"{method}.") for line in rest if line.startswith(f"{method}.")]
        found = compose([f"method={method}", *common, *own])
        members[method] = _as_member(found, method, folder, experiment_of_runs)
    return Asked(name, folder, members, runs, experiment, named)


def _as_member(
    configuration: Configuration, method: str, folder: Path, experiment: str
) -> Configuration:
    """The configuration of a run as one of a comparison, which judges its own policy alone."""
    from raysearch import methods

    values = configuration.values
    policy = method if method in methods.FIXED else "learned"
    values = {
        **values,
        "name": method,
        "runs_dir": str(folder),
        "storage": None,  # the comparison is copied as a whole
        "tracking": {**values["tracking"], "experiment": experiment},
        "evaluation": {**values["evaluation"], "policies": [policy]},
    }
    return Configuration(values, check(values))


def check_comparable(asked: Asked, others: Sequence[Entry]) -> None:
    """What is to be run can be compared with each other, and with the runs that there are.

    Raises:
        RaysearchError: other data, another network or other settings of the evaluation.
    """
    from raysearch.report.comparison import check_alike

    known = [(method, configuration.values) for method, configuration in asked.members.items()]
    known += [(entry.name, entry.summary["configuration"]) for entry in others]
    for name, values in known[1:]:
        check_alike(*known[0], name, values)


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
        value = str(value) if key not in LISTS and type(value) is int else value
        if key not in LISTS and not isinstance(value, str):
            raise RaysearchError(f"{line}: expected a name")
        given[key] = value
    return given, rest


def check_same(folder: Path, before: Configuration, now: Configuration) -> None:
    """A run that a comparison goes on with has the settings that are asked for.

    Args:
        folder: the run's.
        before, now: its settings, and those asked for.

    Raises:
        RaysearchError: it has others.
    """
    from raysearch import methods
    from raysearch.report.comparison import leaves

    first, second = dict(leaves(before.values)), dict(leaves(now.values))
    searched = now.settings.method.name not in methods.FIXED
    free = MAY_CHANGE if searched else (*MAY_CHANGE, *SEARCH)
    for key in sorted(first.keys() | second.keys()):
        if key.partition(".")[0] in free or key.rpartition(".")[2] in HOLDS:
            continue
        if first.get(key) == second.get(key):
            continue
        done = f"{folder} was run with {key}={first.get(key)}"
        if has_failed(folder):
            raise RaysearchError(
                f"{done} and failed: remove that folder to run it again with "
                f"{key}={second.get(key)}"
            )
        raise RaysearchError(
            f"{done}, not {second.get(key)}: keep {key}={first.get(key)}, choose another name=, or "
            "remove that folder to run it again"
        )


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
            if (run / CONFIG).is_file():
                said = f"has not finished (--resume {run} continues it)"
            else:
                said = "holds no finished run" if run.exists() else "is not there"
            raise RaysearchError(f"runs: {run} {said}")
        folders += inner
    return [_entry(read_summary(folder), folder) for folder in folders]


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
        RaysearchError: it is not.
    """
    missing = [key for key in WANTED if not isinstance(summary, dict) or key not in summary]
    if missing:
        raise RaysearchError(f"{where} is not a run's summary: it has no {missing[0]!r}")
    found: dict[str, Any] = summary
    return found


def _entry(summary: dict[str, Any], folder: Path | None) -> Entry:
    from raysearch.report.comparison import Entry

    return Entry(str(summary["configuration"]["method"]["name"]), summary, folder)


def tracked(asked: Asked) -> list[Entry]:
    """The finished runs of the MLflow experiment that is asked for, if one is.

    Raises:
        RaysearchError: there are none, or the store cannot be read.
    """
    if asked.experiment is None:
        return []
    from raysearch.tracking import read_summaries

    found = read_summaries(asked.common.settings.tracking.uri, asked.experiment)
    return [_entry(checked(summary, f"run {run} of MLflow"), None) for run, summary in found]


def name_uniquely(entries: Sequence[Entry]) -> list[Entry]:
    """Runs by their methods' names, with their own where several have the same method.

    The first keeps its name where it is one of the comparison's own runs.
    """
    found: dict[str, Entry] = {}
    names = [entry.name for entry in entries]
    for entry in entries:
        name, own = entry.name, entry.summary["name"]
        if names.count(name) > 1 and own != name:
            name = f"{name} ({own})"
        base, count = name, 2
        while name in found:
            name, count = f"{base} #{count}", count + 1
        found[name] = replace(entry, name=name)
    return list(found.values())
