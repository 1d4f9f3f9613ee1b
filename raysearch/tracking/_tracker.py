"""MLflow: one parent run with a child run per trial."""

from __future__ import annotations

import getpass
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from raysearch import __version__
from raysearch.errors import RaysearchError
from raysearch.tracking._fields import SEARCH_COSTS, entity_key, summary_metrics
from raysearch.tracking._observer import TrialInfo, TrialResult
from raysearch.tracking._store import Store, describe_location, reason
from raysearch.tracking._writer import TRIAL_TAG, RunBuffer, Writer, find_children, milliseconds

ARTIFACT_SUFFIXES = (".json", ".html", ".png", ".parquet", ".yaml", ".log")
CHOICES = ("method.name", "data.name", "model.name")
DRAIN_SECONDS = 10.0
_log = logging.getLogger(__name__)


class Tracker:
    """Writes a run to MLflow; an `Observer`, used on the driver only.

    Metrics have the same names in every run, so that the UI's comparison plots work:
    `train_loss`, `val_loss`, `val_error`, `lr`, `entropy`, `kl_uniform`, `share/<Op>`,
    `mean/<parameter>`, `std/<parameter>` and `epoch_equivalents` over epochs; `test_error`
    (percent); `wall_seconds`, `device_seconds`, `epoch_equivalents` for what the run itself cost;
    `search_wall_seconds`, `search_device_seconds`, `search_epoch_equivalents` for what finding its
    policy cost (0 for the baselines). See `summary_metrics` for the parent's.

    Writing happens in the background. When the store fails in mid-run the search goes on, `warn`
    is called once, and the buffered values are written when it answers again.

    Args:
        uri: `http://host:port` of an MLflow server; None is `sqlite:///mlflow.db` in the working
            directory.
        experiment: MLflow experiment, created where missing.
        run_name: name of the parent run.
        params: the composed configuration; becomes the parent's parameters, flattened.
        resume_run_id: id of the parent run to continue; its children are continued, too.
        warn: called with one line, from the driver's thread, when something is amiss; logs it
            when None.

    Raises:
        RaysearchError: the store cannot be used; said within seconds.
    """

    def __init__(
        self,
        uri: str | None,
        experiment: str,
        run_name: str,
        params: Mapping[str, Any],
        resume_run_id: str | None = None,
        *,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self._store = Store(uri, experiment)
        self._warn = warn or _log.warning
        self._warned = self._finished = False
        self._children: dict[str, RunBuffer] = {}
        tags = {
            "mlflow.user": _user(),
            "mlflow.source.name": "raysearch",
            "mlflow.source.type": "LOCAL",
            "raysearch.version": __version__,
        }
        self._parent = RunBuffer(run_name, tags)
        self._parent.set_params(params)
        self._choices = {k: v for k, v in self._parent.params.items() if k in CHOICES}
        self._open_parent(resume_run_id)
        assert self._parent.id is not None
        self._writer = Writer(self._store, self._parent.id)
        self._writer.add(self._parent)
        for child in self._children.values():
            self._writer.add(child)

    @property
    def run_id(self) -> str:
        """MLflow id of the parent run; hand it to `resume_run_id` to continue."""
        assert self._parent.id is not None
        return self._parent.id

    @property
    def writing_seconds(self) -> float:
        """CPU time that writing has taken so far, most of it beside the run in a thread."""
        return self._writer.seconds

    def location(self) -> dict[str, str]:
        """Where the run lies: `uri`, `experiment`, `run_id`, and `command`, which shows it.

        For a server, `command` is the address of the run's page.
        """
        return {
            "uri": self._store.uri,
            "experiment": self._store.experiment,
            "run_id": self.run_id,
            "command": self._store.view(self.run_id),
        }

    def stage_started(self, stage: str, trials: int, epochs: int, resumed: int = 0) -> None:
        """Marks on the parent what is going on."""
        self._tag_parent("raysearch.stage", stage)

    def trial_started(self, trial: TrialInfo) -> None:
        """Opens the trial's child run, or continues it."""
        child = self._child(trial)
        with self._writer.lock:
            child.open, child.ended = True, False
            if child.id is not None:
                child.status = "RUNNING"
        self._check()

    def trial_progress(self, trial: TrialInfo, epoch: int, metrics: Mapping[str, float]) -> None:
        """Logs an epoch, unless a retried trial reports it again or `RunBuffer.log_epoch` won't."""
        child = self._child(trial)
        if epoch > child.last_epoch:
            with self._writer.lock:
                child.last_epoch = epoch
                child.log_epoch({**metrics, "epoch": epoch}, epoch, self._writer.value_seconds)
        self._check()

    def trial_finished(
        self, trial: TrialInfo, error: str | None, metrics: Mapping[str, float]
    ) -> None:
        """Logs the last values and ends the child run."""
        child = self._child(trial)
        final = {k: v for k, v in metrics.items() if k in ("test_error", "test_loss")}
        final |= {k: v for k, v in metrics.items() if k.endswith(("_seconds", "_equivalents"))}
        if trial.stage == "search":
            final |= {f"search_{k}": v for k, v in final.items() if f"search_{k}" in SEARCH_COSTS}
        with self._writer.lock:
            child.log_last(final)
            if error is not None:
                child.new_tags["raysearch.error"] = error
            child.open, child.ended = False, True
            child.ended_at = milliseconds()
            child.status = "FINISHED" if error is None else "FAILED"
        self._check()

    def complete(self, results: Sequence[TrialResult]) -> None:
        """End the child runs of trials that ended while nobody listened, as the driver died."""
        for result in results:
            if not self._child(result.trial).ended:
                costs = {
                    "wall_seconds": result.wall_seconds,
                    "device_seconds": result.device_seconds,
                    "epoch_equivalents": result.epoch_equivalents,
                }
                self.trial_finished(result.trial, result.error, {**result.metrics, **costs})

    def message(self, text: str) -> None:
        """Remarks are for the display and the log file."""

    def stage_finished(self, stage: str) -> None:
        """Nothing to write: the stage's figures come with the summary."""
        self._check()

    def finish(
        self,
        summary: Mapping[str, Any] | None,
        artifacts: Path | None,
        status: str = "FINISHED",
    ) -> None:
        """Write what is left, attach the files and end the parent run, once. Never raises.

        Args:
            summary: what `write_report` returned; None when the run did not get that far.
            artifacts: the run's folder; its files (and `policies/`) are attached.
            status: `FINISHED`, `FAILED` or `KILLED`.
        """
        if self._finished:
            return
        if summary is not None:
            self._log_summary(summary)
        trouble = None
        with self._writer.lock:
            self._parent.new_tags["raysearch.stage"] = "done" if status == "FINISHED" else "stopped"
            for child in self._children.values():
                if child.open:
                    child.log_last({})
                    child.status = "KILLED"
        if not self._writer.drain(DRAIN_SECONDS):
            trouble = self._writer.trouble or "no answer"
        elif artifacts is not None:
            trouble = self._attach(artifacts)
        if trouble is None:
            with self._writer.lock:
                self._parent.status = status
            if not self._writer.drain(DRAIN_SECONDS):
                trouble = self._writer.trouble or "no answer"
        self._writer.stop()
        self._finished = True
        if trouble is not None:
            where = f"; all results are in {artifacts}" if artifacts is not None else ""
            self._warn(f"MLflow at {self._place()} is incomplete ({trouble}){where}")

    def _open_parent(self, resume_run_id: str | None) -> None:
        """Create the parent run, or find the one to continue with its children."""
        client = self._store.client
        try:
            if resume_run_id is not None and self._reopen(resume_run_id):
                return
            run = client.create_run(
                self._store.experiment_id, tags=self._parent.tags, run_name=self._parent.name
            )
        except Exception as error:
            raise RaysearchError(f"MLflow at {self._place()}: {reason(error)}") from None
        self._parent.id = run.info.run_id

    def _reopen(self, run_id: str) -> bool:
        """Continue an earlier parent run; False when the store does not have it any more."""
        from mlflow.exceptions import MlflowException

        try:
            run = self._store.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self._warn(f"MLflow at {self._place()} has no run {run_id}; tracking in a new one")
            return False
        if run.info.lifecycle_stage != "active":
            self._warn(f"MLflow run {run_id} was deleted; tracking in a new one")
            return False
        self._store.experiment_id = run.info.experiment_id
        self._parent.id = run_id
        for key in run.data.params:
            self._parent.params.pop(key, None)  # a parameter is written once
        self._parent.status = "RUNNING"
        for child in find_children(self._store, run_id):
            trial_id = child.data.tags.get(TRIAL_TAG)
            if trial_id is not None:
                self._children[trial_id] = RunBuffer(
                    child.info.run_name,
                    {TRIAL_TAG: trial_id, "raysearch.policy": child.data.tags["raysearch.policy"]},
                    id=child.info.run_id,
                    ended=child.info.status == "FINISHED",
                    last_epoch=int(child.data.metrics.get("epoch", 0)),
                )
        return True

    def _child(self, trial: TrialInfo) -> RunBuffer:
        """The trial's buffer, made when the trial is first heard of."""
        child = self._children.get(trial.id)
        if child is None:
            tags = {
                TRIAL_TAG: trial.id,
                "raysearch.stage": trial.stage,
                "raysearch.policy": trial.policy or "",
                **{k: v for k, v in self._parent.tags.items() if k.startswith("mlflow.")},
            }
            child = RunBuffer(trial.name, tags)
            child.params = dict(self._choices)
            child.set_params(
                {**trial.params, "stage": trial.stage, "policy": trial.policy, "seed": trial.seed}
            )
            self._children[trial.id] = child
            self._writer.add(child)
        return child

    def _log_summary(self, summary: Mapping[str, Any]) -> None:
        figures = summary_metrics(summary)
        search = {name: figures[name] for name in SEARCH_COSTS if name in figures}
        with self._writer.lock:
            self._parent.log(figures, 0)
            for child in self._children.values():
                policy = child.tags.get("raysearch.policy")
                if policy:
                    own = search if policy == "learned" else dict.fromkeys(search, 0.0)
                    child.log(own, child.last_epoch)

    def _attach(self, folder: Path) -> str | None:
        """Upload the run's files; what went wrong, or None."""
        try:
            for path in sorted(folder.iterdir()):
                if path.is_file() and path.suffix in ARTIFACT_SUFFIXES:
                    self._store.client.log_artifact(self.run_id, str(path))
            if (folder / "policies").is_dir():
                self._store.client.log_artifacts(
                    self.run_id, str(folder / "policies"), artifact_path="policies"
                )
        except Exception as error:  # whatever a store raises, the results are on disk already
            return reason(error)
        return None

    def _tag_parent(self, key: str, value: str) -> None:
        with self._writer.lock:
            self._parent.new_tags[entity_key(key)] = value

    def _check(self) -> None:
        """Say once, from the driver's thread, that writing has failed."""
        if self._writer.trouble is not None and not self._warned:
            self._warned = True
            self._warn(
                f"MLflow at {self._place()} does not take values ({self._writer.trouble}); "
                "the run goes on and tries again"
            )

    def _place(self) -> str:
        return describe_location(self._store.uri)


def _user() -> str:
    """Name for MLflow's "Created by" column."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a user data base
        return "unknown"
