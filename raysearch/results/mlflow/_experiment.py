"""An MLflow experiment's finished runs, read back; and a comparison, added to it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from raysearch import __version__
from raysearch.errors import RaysearchError
from raysearch.results._frame import Measured
from raysearch.results._write import HISTORY, NEEDED, PICTURES, SUMMARY, TRIALS, read
from raysearch.results.mlflow._fields import main_row, row_figures
from raysearch.results.mlflow._reasons import reason
from raysearch.results.mlflow._store import Store, absolute, attach

COMPARISON_TAG = "raysearch.comparison"
JOINED_TAG = "raysearch.joined"

VIEW = "raysearch"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"


def read_experiment(uri: str | None, experiment: str) -> list[Measured]:
    """What an MLflow experiment's finished runs have measured, the oldest first.

    Args:
        uri: of the store, see `Store`.
        experiment: its name.

    Raises:
        RaysearchError: the store cannot be used, or has no such experiment or no finished run.
    """
    store = Store(uri, experiment, create=False)
    found = []
    try:
        for run in _finished(store):
            there = {file.path for file in store.client.list_artifacts(run.info.run_id)}
            if {SUMMARY, TRIALS, HISTORY} <= there:
                with tempfile.TemporaryDirectory() as folder:
                    for name in there & {*NEEDED, *PICTURES}:
                        store.client.download_artifacts(run.info.run_id, name, folder)
                    measured = read(Path(folder))
                where = f"MLflow run {run.info.run_name}"
                found.append(replace(measured, folder=where))
    except RaysearchError:
        raise
    except Exception as error:  # whatever a store raises
        raise RaysearchError(f"MLflow at {store.uri}: {reason(error)}") from None
    if not found:
        raise RaysearchError(f"the MLflow experiment {experiment!r} has no finished run")
    return found


def _finished(store: Store) -> Iterator[Any]:
    """The experiment's runs that have reached their end, the oldest first; no trials.

    A run with the files of several methods is among them, unless others' runs are in it.
    """
    ended = "attributes.status = 'FINISHED'"
    yield from store.search(f"{ended} and tags.`raysearch.stage` = 'done'")
    yield from store.search(
        f"{ended} and tags.`{COMPARISON_TAG}` != '' and tags.`{JOINED_TAG}` = 'no'"
    )


def log_comparison(
    summary: Mapping[str, Any], folder: Path, uri: str | None, *, warn: Callable[[str], None]
) -> str | None:
    """Add a comparison to its methods' MLflow experiment, and a view of them; never raises.

    Its files go to a run of their own, made once. The run of each method gets its differences from
    the baselines, `difference/<baseline>/mean`, `/low` and `/high`, and its cost in plain
    trainings, `trainings_bought` and `total_trainings`, which are known only now.

    Args:
        summary: of the comparison; see `summarise`.
        folder: with its files.
        uri: of the user's store; runs of others are left alone.
        warn: called with one line when it cannot be written.

    Returns:
        How to see it; None when it was not written.
    """
    tracking = summary["tracking"]
    if tracking is None or tracking["uri"] != absolute(uri):
        return None
    try:
        store = Store(uri, tracking["experiment"])
        run_id = _own_run(store, summary)
        attach(store, run_id, folder)
        for name, method in summary["methods"].items():
            own, row = method["tracking"], main_row(summary, name)
            if own is not None and own["uri"] == store.uri and row is not None:
                for key, figure in row_figures(summary, row).items():
                    store.client.log_metric(own["run_id"], key, figure)
        state = json.dumps(_view(f"test_{summary['metric']['name']}", summary["metric"]))
        store.client.set_experiment_tag(store.experiment_id, VIEW_TAG, state)
        store.client.set_terminated(run_id)
    except Exception as error:  # the files are on disk already
        warn(f"MLflow at {tracking['uri']} has not got the comparison ({reason(error)})")
        return None
    return store.view_of_experiment(VIEW)


def _view(metric: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """A view that is kept with an experiment, as MLflow's own button "Share" keeps one.

    The finished runs by their metric, with their costs as columns, and both as charts.
    """
    chart = {
        "deleted": False,
        "isGenerated": False,
        "metricSectionId": VIEW,
        "runsCountToCompare": 100,
    }
    # MLflow sorts columns by their names, and some four fit on a screen beside the run's name.
    columns = (metric, f"{metric}_std", "total_trainings", "trainings_bought")
    return {
        "searchFilter": "tags.`raysearch.stage` = 'done'",
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": known["lower_is_better"],
        "selectedColumns": ["params.`method.name`", *(f"metrics.`{name}`" for name in columns)],
        "compareRunSections": [
            {"uuid": VIEW, "name": "Cost against error", "display": True, "isReordered": False}
        ],
        "compareRunCharts": [
            {
                **chart,
                "type": "SCATTER",
                "uuid": "scatter",
                "xaxis": {"key": "total_trainings", "type": "METRIC"},
                "yaxis": {"key": metric, "type": "METRIC"},
            },
            {
                **chart,
                "type": "PARALLEL",
                "uuid": "parallel",
                "selectedParams": ["method.name"],
                "selectedMetrics": ["total_trainings", "search_device_seconds", metric],
                "showAllRuns": True,
            },
        ],
    }


def _own_run(store: Store, summary: Mapping[str, Any]) -> str:
    """The id of the run that holds the comparison's files."""
    name, joined = summary["name"], "yes" if summary["joined"] else "no"
    if found := store.search(f"tags.`{COMPARISON_TAG}` = '{name}'"):
        run_id = str(found[0].info.run_id)
        store.client.set_tag(run_id, JOINED_TAG, joined)
        return run_id
    tags = {
        COMPARISON_TAG: name,
        JOINED_TAG: joined,
        "raysearch.version": __version__,
        "mlflow.source.name": "raysearch",
    }
    run = store.client.create_run(store.experiment_id, tags=tags, run_name=f"{name} (comparison)")
    return str(run.info.run_id)
