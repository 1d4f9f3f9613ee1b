"""One configuration: Hydra's groups, overrides, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

import raysearch
from raysearch.errors import RaysearchError, near, unknown
from raysearch.experiment._settings import Settings, check, check_kinds
from raysearch.experiment._tracking import settled

KINDS = {"data": "data set"}  # what messages call a group's choices
MANIFESTS = "cluster"  # beside the groups: files for kubectl, `ray up` and `ray job submit`
FREE = ("method", "data", "model")  # groups whose settings are their own parts' to check


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


def compose(arguments: Sequence[str], tracked_as: str = "raysearch") -> Configuration:
    """Compose and check the configuration of a run.

    Args:
        arguments: Hydra overrides, e.g. ["method=dada", "search.epochs=5"].
        tracked_as: MLflow's experiment, where neither a setting nor the environment names one.

    Raises:
        RaysearchError: an unknown group, choice or key (with the near names), a value of the
            wrong type or out of range, or an override that cannot be read.
    """
    known = groups()
    overrides = [
        parse_override(line) for argument in arguments for line in _spell_out_model(argument)
    ]
    chosen = [o for o in overrides if o.key_or_group in known]
    for override in chosen:
        group, choice = override.key_or_group, override.value()
        if choice not in choices(group):
            raise unknown(KINDS.get(group, group), str(choice), choices(group))
    default = _compose(chosen)
    keys = {*_keys(default), *known}
    for override in overrides:
        if override.key_or_group not in keys:
            raise _unknown_key(override.key_or_group, keys)
    values = _compose(overrides)
    values["tracking"] = settled(values["tracking"], tracked_as)
    for group in FREE:
        check_kinds(values[group], default[group], f"{group}.")
    return Configuration(values, check(values))


def to_yaml(values: Mapping[str, Any]) -> str:
    """Plain values as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(dict(values)))


def from_yaml(path: Path) -> dict[str, Any]:
    """What `to_yaml` wrote to a file.

    Raises:
        RaysearchError: it is missing or damaged.
    """
    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, ValueError, RecursionError, YAMLError, OmegaConfBaseException) as error:
        raise RaysearchError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise RaysearchError(f"{path} is not a configuration")
    return {str(key): value for key, value in values.items()}


def parse_override(argument: str) -> Override:
    """KEY=VALUE, taken apart; raises RaysearchError for anything else."""
    try:
        override: Override = OverridesParser.create().parse_override(argument)
        value = override.value()
    except HydraException as error:
        hint = "expected KEY=VALUE, for example search.epochs=5"
        raise RaysearchError(f"cannot read {argument!r}: {hint}") from error
    if override.is_sweep_override():
        raise RaysearchError(f"{argument}: one value per run; a list is written [a,b]")
    if override.is_delete() or override.package is not None:
        raise RaysearchError(f"{argument}: only KEY=VALUE is understood")
    if value is None and override.key_or_group in groups():
        raise RaysearchError(f"{argument}: a name is missing")
    return override


def _spell_out_model(argument: str) -> list[str]:
    """`model=efficientnet_b0` is short for `model=torchvision model.name=efficientnet_b0`."""
    group, _, name = argument.partition("=")
    if group != "model" or name in choices("model") or not name.isidentifier():
        return [argument]
    from raysearch import models

    if name in models.names():
        return ["model=torchvision", f"model.name={name}"]
    own = [model for model in choices("model") if model != "torchvision"]
    raise RaysearchError(
        f"unknown model {name!r}{near(name, {*own, *models.names()})} "
        f"(known: {', '.join(own)}, and torchvision's classifiers by their names)"
    )


def _compose(overrides: Sequence[Override]) -> dict[str, Any]:
    lines = [str(override.input_line).lstrip("+") for override in overrides]
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3", job_name="raysearch"):
            config = hydra_compose("config", overrides=lines)
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise RaysearchError(" ".join(str(error).split())) from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _keys(values: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield f"{path}{key}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{path}{key}.")


def _unknown_key(key: str, known: set[str]) -> RaysearchError:
    group = key.partition(".")[0]
    if group not in known and (having := _methods_with(group)):
        verb = "has" if len(having) == 1 else "have"
        return RaysearchError(
            f"unknown setting {key!r}: only method={' and '.join(having)} {verb} a {group} group"
        )
    hint = f"{near(key, known)} (--dry-run prints all settings)"
    return RaysearchError(f"unknown setting {key!r}{hint}")


def _methods_with(group: str) -> list[str]:
    """The methods whose files have settings beside the `method` group under this name."""
    files = {name: config_dir() / "method" / f"{name}.yaml" for name in choices("method")}
    return [name for name, path in files.items() if isinstance(from_yaml(path).get(group), Mapping)]
