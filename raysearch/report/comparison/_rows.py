"""What is compared: a row for every policy and network that runs have tested."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from raysearch import __version__
from raysearch.errors import RaysearchError
from raysearch.report._costs import PLAIN
from raysearch.report._statistics import BASELINES, JOINT, paired_difference, spread
from raysearch.tracking import COSTS

REFERENCES = ("none", "trivial_augment")
"""What every row is compared with, where it is there."""

# Settings that the runs of a comparison have in common; what trials hold changes only their time.
COMMON = ("data", "model", "evaluation")
FREE = (
    "evaluation.policies",
    "evaluation.seeds",
    "evaluation.cpus_per_trial",
    "evaluation.gpus_per_trial",
    "data.root",
    "data.memory_limit_mb",
)


@dataclass(frozen=True)
class Entry:
    """A run of the comparison.

    Attributes:
        name: of the method, or of the run where methods are not unique.
        summary: the run's, see `write_report`.
        folder: where its files are; None where only the summary is known.
    """

    name: str
    summary: Mapping[str, Any]
    folder: Path | None = None


def compare(
    name: str, entries: Sequence[Entry], failed: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The comparison of runs, as `comparison.json` holds it.

    Errors are in percent, differences in percentage points, paired by seed, negative is better.
    Costs are those of the search of a row's policy, 0 where it needs none: `search` in the three
    units, where arithmetic counts in plain epochs over all training images, because runs that
    validate on other shares of the images have other epoch-equivalents; `trainings_bought` is it
    over one plain training, i.e. how many of these it would have paid for; `total_trainings` the
    search's and one training's. `total_time` is the same in device time. `front` names the rows
    on the Pareto front of `total_trainings` and mean error, `steps` their differences from the one
    before them.

    Args:
        name: of the comparison.
        entries: the runs; a baseline that several have evaluated is taken from the first.
        failed: why methods that were asked for are not there, by their names.

    Raises:
        RaysearchError: there is none, or they cannot be compared: other data, another network or
            other settings of the evaluation.
    """
    if not entries:
        raise RaysearchError("there is nothing to compare: no run has been evaluated")
    for entry in entries[1:]:
        _check_comparable(entries[0], entry)
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        for row in _rows(entry):
            found.setdefault(row["name"], row)
    if not found:
        raise RaysearchError("there is nothing to compare: no run has evaluated a policy")
    rows = sorted(found.values(), key=_place)
    plain = _plain(rows)
    for row in rows:
        _relate(row, rows, plain)
    first, front = entries[0].summary, _front(rows)
    guesses = (entry.summary.get("guess_error") for entry in entries)
    by_name = {row["name"]: _by_seed(row) for row in rows}
    return {
        "name": name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "rows": rows,
        "plain_training": plain["name"],
        "front": front,
        "steps": {
            name: paired_difference(by_name[name], by_name[before])
            for before, name in pairwise(front)
        },
        "references": [key for key in REFERENCES if key in found],
        "runs": [
            {"name": entry.name, "folder": str(entry.folder) if entry.folder else None}
            for entry in entries
        ],
        "failed": dict(failed or {}),
        "images": first["images"],
        "guess_error": next((guess for guess in guesses if guess is not None), None),
        "settings": {key: first["configuration"][key] for key in COMMON},
        "tracking": first["tracking"],
    }


def _rows(entry: Entry) -> Iterator[dict[str, Any]]:
    """A row for each policy that a run has evaluated, and for its joint network."""
    summary = entry.summary
    nothing = dict.fromkeys(COSTS, 0.0)
    searches = max(1, len(summary["seeds"]["search"]))
    scale = {"epoch_equivalents": _epochs_per_equivalent(summary)}
    for policy, error in summary["errors"].items():
        if not error["runs"]:
            continue
        own = policy in (summary["row"], JOINT)
        search = {cost: summary["search"][cost] for cost in COSTS} if own else nothing
        if policy == JOINT:  # the network of one search, without a training
            search = {cost: value / searches for cost, value in search.items()}
        training = _training(summary, policy)
        yield {
            "name": _name(entry.name, policy, own),
            "method": summary["configuration"]["method"]["name"] if own else policy,
            "joint": policy == JOINT,
            "run": summary["name"],
            "error": dict(error),
            "search": {cost: value * scale.get(cost, 1.0) for cost, value in search.items()},
            "training": {cost: value * scale.get(cost, 1.0) for cost, value in training.items()},
            "policy": summary["policy"] if own and policy != JOINT else None,
            "predefined": summary.get("predefined") if own and policy != JOINT else None,
            "tracking": summary["tracking"] if own and policy != JOINT else None,
        }


def _epochs_per_equivalent(summary: Mapping[str, Any]) -> float:
    """Plain epochs over all training images in one of the run's epoch-equivalents."""
    settings = summary["configuration"]["evaluation"]
    trainings = [
        _training(summary, policy)["epoch_equivalents"] for policy in summary["evaluations"]
    ]
    known = [training for training in trainings if training > 0]
    return settings["epochs"] * settings["enlarge_batch"] / known[0] if known else 1.0


def _name(entry: str, policy: str, own: bool) -> str:
    if policy == JOINT:
        return f"{entry} (network)"
    if own:
        return entry
    if policy == "randaugment":
        return f"{policy} (2, 9)"
    return policy if policy in BASELINES and policy != "uniform" else f"{policy} ({entry})"


def _training(summary: Mapping[str, Any], policy: str) -> dict[str, float]:
    """The mean cost of one training with a policy; 0 for a network that a search trained."""
    runs = summary["evaluations"].get(policy, {}).get("runs", [])
    return {cost: fmean(run[cost] for run in runs) if runs else 0.0 for cost in COSTS}


def _place(row: Mapping[str, Any]) -> tuple[bool, int]:
    """Baselines first, in their usual order; what was searched as it comes."""
    known = row["name"] in BASELINES and not row["search"]["epoch_equivalents"]
    return not known, BASELINES.index(row["name"]) if known else 0


def _plain(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The row whose training is the unit of cost: none, predefined, or the cheapest."""
    by_name = {row["name"]: row for row in rows}
    for name in PLAIN:
        if name in by_name:
            return by_name[name]
    trained = [row for row in rows if not row["joint"]] or list(rows)
    return min(trained, key=lambda row: row["training"]["device_seconds"])


def _relate(
    row: dict[str, Any], rows: Sequence[Mapping[str, Any]], plain: Mapping[str, Any]
) -> None:
    """Add what a row costs in plain trainings, and its differences from the references."""

    def over(cost: str, seconds: float) -> float | None:
        unit = plain["training"][cost]
        return seconds / unit if unit > 0 else None

    arithmetic, time = "epoch_equivalents", "device_seconds"
    row["trainings_bought"] = over(arithmetic, row["search"][arithmetic])
    for key, cost in (("total_trainings", arithmetic), ("total_time", time)):
        row[key] = over(cost, row["search"][cost] + row["training"][cost])
    own = _by_seed(row)
    row["differences"] = {
        other["name"]: difference
        for other in rows
        if other["name"] in REFERENCES
        and other is not row
        and (difference := paired_difference(own, _by_seed(other))) is not None
    }
    mean, deviation = spread(row["error"]["runs"])
    row["error"] |= {"mean": mean, "std": deviation}


def _by_seed(row: Mapping[str, Any]) -> dict[int, float]:
    return dict(zip(row["error"]["seeds"], row["error"]["runs"], strict=True))


def _front(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows than which none is both cheaper (or as cheap) and better, the cheapest first."""
    known = [row for row in rows if row["total_trainings"] is not None]
    front: list[str] = []
    best = math.inf
    for row in sorted(known, key=lambda row: (row["total_trainings"], row["error"]["mean"])):
        if row["error"]["mean"] < best:
            best = row["error"]["mean"]
            front.append(row["name"])
    return front


def _check_comparable(one: Entry, other: Entry) -> None:
    configurations = one.summary["configuration"], other.summary["configuration"]
    check_alike(one.name, configurations[0], other.name, configurations[1])
    check_images(one.name, one.summary, other.name, other.summary)


def check_images(
    name: str, summary: Mapping[str, Any], other: str, others: Mapping[str, Any]
) -> None:
    """Runs with these images can be compared.

    Args:
        name, summary: a run's; of the summary `images`, how many of each split, and `classes`.
        other, others: another's.

    Raises:
        RaysearchError: they have other images or classes.
    """
    for key in ("images", "classes"):
        if summary[key] != others[key]:
            raise RaysearchError(f"{name} and {other} cannot be compared: they have other {key}")


def check_alike(
    name: str, values: Mapping[str, Any], other: str, others: Mapping[str, Any]
) -> None:
    """Runs with these configurations can be compared.

    Args:
        name, values: a run's, and its configuration.
        other, others: another's.

    Raises:
        RaysearchError: they have other data, another network or another evaluation.
    """
    for group in COMMON:
        first, second = dict(leaves(values[group], group)), dict(leaves(others[group], group))
        for key in sorted(first.keys() | second.keys()):
            if key not in FREE and first.get(key) != second.get(key):
                raise RaysearchError(
                    f"{name} and {other} cannot be compared: {key} is "
                    f"{first.get(key)} in one and {second.get(key)} in the other"
                )


def leaves(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by their dotted names."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, values
