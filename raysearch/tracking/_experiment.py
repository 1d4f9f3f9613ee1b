"""An experiment's finished runs, read back; and a comparison of them, added to it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from raysearch import __version__
from raysearch.errors import RaysearchError
from raysearch.tracking._fields import numbers
from raysearch.tracking._store import Store, absolute, reason

COMPARISON_TAG = "raysearch.comparison"
SUMMARY = "summary.json"

# A view of an experiment that is kept with it, as MLflow's own button "Share" keeps one: the
# finished runs by their error, with their costs as columns, and both as charts.
VIEW = "raysearch"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
COLUMNS = (
    "test_error",
    "test_error_std",
    "difference/none/mean",
    "difference/trivial_augment/mean",
    "trainings_bought",
    "total_trainings",
    "search_device_seconds",
    "search_wall_seconds",
)
CHART = {"deleted": False, "isGenerated": False, "metricSectionId": VIEW, "runsCountToCompare": 100}
STATE = {
    "searchFilter": "tags.`raysearch.stage` = 'done'",
    "orderByKey": "metrics.`test_error`",
    "orderByAsc": True,
    "selectedColumns": ["params.`method.name`", *(f"metrics.`{name}`" for name in COLUMNS)],
    "compareRunSections": [
        {"uuid": VIEW, "name": "Cost against error", "display": True, "isReordered": False}
    ],
    "compareRunCharts": [
        {
            **CHART,
            "type": "SCATTER",
            "uuid": "scatter",
            "xaxis": {"key": "total_trainings", "type": "METRIC"},
            "yaxis": {"key": "test_error", "type": "METRIC"},
        },
        {
            **CHART,
            "type": "PARALLEL",
            "uuid": "parallel",
            "selectedParams": ["method.name"],
            "selectedMetrics": ["total_trainings", "search_device_seconds", "test_error"],
            "showAllRuns": True,
        },
    ],
}


def read_summaries(uri: str | None, experiment: str) -> list[tuple[str, dict[str, Any]]]:
    """Names and summaries of an experiment's finished runs, the oldest first.

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
            if all(file.path != SUMMARY for file in store.client.list_artifacts(run.info.run_id)):
                continue
            with tempfile.TemporaryDirectory() as folder:
                path = store.client.download_artifacts(run.info.run_id, SUMMARY, folder)
                found.append((run.info.run_name, json.loads(Path(path).read_text())))
    except Exception as error:  # whatever a store raises
        raise RaysearchError(f"MLflow at {store.uri}: {reason(error)}") from None
    if not found:
        raise RaysearchError(f"the MLflow experiment {experiment!r} has no finished run")
    return found


def _finished(store: Store) -> Iterator[Any]:
    """The experiment's runs that have reached their end, the oldest first; no trials."""
    token = None
    while True:
        page = store.client.search_runs(
            [store.experiment_id],
            filter_string="attributes.status = 'FINISHED' and tags.`raysearch.stage` = 'done'",
            order_by=["attributes.start_time ASC"],
            max_results=1000,
            page_token=token,
        )
        yield from page
        if not (token := page.token):
            return


def log_comparison(
    comparison: Mapping[str, Any],
    files: Sequence[Path],
    uri: str | None,
    *,
    warn: Callable[[str], None],
) -> str | None:
    """Add a comparison to its runs' experiment, and a view of them; never raises.

    Its files go to a run of their own, made once. Each compared run gets its differences from the
    references, `difference/<reference>/mean`, `/low` and `/high` in percentage points, and its cost
    in plain trainings, `trainings_bought` and `total_trainings`, which are known only now.

    Args:
        comparison: see `raysearch.report.comparison.compare`.
        files: that hold it.
        uri: of the user's store; runs of others are left alone.
        warn: called with one line when it cannot be written.

    Returns:
        How to see it; None when it was not written.
    """
    tracking = comparison["tracking"]
    if tracking is None or tracking["uri"] != absolute(uri):
        return None
    try:
        store = Store(uri, tracking["experiment"])
        run_id = _own_run(store, comparison["name"])
        for file in files:
            store.client.log_artifact(run_id, str(file))
        for row in comparison["rows"]:
            own = row["tracking"]
            if own is not None and own["uri"] == store.uri:
                for name, value in _figures(row).items():
                    store.client.log_metric(own["run_id"], name, value)
        store.client.set_experiment_tag(store.experiment_id, VIEW_TAG, json.dumps(STATE))
        store.client.set_terminated(run_id)
    except Exception as error:  # the files are on disk already
        warn(f"MLflow at {tracking['uri']} has not got the comparison ({reason(error)})")
        return None
    return store.view_of_experiment(VIEW)


def _own_run(store: Store, name: str) -> str:
    """The id of the run that holds the comparison's files."""
    found = store.client.search_runs(
        [store.experiment_id], filter_string=f"tags.`{COMPARISON_TAG}` = '{name}'", max_results=1
    )
    if found:
        return str(found[0].info.run_id)
    tags = {
        COMPARISON_TAG: name,
        "raysearch.version": __version__,
        "mlflow.source.name": "raysearch",
    }
    run = store.client.create_run(store.experiment_id, tags=tags, run_name=f"{name} (comparison)")
    return str(run.info.run_id)


def _figures(row: Mapping[str, Any]) -> dict[str, float]:
    found = {key: row[key] for key in ("trainings_bought", "total_trainings")}
    for name, difference in row["differences"].items():
        for key in ("mean", "low", "high"):
            found[f"difference/{name}/{key}"] = difference[key]
    return numbers(found)
