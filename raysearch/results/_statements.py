"""What the figures say and what they leave open, in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raysearch.results._words import (
    LEARNED,
    capital,
    difference,
    digits,
    method_label,
    phrase,
    predefined_words,
    short,
    signed,
    times,
    with_unit,
)
from raysearch.tasks import Metric

GUESSING = 3.0  # standard errors from guessing, from which something has been learned
REFERENCES = ("none", "predefined", "trivial_augment")
UNMOVED = 0.001  # nats from all alike, below which a search has chosen nothing
NOTHING = 0.005  # operations an image, below which a policy applies nothing


def metric_of(summary: Mapping[str, Any]) -> Metric:
    """What the figures of a summary are."""
    return Metric(**summary["metric"])


def asked(summary: Mapping[str, Any]) -> int:
    """How many methods were asked for, those that could not go on among them."""
    return len({**summary["methods"], **summary["failed_methods"]})


def several(summary: Mapping[str, Any]) -> bool:
    """Whether more than one method was asked for."""
    return asked(summary) > 1


def searched(summary: Mapping[str, Any]) -> list[str]:
    """The rows that a search stands behind."""
    return [name for name, row in summary["rows"].items() if row["kind"] != "baseline"]


def best(names: Sequence[str], summary: Mapping[str, Any]) -> str | None:
    """The row with the best mean of some; None where none has one."""
    sign = 1 if summary["metric"]["lower_is_better"] else -1
    means = {name: summary["errors"][name]["mean"] for name in names}
    known = {name: sign * mean for name, mean in means.items() if mean is not None}
    return min(known, key=lambda name: known[name], default=None)


def references(summary: Mapping[str, Any]) -> list[str]:
    """Rows whose differences have a column in the tables; all others are in `summary.json`.

    The plainest baselines, or else the first row that others have differences from.
    """
    found = {name for each in summary["differences"].values() for name in each}
    known = [name for name in REFERENCES if name in found]
    return known or [name for name in summary["rows"] if name in found][:1]


def statements(summary: Mapping[str, Any], brief: bool = False) -> list[str]:
    """All there is to say about the result.

    Of one method, what its rows' differences say; of several, what a budget buys.

    Args:
        summary: see `summarise`.
        brief: leave out comparisons with baselines that others beat.
    """
    lines = list(guessing(summary))
    if several(summary):
        lines += best_by_budget(summary)
    else:
        lines += _verdicts(summary, brief)
        lines += _unpaired(summary)
    return [*lines, *chosen(summary), *about(summary), *idle(summary), *remarks(summary)]


def chosen(summary: Mapping[str, Any]) -> Iterator[str]:
    """What races chose."""
    for name, method in summary["methods"].items():
        for race in method["races"]:
            (winner, _), *others = race["rows"]
            which = f" of search seed {race['seed']}" if len(method["races"]) > 1 else ""
            yield (
                f"The race of {method_label(name)}{which} chose {winner.replace('+', ' + ')} from "
                f"{len(others) + 1} candidates; who fell when is in the report. All others were "
                "worse on the images held out, or could not be told from it and do more."
            )


def about(summary: Mapping[str, Any]) -> Iterator[str]:
    """What the intervals of rows are about: one policy, or the method."""
    rows = summary["rows"]
    known = [name for name in searched(summary) if len(summary["errors"][name]["runs"]) > 1]
    policies = [name for name in known if rows[name]["about"] == "policy"]
    methods = [name for name in known if rows[name]["about"] == "method"]
    if policies:
        names = _listed(policies, summary)
        each = "each " if len(policies) > 1 else ""
        yield (
            f"The intervals of {names} are {each}about the one policy that is handed over, not "
            "about what another search of the method would find."
        )
    if methods:
        names = _listed(methods, summary)
        yield (
            f"The intervals of {names} are about the method: every evaluation seed has a search of "
            "its own."
        )


def _named(name: str, summary: Mapping[str, Any]) -> str:
    """A row's name within a sentence."""
    return phrase(name, summary["rows"][name]["label"])


def _listed(names: Sequence[str], summary: Mapping[str, Any]) -> str:
    *first, last = (_named(name, summary) for name in names)
    return f"{', '.join(first)} and {last}" if first else last


def _verdicts(summary: Mapping[str, Any], brief: bool) -> Iterator[str]:
    metric, errors = metric_of(summary), summary["errors"]
    for own in searched(summary):
        found = dict(summary["differences"][own])
        if summary["rows"][own]["kind"] != "network":  # which is compared with these
            found = {name: each for name, each in found.items() if name not in searched(summary)}
        others = list(found)
        if brief:
            baselines = [name for name in found if name not in searched(summary)] or list(found)
            top = [best(baselines, summary)] if baselines else []
            wanted = (*top, "trivial_augment", LEARNED)
            others = [name for name in dict.fromkeys(wanted) if name in found]
        for name in others:
            if errors[name]["mean"] is not None:
                yield verdict(_named(name, summary), found[name], _named(own, summary), metric)


def verdict(other: str, found: Mapping[str, Any], own: str, metric: Metric) -> str:
    """What a difference (own minus other) says and what it leaves open.

    Args:
        other, own: what was tested, as in a sentence.
        found: see `paired_difference`.
        metric: that was measured.

    >>> found = {"mean": -1.0, "low": -1.5, "high": -0.5, "seeds": 5, "confidence": 0.95}
    >>> verdict("Cutout", found, "the policy", Metric("error", "test error in %", "%", True))
    'The policy beats Cutout by 1.00 points (95 % CI −1.50 to −0.50, 5 seeds).'
    """
    places = digits(metric)
    subject = capital(own)
    mean, seeds, low, high = found["mean"], found["seeds"], found["low"], found["high"]
    size = f"{abs(mean):.{places}f}" + (" points" if metric.unit == "%" else "")
    if low is None:
        side = "below" if mean < 0 else "above"
        return (
            f"One seed: {own} is {size} {side} {other}, which settles nothing; "
            "use more evaluation seeds."
        )
    measured = short(metric).removeprefix("test ")
    if low == high:
        side = "the same as" if mean == 0 else f"{size} {'below' if mean < 0 else 'above'}"
        return (
            f"On each of {seeds} seeds {own}'s {measured} is {side} that with {other}: with so few "
            "test images or seeds that settles nothing."
        )
    share = f"{100 * found['confidence']:.0f} % CI"
    facts = f"({share} {signed(low, places)} to {signed(high, places)}, {seeds} seeds)"
    if low > 0 or high < 0:
        better = (mean < 0) == metric.lower_is_better
        return f"{subject} {'beats' if better else 'is worse than'} {other} by {size} {facts}."
    side = "lower" if mean < 0 else "higher"
    return (
        f"Against {other} it is not settled: {own}'s {measured} is {size} {side} {facts}, "
        "and the interval holds 0."
    )


def _unpaired(summary: Mapping[str, Any]) -> Iterator[str]:
    """Rows whose seeds are not those of any other."""
    for name in searched(summary):
        error = summary["errors"][name]
        seeds, alone = error["seeds"], len(summary["rows"]) < 2
        if seeds and not (alone or error["failed"] or summary["differences"][name]):
            yield (
                f"{capital(_named(name, summary))} was tested on seeds "
                f"{seeds}, on which nothing else was: no difference can be paired. Give seeds and "
                "evaluation.seeds the same list."
            )


def guessing(summary: Mapping[str, Any]) -> Iterator[str]:
    """That no training can be told from guessing."""
    metric, guess, images = metric_of(summary), summary["guess"], summary["images"]
    top = best(list(summary["errors"]), summary)
    if guess is None or images is None or top is None:
        return
    mean, most = summary["errors"][top]["mean"], 100.0 if metric.unit == "%" else 1.0
    noise = math.sqrt(guess * (most - guess) / images["test"])
    if abs(mean - guess) >= GUESSING * noise and (mean < guess) == metric.lower_is_better:
        return
    yield (
        f"Nothing here can be told from guessing: the best {short(metric)} is "
        f"{with_unit(mean, metric)}, that of always predicting the same {with_unit(guess, metric)}."
        " Differences between policies mean nothing then; more epochs, another learning rate or a "
        "look at the labels come first."
    )


def applies_nothing(policy: Mapping[str, Any]) -> bool:
    """Whether a policy of operations, as a summary holds it, leaves images as they are.

    >>> applies_nothing({"operations": {"Rotate": 1.0}, "operations_per_image": 0.001})
    True
    """
    return bool(policy["operations"]) and policy["operations_per_image"] < NOTHING


def idle(summary: Mapping[str, Any]) -> Iterator[str]:
    """That a search ended with a policy which applies nothing, or where it began."""
    for name, method in summary["methods"].items():
        subject = f"The policy of {method_label(name)}"
        subject = subject if several(summary) else "The learned policy"
        kl_uniform = method["kl_uniform"]
        if kl_uniform is not None and kl_uniform < UNMOVED:
            yield (
                f"{subject} has hardly moved from where its search began, with all choices alike "
                f"(KL divergence {kl_uniform:.1g} nats): the search has learned next to nothing, "
                "and a longer one may."
            )
        if method["searches"] and applies_nothing(method["policy"]):
            count = method["policy"]["operations_per_image"]
            yield (
                f"{subject} applies nothing ({count:.3f} operations an image): the search found "
                "nothing that helps beyond the predefined augmentation."
            )


def best_by_budget(summary: Mapping[str, Any]) -> Iterator[str]:
    """What to take with how much to spend, from the Pareto front."""
    metric, rows, front = metric_of(summary), summary["rows"], summary["front"]
    for name, following in zip(front, [*front[1:], None], strict=True):
        total = times(rows[name]["total_trainings"])
        budget = (
            f"below the cost of {times(rows[following]['total_trainings'])} plain trainings"
            if following is not None
            else f"of {total} plain trainings or more"
        )
        mean = with_unit(summary["errors"][name]["mean"], metric)
        yield (
            f"With a budget {budget}: {rows[name]['label']}, {mean} "
            f"(search and one training cost {total})." + _doubt(summary["steps"].get(name), metric)
        )


def _doubt(step: Mapping[str, Any] | None, metric: Metric) -> str:
    """Whether a row of the front is told apart from the one before it, which is cheaper."""
    if step is None:
        return ""
    settled = step["high"] is not None and (
        step["high"] < 0 if metric.lower_is_better else step["low"] > 0
    )
    points = " points" if metric.unit == "%" else ""
    said = f" That it beats what is cheaper is not settled: {difference(step, metric)}{points}."
    return "" if settled else said


def remarks(summary: Mapping[str, Any]) -> Iterator[str]:
    """What goes with the policies of several methods, and which methods could not go on."""
    methods = summary["methods"]
    data = summary["configuration"].get("data") or {}
    words = predefined_words(data.get("predefined") or {})
    if words and len(methods) > 1 and set(methods) - {"none"}:
        line = f"Every policy but no augmentation goes with the predefined one: {words}"
        for name, method in methods.items():
            own = predefined_words(method["predefined"])
            if name != "none" and own != words:
                shown = method_label(name)
                line += f"; {shown} with this instead: {own}" if own else f"; {shown} goes alone"
        yield f"{line}."
    for name, reason in summary["failed_methods"].items():
        yield f"{method_label(name)} could not go on and is left out: {reason}."
