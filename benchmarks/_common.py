"""What the benchmark programs share: arguments, settings, real data, the closing JSON line."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from raysearch import methods
from raysearch.data import Dataset, load_dataset
from raysearch.errors import RaysearchError, unknown
from raysearch.methods import Member, PreparedTrialSearch
from raysearch.policy import Policy, read_policy
from raysearch.results import paired_difference
from raysearch.training import Setup
from raysearch.tune import MembersJob, Share, Wish, cluster, run_populations

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
console = Console()
_KINDS = {int: "a whole number", float: "a number", str: "a word"}


def arguments(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`key=value` arguments of the command line over their defaults, typed like these.

    `method.KEY=VALUE` arguments pass through untyped, for `method_settings`. An unknown key or a
    value of the wrong type ends the program with one line.
    """
    values = dict(defaults)
    for argument in sys.argv[1:]:
        key, found, text = argument.partition("=")
        if not found or (key not in defaults and not key.startswith("method.")):
            raise SystemExit(f"error: {unknown('argument', key, [f'{k}=' for k in defaults])}")
        parsed = text if isinstance(defaults.get(key), str) else yaml.safe_load(text)
        if key in defaults and not isinstance(parsed, _accepted(defaults[key])):
            raise SystemExit(f"error: {key}={text}: expected {_KINDS[type(defaults[key])]}")
        values[key] = parsed
    return values


def _accepted(default: Any) -> tuple[type, ...]:
    return (float, int) if isinstance(default, float) else (type(default),)


def method_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """The `method` group of `configs/method/NAME.yaml`, `method.KEY=VALUE` arguments over it."""
    settings = _method_file(values["method"])
    for key, value in values.items():
        if key.startswith("method."):
            settings[key.removeprefix("method.")] = value
    return settings


def _method_file(name: str) -> dict[str, Any]:
    path = CONFIGS / "method" / f"{name}.yaml"
    if not path.exists():
        known = [p.stem for p in path.parent.glob("*.yaml")]
        raise SystemExit(f"error: {unknown('method', name, known)}")
    content = yaml.safe_load(path.read_text())
    bases = [entry for entry in content.get("defaults", []) if isinstance(entry, str)]
    merged: dict[str, Any] = {}
    for base in bases:
        merged |= content["method"] if base == "_self_" else _method_file(base)
    return merged or dict(content["method"])


def trial_settings(
    name: str, method: Mapping[str, Any], search: Mapping[str, Any]
) -> dict[str, Any]:
    """How the trials of a method train, of one that has many; see `TrialSearch`.

    Args:
        name: of the method's configuration.
        method: its settings.
        search: the search's.
    """
    group = _finetune(name, search)
    trials = methods.find_trials(method["name"]) or methods.TrialSearch
    parallel = group.get("parallel") or method.get("parallel") or trials.group(1, method)
    return {**(group or search), "parallel": parallel}


def _finetune(name: str, search: Mapping[str, Any]) -> dict[str, Any]:
    """The `finetune` group of a configuration; what it takes from `search` filled in."""
    group: dict[str, Any] = {}
    content = yaml.safe_load((CONFIGS / "method" / f"{name}.yaml").read_text())
    for base in (entry for entry in content.get("defaults", []) if isinstance(entry, str)):
        if base != "_self_":
            group |= _finetune(base, search)
    for key, value in content.get("finetune", {}).items():
        reference = str(value).startswith("${search.")
        group[key] = search[value[len("${search.") : -1]] if reference else value
    return group


@dataclass(frozen=True)
class Searched:
    """A whole search in this process.

    Attributes:
        policy: what it found.
        history: the metrics of every epoch or round; `epoch_equivalents` are those of the whole
            search so far.
        test: what `SearchMethod.test` says.
    """

    policy: Policy
    history: list[dict[str, float]]
    test: dict[str, float]

    @property
    def metrics(self) -> dict[str, float]:
        """Those of the last epoch or round."""
        return self.history[-1]


def search_through(
    setup: Setup, search: Mapping[str, Any], method: Mapping[str, Any], finetune: Mapping[str, Any]
) -> Searched:
    """Search with a method, in one trial or in many, one after the other.

    A population's members train one after the other too, on a Ray of their own: there is no other
    implementation of the algorithm.

    Args:
        setup, search, method: see `SearchMethod`.
        finetune: for methods of many trials; see `TrialSearch`.
    """
    members = methods.find_members(method["name"])
    if members is not None:
        return _populate(setup, search, method, members)
    trials = methods.find_trials(method["name"])
    prepared: Mapping[str, Any] = {}
    before, history = 0.0, []
    if trials is None or issubclass(trials, PreparedTrialSearch):
        first = methods.build(method["name"], setup, search, method)
        while first.epoch < first.epochs:
            history.append(first.step())
        if trials is None:
            return Searched(first.policy(), history, first.test())
        prepared = first.trained() or {}
        before = history[-1]["epoch_equivalents"]
    rows: list[dict[str, float]] = []
    found = trials(setup.seed, method, finetune)
    methods.carry_out(found, trials.worker(setup, method, finetune, prepared), rows.append)
    history = [{**row, "epoch_equivalents": before + row["epoch_equivalents"]} for row in rows]
    return Searched(found.policy(), history, {})


@dataclass(frozen=True)
class _Trial:
    """A search as `run_populations` knows it."""

    name: str
    seed: int
    id: str = "search"
    policy: None = None


@dataclass(frozen=True)
class _Members:
    """Builds the members of one setup."""

    cls: type[Member]
    setup: Setup
    search: Mapping[str, Any]
    method: Mapping[str, Any]

    def __call__(self, seed: int, member: int) -> Member:
        return self.cls(self.setup, self.search, self.method, member)


def _populate(
    setup: Setup, search: Mapping[str, Any], method: Mapping[str, Any], cls: type[Member]
) -> Searched:
    """A search by a population, in a folder that is removed."""
    trial = _Trial(method["name"], setup.seed)
    build = _Members(cls, setup, search, method)
    with (
        tempfile.TemporaryDirectory() as folder,
        cluster(Wish(device="cpu", cpus=1)) as capacity,
    ):
        [found] = run_populations(
            "search",
            {trial.id: cls.population(setup.seed, search, method)},
            [trial],
            MembersJob(build, Share(1.0, 0.0, capacity.device)),
            folder=Path(folder),
            max_failures=0,
            at_once=1,
        )
        assert found.policy is not None
        return Searched(read_policy(found.policy), found.progress.history, {})


def cifar10(limit: int | None = None) -> Dataset | None:
    """CIFAR-10 from `RAYSEARCH_DATA`, or None where that does not have it."""
    root = os.environ.get("RAYSEARCH_DATA") or CONFIGS.parent.parent / "shared" / "data"
    if not (Path(root) / "cifar10" / "train.parquet").exists():
        return None
    return load_dataset({"name": "parquet", "root": str(Path(root) / "cifar10"), "limit": limit})


def images_of(split: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """All images (uint8 [N, C, H, W]) and labels of a split."""
    batches = split.batches(4096, device=torch.device("cpu"), generator=None)
    images, labels, _ = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def compared(values: Sequence[float], baseline: Sequence[float]) -> tuple[list[float], str]:
    """Mean of `values - baseline`, paired by seed, and its 95 % interval: as numbers, as text.

    Args:
        values, baseline: one number a seed, in the same order; two at least.
    """
    found = paired_difference(dict(enumerate(values)), dict(enumerate(baseline))) or {}
    numbers = [round(found[key], 3) for key in ("mean", "low", "high")]
    return numbers, "{:+.2f} [{:+.2f}, {:+.2f}]".format(*numbers)


def plot_path(text: str) -> Path | None:
    """Where to draw, None for nowhere; looked at before anything is measured.

    Raises:
        RaysearchError: there is no such folder, or the ending is none that can be drawn.
    """
    if not text:
        return None
    path = Path(text)
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise RaysearchError(f"plot={text}: expected a name that ends in .png, .svg or .pdf")
    if not path.parent.is_dir():
        raise RaysearchError(f"plot={text}: there is no folder {path.parent}")
    return path


def finish(result: Mapping[str, Any]) -> None:
    """Print the result as the program's last line, for machines."""
    print(json.dumps(result), flush=True)


def run(main: Any) -> None:
    """Call `main`; what the user can mend ends the program with one line."""
    try:
        main()
    except RaysearchError as error:
        raise SystemExit(f"error: {error}") from None
