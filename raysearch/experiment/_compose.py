"""One configuration: Hydra's groups, overrides, and what is wrong with them."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

import raysearch
from raysearch.errors import RaysearchError, near, unknown
from raysearch.experiment._declared import declared
from raysearch.experiment._overrides import Override, as_override
from raysearch.experiment._settings import Settings, check, check_kinds
from raysearch.experiment._tracking import settled
from raysearch.settings import leaves, wrong

KINDS = {"data": "data set"}  # what messages call a group's choices
MANIFESTS = "cluster"  # beside the groups: files for kubectl, `ray up` and `ray job submit`
FREE = ("method", "data", "model")  # groups whose settings are their own parts' to check


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]  # PyYAML has no types
    """Puts text that other readers of YAML take for a number, such as 1e5, in quotes too."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d[\d.]*[eE][-+]?\d+$"), list("-+0123456789")
)


@dataclass(frozen=True)
class Configuration:
    """A composed and checked configuration.

    Attributes:
        values: as plain dictionaries, lists and values; what is stored, shown and tracked.
        settings: the same, typed.
    """

    values: dict[str, Any]
    settings: Settings


def config_dir() -> Path:
    """The folder of the configuration groups: in an installed wheel, or beside the package.

    Raises:
        RaysearchError: neither is there.
    """
    package = Path(raysearch.__file__).resolve().parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "config.yaml").is_file():
            return folder
    raise RaysearchError(f"the configuration files are missing: no configs/ in or beside {package}")


def choices(group: str) -> list[str]:
    """The names that `group=` takes."""
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


def groups() -> list[str]:
    """The names of the configuration groups."""
    folders = [path for path in config_dir().iterdir() if path.name != MANIFESTS]
    return sorted(path.name for path in folders if any(path.glob("*.yaml")))


def compose(arguments: Sequence[str | Override], tracked_as: str = "raysearch") -> Configuration:
    """Compose and check the configuration of a run.

    Args:
        arguments: settings as they are typed, e.g. ["method=dada", "search.epochs=5"], or as keys
            and objects.
        tracked_as: MLflow's experiment, where neither a setting nor the environment names one.

    Raises:
        RaysearchError: an unknown group, choice or key (with the near names), a value of the
            wrong type or out of range, or what is not KEY=VALUE.
    """
    given = [one for each in arguments for one in _spelt_out(as_override(each))]
    known = groups()
    config = _composed({one.key: _choice(one) for one in given if one.key in known})
    default = _plain(config)
    found = _settings([one for one in given if one.key not in known], default)
    # What was given is no interpolation, but YAML files' interpolations refer to it.
    texts = {key: value for key, value in found.items() if _has_text(value)}
    for key, value in found.items():
        if key not in texts:
            OmegaConf.update(config, key, value)
    values = _plain(config)
    for key, value in texts.items():
        *path, last = key.split(".")
        reduce(getitem, path, values)[last] = value
    values["tracking"] = settled(values["tracking"], tracked_as)
    for group in FREE:
        check_kinds(values[group], default[group], f"{group}.")
    return Configuration(values, check(values))


def to_yaml(values: Mapping[str, Any]) -> str:
    """Plain values as YAML."""
    text: str = yaml.dump(
        dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=math.inf
    )
    return text


def from_yaml(path: Path) -> dict[str, Any]:
    """What `to_yaml` wrote to a file.

    Raises:
        RaysearchError: it is missing or damaged.
    """
    try:
        values = yaml.safe_load(path.read_bytes())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise RaysearchError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise RaysearchError(f"{path} is not a configuration")
    return {str(key): value for key, value in values.items()}


def _choice(override: Override) -> str:
    """The choice in a group that was given, which there is."""
    group, choice = override.key, override.value
    if choice in (None, ""):
        raise RaysearchError(f"{override}: a name is missing")
    if choice not in choices(group):
        raise unknown(KINDS.get(group, group), str(choice), choices(group))
    return str(choice)


def _settings(overrides: Sequence[Override], default: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their full names, read by the types that they are declared to have."""
    known = dict(_keys(default))
    chosen = [f"{group}.name" for group in groups() if group != "model"]
    for override in overrides:
        if override.key not in known:
            raise _unknown_key(override.key, known)
        if override.key in chosen:
            group = override.key.partition(".")[0]
            raise RaysearchError(f"{override}: write {group}={override.value}")
    found: dict[str, Any] = {}
    for override in overrides:
        value = override.read(declared(override.key, default["method"]["name"]))
        for key, each in leaves(value, override.key):
            if key not in known:
                raise _unknown_key(key, known)
            if isinstance(known[key], Mapping) and (each is not None or key in default):
                raise wrong(key, each, "a group of settings")
            found.pop(key, None)  # the last one counts
            found[key] = each
    return found


def _has_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and any(map(_has_text, value)))


def _spelt_out(given: Override) -> list[Override]:
    """`model=efficientnet_b0` is short for `model=torchvision model.name=efficientnet_b0`.

    And `budget=8x` for `method.budget=8x`.
    """
    name = given.value
    if given.key == "budget":
        return [replace(given, key="method.budget")]
    if given.key != "model" or name in choices("model") or not str(name).isidentifier():
        return [given]
    from raysearch import models

    if name in models.names():
        return [replace(given, value="torchvision"), replace(given, key="model.name")]
    own = [model for model in choices("model") if model != "torchvision"]
    raise RaysearchError(
        f"unknown model {name!r}{near(name, {*own, *models.names()})} "
        f"(known: {', '.join(own)}, and torchvision's classifiers by their names)"
    )


def _composed(chosen: Mapping[str, str]) -> DictConfig:
    """The configuration of these choices, with the files' interpolations."""
    lines = [f"{group}={choice}" for group, choice in chosen.items()]
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3", job_name="raysearch"):
            return hydra_compose("config", overrides=lines)
    except HydraException as error:
        raise RaysearchError(" ".join(str(error).split())) from error


def _plain(config: DictConfig) -> dict[str, Any]:
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _keys(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """All settings and groups of settings, by their full names."""
    for key, value in values.items():
        yield f"{path}{key}", value
        if isinstance(value, Mapping):
            yield from _keys(value, f"{path}{key}.")


def _unknown_key(key: str, known: Collection[str]) -> RaysearchError:
    group = key.partition(".")[0]
    if group not in known and (having := _methods_with(group)):
        verb = "has" if len(having) == 1 else "have"
        return RaysearchError(
            f"unknown setting {key!r}: only method={' and '.join(having)} {verb} a {group} group"
        )
    if key == "data.root":  # the first thing that a newcomer forgets
        return RaysearchError(f"{key} needs data=folder, or another choice that reads files")
    hint = f"{near(key, [*known, *groups()])} (--dry-run prints all settings)"
    return RaysearchError(f"unknown setting {key!r}{hint}")


def _methods_with(group: str) -> list[str]:
    """The methods whose files have settings beside the `method` group under this name."""
    files = {name: config_dir() / "method" / f"{name}.yaml" for name in choices("method")}
    return [name for name, path in files.items() if isinstance(from_yaml(path).get(group), Mapping)]
