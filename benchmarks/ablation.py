"""Do a policy's weights mean anything: what does removing its most probable elements cost?

    python -m benchmarks.ablation policy=runs/x/policy.json [data=digits|cifar10] [remove=3]

As in AWS (Tian et al., NeurIPS 2020, section 4), where the first three elements, removed one after
the other, take the error from 2.91 to 3.10, 3.13 and 3.19 %. Networks are retrained from scratch
on all training images with the whole policy and without its 1, 2, ... most probable elements, on
the same seeds, with the predefined augmentation, and tested once. What is removed is an element of
pairs (the policy given that it is not drawn), a candidate, or from sub-policies an operation, with
all sub-policies that contain it; what is left is normalised.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from benchmarks._common import arguments, compared, console, finish, run, workers
from benchmarks.gain import setting_of, train
from raysearch.errors import RaysearchError
from raysearch.policy import Candidates, Pairs, Policy, SubPolicies, read_policy
from raysearch.results import mean_and_std

DEFAULTS = {
    "policy": "",  # the path of a policy file
    "data": "digits",
    "seeds": 5,
    "remove": 3,
    "epochs": 0,  # 0: the setup's own
    "limit": 4000,
    "workers": os.cpu_count() or 1,
}
PAPER = (2.91, 3.10, 3.13, 3.19)


@dataclass(frozen=True)
class Elements:
    """What can be removed from a policy.

    Attributes:
        names: of the elements.
        rates: how often each is applied, to scale.
        without: the policy without some, by their positions; a ValueError where nothing is left.
    """

    names: Sequence[str]
    rates: Sequence[float]
    without: Callable[[Sequence[int]], Policy]


def elements_of(policy: Policy) -> Elements:
    """What can be removed from a policy.

    Raises:
        RaysearchError: nothing, by its kind.
    """
    if isinstance(policy, Pairs):
        return Elements(policy.elements, policy.element_rates().tolist(), policy.without)
    if isinstance(policy, Candidates):
        return _candidates(policy)
    if isinstance(policy, SubPolicies):
        return _operations(policy)
    raise RaysearchError(
        f"policy of kind {policy.kind}: expected pairs, candidates or sub_policies"
    )


def _candidates(policy: Candidates) -> Elements:
    def without(elements: Sequence[int]) -> Candidates:
        p = policy.probabilities.clone()
        p[list(elements)] = 0
        return Candidates(
            policy.operations, policy.magnitudes, p, policy.augment, policy.count, policy.ranges
        )

    shown = zip(policy.operations, policy.magnitudes.tolist(), strict=True)
    names = [f"{name}({magnitude:.2f})" for name, magnitude in shown]
    return Elements(names, policy.probabilities.tolist(), without)


def _operations(policy: SubPolicies) -> Elements:
    names = list(policy.marginals())

    def without(elements: Sequence[int]) -> SubPolicies:
        gone = {names[i] for i in elements}
        kept = [i for i, one in enumerate(policy.operations) if not gone & set(one)]
        return SubPolicies(
            [policy.operations[i] for i in kept],
            policy.weights[kept],
            policy.probabilities[kept],
            policy.magnitudes[kept],
            policy.ranges,
        )

    return Elements(names, list(policy.marginals().values()), without)


def removals(policy: Policy, count: int) -> list[tuple[str, Policy]]:
    """The names of the `count` most probable elements, and the policy without all up to each.

    Raises:
        RaysearchError: the policy has no elements, or not so many that something would be left.
    """
    elements = elements_of(policy)
    order = sorted(range(len(elements.names)), key=lambda i: -elements.rates[i])
    if count < 1 or count >= len(order):
        raise RaysearchError(f"remove={count}: the policy has {len(order)} elements")
    try:
        return [
            (elements.names[last], elements.without(order[: k + 1]))
            for k, last in enumerate(order[:count])
        ]
    except ValueError:
        raise RaysearchError(f"remove={count}: nothing of the policy would be left") from None


def main() -> None:
    """Measure and print."""
    values = arguments(DEFAULTS)
    if values["seeds"] < 2:
        raise RaysearchError("seeds=N: at least 2, so that there is a spread")
    if not values["policy"]:
        raise RaysearchError("policy=PATH: which policy? (a policy.json of a run)")
    whole = read_policy(values["policy"])
    removed = removals(whole, values["remove"])
    setting = setting_of(values)
    jobs = [
        (setting, policy, setting.predefined, seed)
        for policy in (whole, *(policy for _, policy in removed))
        for seed in range(values["seeds"])
    ]
    with workers(values["workers"]) as pool:
        trained = list(pool.map(train, jobs))
    errors = [error for error, _ in trained]
    n = values["seeds"]
    by_row = [errors[i : i + n] for i in range(0, len(errors), n)]
    names = [name for name, _ in removed]
    report(values, setting.evaluation["epochs"], names, by_row, sum(s for _, s in trained))


def report(
    values: Mapping[str, Any],
    epochs: int,
    names: Sequence[str],
    errors: Sequence[Sequence[float]],
    seconds: float,
) -> None:
    """The table for people and the line for machines.

    Args:
        values, epochs: what was asked for.
        names: of the elements, in the order of removal.
        errors: of the whole policy, then after each removal; by seed, percent.
        seconds: of all trainings.
    """
    table = Table(title=f"{values['data']}: test error %, {values['seeds']} seeds, {epochs} epochs")
    for heading in ("policy", "error %", "minus whole, 95 % interval", "paper, error %"):
        table.add_column(heading)
    differences: list[list[float]] = []
    for i, runs in enumerate(errors):
        row, text = "whole", ""
        if i:
            row = f"without {names[i - 1]}" if i == 1 else f"and without {names[i - 1]}"
            difference, text = compared(runs, errors[0])
            differences.append(difference)
        paper = f"{PAPER[i]:.2f}" if i < len(PAPER) else ""
        table.add_row(row, "{:.2f} ± {:.2f}".format(*mean_and_std(runs)), text, paper)
    console.print(table)
    finish(
        {
            "benchmark": "ablation",
            "policy": values["policy"],
            "data": values["data"],
            "epochs": epochs,
            "removed": list(names),
            "errors": [[round(error, 3) for error in runs] for runs in errors],
            "difference": differences,
            "training_seconds": round(seconds, 1),
        }
    )


if __name__ == "__main__":
    run(main)
