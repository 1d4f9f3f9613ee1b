"""Opening the MLflow store, and saying in one line when it cannot be opened."""

from __future__ import annotations

import logging
import os
import shlex
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from raysearch.credentials import NO_CREDENTIALS, redacted
from raysearch.errors import RaysearchError
from raysearch.files import sqlite_address
from raysearch.machine import bypass_proxies
from raysearch.results.mlflow._database import check_database, make_database
from raysearch.results.mlflow._reasons import refusal

DEFAULT_URI = "sqlite:///mlflow.db"
ARTIFACT_SUFFIXES = (".json", ".html", ".png", ".parquet", ".csv", ".tex", ".yaml", ".log")
FOLDERS = ("policies", "pictures")
UI = "http://127.0.0.1:5000"  # where `mlflow ui` listens
CHECK_SECONDS = 12  # a server that takes longer for two small requests counts as silent
OPEN_SECONDS = 60.0  # creating the tables of a new data base on a slow disk takes a while
REQUEST_SECONDS = 10
SEARCHED_RUNS = 50_000  # the most that MLflow gives at once
TRAINING = "workflowType=machine_learning"  # in an address: MLflow's pages for model training
KIND_TAG, KIND = "mlflow.experimentKind", "custom_model_development"  # not language models
BY_ID = "id:"  # before an experiment's id, where its name could be
TRIES, PAUSE = 5, 1.0  # of opening a data base that others make or use at the same time; seconds
_RACES = ("already exists", "UNIQUE constraint", "duplicate key")  # two make one experiment
_MISTAKES = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")  # which no other try mends


class Store:
    """A checked MLflow store with one experiment.

    Args:
        uri: `http(s)://…` for a server, `sqlite:///…` for a file; None is `mlflow.db` in the
            working directory, with the artifacts in `mlruns/` beside it, where a plain
            `mlflow ui` finds both.
        experiment: the experiment's name, or its id after `id:`.
        create: create it where it does not exist.

    Raises:
        RaysearchError: the server does not answer within seconds, the data base is corrupt,
            locked, not writable or of another version, MLflow refuses it, there is no such
            experiment, or the URL has a password in it: it is stored with the run. MLflow takes
            one from the environment.
    """

    def __init__(self, uri: str | None, experiment: str, *, create: bool = True) -> None:
        if uri is not None and redacted(uri) != uri:
            raise RaysearchError(f"tracking.uri={uri}: {NO_CREDENTIALS}")
        self.uri, self.database = _absolute(uri or DEFAULT_URI)
        self.experiment, self._create = experiment, create
        if self.database is not None and not create and not self.database.exists():
            raise RaysearchError(f"there is no MLflow data base {self.database}")
        _quieten_mlflow()
        if self.database is not None:
            check_database(self.database)
        self._open(OPEN_SECONDS if self.database is not None else CHECK_SECONDS)

    @property
    def place(self) -> str:
        """Where it is, for people: a path or an address."""
        return str(self.database or self.uri)

    def view(self, run_id: str) -> str:
        """What shows a run: its page on the server, or the command that starts the UI.

        With the command goes the page of all runs, whose address is no longer than a line.
        """
        return self._page(f"runs/{run_id}?{TRAINING}" if self.is_server else "runs")

    def view_of_experiment(self, key: str) -> str:
        """What shows the experiment in a view that is kept with it."""
        return self._page(f"runs?viewStateShareKey={key}&{TRAINING}")

    def _page(self, path: str) -> str:
        """Where a page of the experiment is.

        From its own first page MLflow goes to views for language models, whatever the experiment's
        kind, until a browser has chosen otherwise.
        """
        page = f"/#/experiments/{self.experiment_id}/{path}"
        return self.uri + page if self.is_server else f"{self._command()}, then {UI}{page}"

    def _command(self) -> str:
        """Starts the UI on a store that no server holds."""
        plain = self.database == Path.cwd() / "mlflow.db" and not _has_file_store(Path.cwd())
        return "mlflow ui" if plain else f"mlflow ui --backend-store-uri {shlex.quote(self.uri)}"

    @property
    def is_server(self) -> bool:
        """Whether the store is reached over HTTP."""
        return self.uri.startswith(("http://", "https://"))

    def search(self, filter_string: str) -> list[Any]:
        """The experiment's runs that a filter lets through, the oldest first."""
        found = self.client.search_runs(
            [self.experiment_id],
            filter_string,
            max_results=SEARCHED_RUNS,
            order_by=["attributes.start_time ASC"],
        )
        return list(found)

    def _open(self, limit: float) -> None:
        """Connect, in a thread: MLflow's own retries may take minutes."""
        done: list[Exception | None] = []

        def work() -> None:
            try:
                if self.database is not None:
                    make_database(self.database)
                self._connect()
                done.append(None)
            except Exception as error:
                done.append(error)

        thread = threading.Thread(target=work, name="mlflow-open", daemon=True)
        thread.start()
        thread.join(limit)
        error = done[0] if done else TimeoutError()
        if isinstance(error, RaysearchError):
            raise RaysearchError(f"MLflow at {self.uri}: {error}")
        if error is not None:
            whose = os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/") == self.uri
            raise RaysearchError(
                refusal(error, self.uri) + ("; MLFLOW_TRACKING_URI says so" if whose else "")
            )

    def _connect(self) -> None:
        """Find the experiment; of a data base that others make or use just now, again and again."""
        from mlflow import MlflowClient

        for attempt in range(TRIES):
            try:
                self.client = MlflowClient(tracking_uri=self.uri)
                self.experiment_id = self._find_experiment()
                return
            except Exception as error:
                mistake = isinstance(error, RaysearchError) or (
                    getattr(error, "error_code", None) in _MISTAKES
                )
                # A data base that MLflow itself makes just now fails in many ways.
                race = self.database is not None or any(word in str(error) for word in _RACES)
                if mistake or not race or attempt == TRIES - 1:
                    raise
                time.sleep(PAUSE)

    def _find_experiment(self) -> str:
        """The experiment's id."""
        if self.experiment.startswith(BY_ID):
            known = self.client.get_experiment(self.experiment.removeprefix(BY_ID))
            self.experiment = known.name
        experiment = self.client.get_experiment_by_name(self.experiment)
        if experiment is None and not self._create:
            raise RaysearchError(f"it has no experiment {self.experiment!r}")
        if experiment is None:
            return self.client.create_experiment(
                self.experiment, self._artifact_location(), tags={KIND_TAG: KIND}
            )
        if experiment.lifecycle_stage != "active":
            raise RaysearchError(
                f"the experiment {self.experiment!r} was deleted there; choose another "
                "tracking.experiment or restore it with `mlflow experiments restore`"
            )
        if self._create and not experiment.tags.get(KIND_TAG):
            self.client.set_experiment_tag(experiment.experiment_id, KIND_TAG, KIND)
        return str(experiment.experiment_id)

    def _artifact_location(self) -> str | None:
        """Beside the data base, wherever that is; a server knows its own place."""
        if self.database is None:
            return None
        folder = "".join(c if c.isalnum() or c in "-_" else "_" for c in self.experiment)
        return (self.database.parent / "mlruns" / folder).as_uri()


def attach(store: Store, run_id: str, folder: Path) -> None:
    """Upload an experiment's files and folders of files to a run; raises what MLflow raises."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in ARTIFACT_SUFFIXES:
            store.client.log_artifact(run_id, str(path))
    for name in FOLDERS:
        if (folder / name).is_dir():
            store.client.log_artifacts(run_id, str(folder / name), name)


def absolute(uri: str | None) -> str:
    """A store's URI, independent of the working directory; None is the default's."""
    return _absolute(uri or DEFAULT_URI)[0]


def _absolute(uri: str) -> tuple[str, Path | None]:
    """The URI, independent of the working directory, and the SQLite file where it is one."""
    if not uri.startswith("sqlite:///"):
        return uri.rstrip("/"), None
    name, *options = uri.removeprefix("sqlite:///").split("?", maxsplit=1)
    path = Path(os.path.abspath(Path(unquote(name)).expanduser()))
    return "?".join([sqlite_address(path), *options]), path


def _quieten_mlflow() -> None:
    """Before MLflow is imported: no telemetry, warnings only, and retries that end.

    The user's own settings of the others win; telemetry is off in any case.
    """
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_SECONDS))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    bypass_proxies()


def _has_file_store(folder: Path) -> bool:
    """Whether `mlflow ui` would open an old `mlruns/` file store instead of `mlflow.db`."""
    return any(path.parent.name.isdigit() for path in folder.glob("mlruns/*/meta.yaml"))
