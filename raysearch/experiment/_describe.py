"""What an experiment would do and cost, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raysearch.experiment._compose import to_yaml
from raysearch.experiment._data_table import data_lines
from raysearch.experiment._forecast import Forecast, Group
from raysearch.results import duration

if TYPE_CHECKING:
    from raysearch.experiment._plan import Plan


def describe(plan: Plan, forecast: Forecast, done: Sequence[str] = ()) -> str:
    """The data, the trials, what they hold, an estimate of the cost, and all settings.

    Args:
        plan: the trials.
        forecast: what those cost that are left.
        done: methods that have been carried out already.
    """
    experiment = plan.experiment
    values = experiment.document() if experiment.compared else experiment.values
    data = data_lines(plan.dataset, experiment.settings.search.val_fraction)
    lines = ["# data", *data, "", "# trials"]
    if done:
        lines.append(f"done already: {', '.join(done)}")
    several = len(plan.parts) > 1
    for group in forecast.groups:
        lines += _trials(group, several)
    if plan.notes:
        lines += ["", "# chosen", *plan.notes]
    lines += ["", "# cost", *_cost(forecast)]
    if advice := forecast.advice(min(plan.dataset.size)):
        lines.append(advice)
    lines += ["", "# settings", to_yaml(values).rstrip()]
    return "\n".join(lines)


def described(plan: Plan, device: str) -> str:
    """What an experiment works on: in a line, and then as a table, with what was set aside."""
    data, model = plan.dataset, plan.experiment.settings.model.name
    images = data.counts
    line = (
        f"{data.name}: {images['train'] + images['val']} images to train on, {images['test']} to "
        f"test, {len(data.classes)} classes; {model} on {device}"
    )
    return "\n".join([line, *data_lines(data, plan.experiment.settings.search.val_fraction)])


def cautions(plan: Plan) -> list[str]:
    """What can be done and should not, in words: trainings with a step or none an epoch."""
    settings, counts = plan.experiment.settings.evaluation, plan.dataset.counts
    images = counts["train"] + counts["val"]
    if images >= 2 * settings.batch_size:
        return []
    return [
        f"an epoch of {images} images is one step with evaluation.batch_size="
        f"{settings.batch_size}, {settings.epochs} in a training: smaller batches "
        f"(evaluation.batch_size={max(8, images // 8)} search.batch_size={max(8, images // 16)}) "
        "learn more from so few"
    ]


def _trials(group: Group, several: bool) -> list[str]:
    whose = f"{group.method}: " if several else ""
    trials = f"{whose}{group.stage}: {group.described}, {_holding(group)}"
    each = " each" if group.count > 1 else ""
    whole = f", {group.equivalents * group.count:.1f} in all" if each else ""
    return [
        trials,
        f"  cost: {group.equivalents:.1f} epoch-equivalents{each}{whole}; "
        f"{duration(group.seconds)}{each} on one CPU thread of this machine",
    ]


def _cost(forecast: Forecast) -> list[str]:
    how = "time: depends on the GPUs or the cluster, which were not asked"
    if forecast.seconds is not None:
        about = duration(forecast.seconds)
        how = f"about {about}, from counted arithmetic and a few steps timed just now"
    unit = "(one: a plain training epoch on the search's train split)"
    return [f"{forecast.equivalents:.0f} epoch-equivalents {unit}", how]


def _holding(group: Group) -> str:
    if group.place is None:
        return "as many at once as the cluster has room for"
    share = group.place.share
    gpus = f" and {share.gpus:g} GPU" if share.gpus else ""
    return f"{group.place.at_once} at once, each with {share.cpus:g} CPU{gpus}, on {share.device}"
