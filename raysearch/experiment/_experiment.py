"""What an experiment is asked to do: one method or several, on the same data."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raysearch.errors import RaysearchError, unknown
from raysearch.experiment._compose import Configuration, choices, compose, from_yaml
from raysearch.experiment._overrides import Override, as_override
from raysearch.experiment._settings import Settings, check
from raysearch.settings import leaves

LAYOUT = 2  # of an experiment's folder
OWN = ("method", "search", "finetune", "seeds")  # what each method has of its own
# What a comparison sets for all, and what to give it instead.
TAKEN = {
    "method": "methods=[NAME,...]",
    "evaluation.policies": "methods=[NAME,...], which takes none, trivial_augment and the like too",
}
COMMON = ("name", "runs_dir", "storage", "tracking", "device", "task", "metric", "data", "model")
# What may change when an experiment is continued: where things go, and what computes them.
MAY_CHANGE = ("name", "runs_dir", "storage", "device", "tracking")
SEARCH = ("search", "seeds")  # what means nothing where nothing is searched
RESOURCES = ("cpus_per_trial", "gpus_per_trial", "max_failures")
CHOSEN = ("model.name", "data.size", "data.range")  # may be `auto`, settled by the plan


@dataclass(frozen=True)
class Experiment:
    """The settings of an experiment.

    Attributes:
        methods: each method's configuration, by its name in the experiment. All but the groups in
            `OWN` is the same for all of them.
        compared: whether methods are judged, each by a row of its own. A run is not: it judges the
            policies in `evaluation.policies`.
    """

    methods: Mapping[str, Configuration]
    compared: bool

    @property
    def settings(self) -> Settings:
        """Those of the first method, of which all but the groups in `OWN` are common to all."""
        return next(iter(self.methods.values())).settings

    @property
    def values(self) -> dict[str, Any]:
        """The same as plain values."""
        return next(iter(self.methods.values())).values

    @property
    def path(self) -> Path | None:
        """Its folder, where it has a name."""
        settings = self.settings
        return Path(settings.runs_dir) / settings.name if settings.name else None

    def changed(self, **groups: Any) -> Experiment:
        """The experiment with other values of what is common to all methods; keys are replaced."""
        return replace(
            self,
            methods={
                name: checked({**configuration.values, **groups})
                for name, configuration in self.methods.items()
            },
        )

    def document(self) -> dict[str, Any]:
        """What `config.yaml` holds; see `read_experiment`."""
        return {
            "layout": LAYOUT,
            "compared": self.compared,
            **common(next(iter(self.methods.values()))),
            "methods": {name: own(each) for name, each in self.methods.items()},
        }


def own(configuration: Configuration) -> dict[str, Any]:
    """A method's own groups of settings."""
    return {key: configuration.values[key] for key in OWN if key in configuration.values}


def is_changed(before: Configuration, now: Configuration) -> bool:
    """Whether a method's own settings, but for resources, are others."""
    return any(_differences(own(before), own(now)))


def common(configuration: Configuration) -> dict[str, Any]:
    """All settings but a method's own."""
    return {key: value for key, value in configuration.values.items() if key not in OWN}


def checked(values: Mapping[str, Any]) -> Configuration:
    """Plain values as a configuration; raises RaysearchError where `check` does."""
    return Configuration(dict(values), check(values))


def compose_run(overrides: Sequence[str | Override]) -> Experiment:
    """An experiment of one method.

    Args:
        overrides: see `compose`.

    Raises:
        RaysearchError: see `compose`.
    """
    configuration = compose(overrides)
    return Experiment({configuration.settings.method.name: configuration}, compared=False)


def compose_experiment(methods: Sequence[str], overrides: Sequence[str | Override]) -> Experiment:
    """An experiment of several methods, each judged by a row of its own.

    Args:
        methods: names that `method=` takes.
        overrides: see `compose`; for all of them, or `dada.search.epochs=5` for dada alone.

    Raises:
        RaysearchError: no method, one that is not known or named twice; a setting that is not
            known, or that methods cannot have of their own; methods that differ in what is judged.
    """
    _check_methods(methods)
    given = [as_override(each) for each in overrides]
    for one in given:
        _check_override(one, methods)
    shared = [one for one in given if one.key == one.group or one.group not in methods]
    base = compose(shared).settings
    name = base.name or f"compare-{base.data.name}"
    found: dict[str, Configuration] = {}
    for method in methods:
        theirs = [
            replace(one, key=one.key.removeprefix(f"{method}."))
            for one in given
            if one.key.startswith(f"{method}.")
        ]
        values = compose([Override("method", method), *shared, *theirs], tracked_as=name).values
        values["name"] = name
        values["evaluation"] = {**values["evaluation"], "policies": list(methods)}
        found[method] = checked(values)
    _check_alike(found)
    return Experiment(found, compared=True)


def read_experiment(path: Path) -> Experiment:
    """The experiment whose settings `Experiment.document` wrote to a file.

    Raises:
        RaysearchError: it is missing, damaged, or of the layout of earlier versions.
    """
    document = from_yaml(path)
    if "layout" not in document:
        raise RaysearchError(
            f"{path.parent} was made by an earlier version, which alone can continue it: its "
            "policies can be used (raysearch.load_policy), or begin anew under another name="
        )
    methods, compared = document.pop("methods", None), bool(document.pop("compared", False))
    if document.pop("layout") != LAYOUT or not isinstance(methods, Mapping) or not methods:
        raise RaysearchError(f"{path} is not of this version's layout ({LAYOUT})")
    found = {str(name): checked({**document, **own}) for name, own in methods.items()}
    return Experiment(found, compared)


def check_same(path: Path, before: Experiment, now: Experiment, anew: Collection[str] = ()) -> None:
    """An experiment that is continued has the settings with which it began.

    Methods may have been added.

    Args:
        path: its folder.
        before, now: its settings, and those asked for.
        anew: methods that may begin anew, with settings of their own that are others.

    Raises:
        RaysearchError: it has others.
    """
    from raysearch import methods

    for name, asked in now.methods.items():
        began = before.methods.get(name, next(iter(before.methods.values())))
        new = now.compared and (name not in before.methods or name in anew)
        searched = asked.settings.method.name not in methods.FIXED
        free = (*MAY_CHANGE, *(OWN if new else ()), *(() if searched else SEARCH))
        for key, first, second in _differences(began.values, asked.values):
            if key.partition(".")[0] in free or (key == "evaluation.policies" and now.compared):
                continue
            if not (key in CHOSEN and second == "auto"):
                raise RaysearchError(
                    f"{path} began with {key}={first}, not {second}: keep {key}={first}, choose "
                    "another name=, or remove that folder"
                )


def _check_methods(names: Sequence[str]) -> None:
    known = choices("method")
    for name in names:
        if name not in known:
            raise unknown("method", name, known)
    if len(set(names)) < len(names):
        raise RaysearchError("methods names a method twice")
    if not names:
        raise RaysearchError("name what to compare: methods=[none,dada]")


def _check_override(override: Override, methods: Sequence[str]) -> None:
    """An override is the experiment's, or a method's own."""
    key, owner = override.key, override.group
    if key in TAKEN:
        raise RaysearchError(f"{override}: in a comparison give {TAKEN[key]}")
    if owner == key or owner not in choices("method"):
        return
    if owner not in methods:
        raise RaysearchError(f"{override}: {owner} is not one of methods=[{','.join(methods)}]")
    rest = key.removeprefix(f"{owner}.")
    group = rest.partition(".")[0]
    if group in COMMON or rest in TAKEN:
        raise RaysearchError(f"{override}: {group} is the comparison's, not a method's own")


def _check_alike(found: Mapping[str, Configuration]) -> None:
    """Whatever is not a method's own is the same for all; a method's file may set such things."""
    first, *others = found
    for name in others:
        for key, one, other in _differences(common(found[first]), common(found[name])):
            raise RaysearchError(
                f"{first} and {name} cannot be compared: {key} is {one} in one and {other} in the "
                f"other; give {key}= for both"
            )


def _differences(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Settings that are not the same, with both values; resources may always differ."""
    one, other = dict(leaves(first)), dict(leaves(second))
    for key in sorted(one.keys() | other.keys()):
        if one.get(key) != other.get(key) and key.rpartition(".")[2] not in RESOURCES:
            yield key, one.get(key), other.get(key)
