"""The settings of an experiment: types and ranges, checked before anything is started."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from pathlib import PureWindowsPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from raysearch.credentials import NO_CREDENTIALS, redacted
from raysearch.errors import RaysearchError
from raysearch.settings import (
    STRICT,
    BelowOne,
    Between,
    Count,
    NotNegative,
    PathWord,
    Positive,
    Probability,
    WholeNumber,
    Word,
    in_one_line,
    leaves,
    wrong,
)

AUTO = "auto"  # a setting that is chosen when the experiment is planned
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def _name(name: str) -> str:
    if sys.platform == "win32" and (name.endswith(".") or PureWindowsPath(name).is_reserved()):
        raise ValueError("Windows has no folder of this name; choose another")
    if not NAME.fullmatch(name):
        raise ValueError(
            "use letters (A to Z, a to z), digits, '.', '_' and '-', at most 100, beginning with a "
            "letter or a digit"
        )
    return name


def _seed_list(value: Any) -> Any:
    """A count stands for the seeds 0, 1, ..., count - 1."""
    if isinstance(value, bool) or not isinstance(value, int | list):
        raise ValueError("expected a whole number of seeds or a list of seeds such as [0,1,2]")
    seeds = list(range(value)) if isinstance(value, int) else value
    if any(isinstance(s, bool) or not isinstance(s, int) or s < 0 for s in seeds):
        raise ValueError("expected seeds that are whole numbers of at least 0")
    if not seeds:
        raise ValueError("expected at least one seed")
    if len(set(seeds)) < len(seeds):
        raise ValueError("expected each seed once")
    return seeds


Seeds = Annotated[list[int], BeforeValidator(_seed_list)]


class _Section(BaseModel):
    model_config = STRICT


class TrainingSettings(_Section):
    """A training with SGD and what each trial holds; configs/config.yaml has the units."""

    epochs: Count
    batch_size: Count
    lr: Positive
    momentum: BelowOne
    nesterov: bool
    weight_decay: NotNegative
    cpus_per_trial: Positive | None
    gpus_per_trial: Probability | None


class SearchSettings(TrainingSettings):
    """The `search` group."""

    val_fraction: Between
    max_failures: WholeNumber


class EvaluationSettings(TrainingSettings):
    """The `evaluation` group."""

    policies: list[PathWord]  # of files, or names, which look like no path
    seeds: Seeds
    label_smoothing: BelowOne
    enlarge_batch: Count


class FinetuneSettings(TrainingSettings):
    """The `finetune` group, of a method whose search is made of many short trainings."""

    parallel: Count


class TrackingSettings(_Section):
    """The `tracking` group."""

    name: Literal["mlflow", "none"]
    uri: str | None = Field(min_length=1)
    experiment: str = Field(min_length=1)


class Named(BaseModel):
    """A group whose other keys are checked by the part that they are for."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str


class Settings(_Section):
    """A whole configuration."""

    name: Annotated[Word, AfterValidator(_name)] | None
    runs_dir: PathWord
    storage: PathWord | None
    device: Literal["auto", "cpu", "cuda"]
    task: Literal["classification", "multi_label"] | None = None
    metric: Literal["error", "balanced_error", "auroc", "map"] | None = None
    seeds: Seeds
    search: SearchSettings
    method: Named
    finetune: FinetuneSettings | None = None
    data: Named
    model: Named
    evaluation: EvaluationSettings
    tracking: TrackingSettings


def check(config: Mapping[str, Any]) -> Settings:
    """The settings, typed.

    Raises:
        RaysearchError: one of them has the wrong type or is out of range, or is a URL with a
            password or the like: settings are stored, logged, tracked and shown.
    """
    for key, value in leaves(config):
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and redacted(text) != text:
                raise RaysearchError(f"{key}={redacted(text)}: {NO_CREDENTIALS}")
    try:
        return Settings.model_validate(dict(config))
    except ValidationError as error:
        raise in_one_line(error, config, list(Settings.model_fields)) from None


def check_kinds(config: Mapping[str, Any], default: Mapping[str, Any], path: str) -> None:
    """Values of a group without a schema have the kind of their defaults.

    Raises:
        RaysearchError: a number where a word was, a word where a list was, and so on.
    """
    for key, value in config.items():
        where, known = f"{path}{key}", default.get(key)
        if isinstance(value, float) and not math.isfinite(value):
            raise wrong(where, value, "a finite number")
        if isinstance(known, Mapping) and isinstance(value, Mapping):
            check_kinds(value, known, f"{where}.")
        elif known in (None, AUTO) or value in (None, AUTO):
            continue  # whoever reads the setting says what it takes
        elif _kind(known) != _kind(value):
            raise wrong(where, value, f"{_kind(known)} (default: {known})")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a word"
    return "a list" if isinstance(value, list) else "a group of settings"
