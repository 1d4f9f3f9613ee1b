"""MLflow: one parent run with a child run per trial."""

from __future__ import annotations

import getpass
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from raysearch import __version__
from raysearch.errors import RaysearchError
from raysearch.results._write import policy_file
from raysearch.results.mlflow._fields import SEARCH_COSTS, flatten, search_costs, summary_metrics
from raysearch.results.mlflow._reasons import reason
from raysearch.results.mlflow._store import Store, attach
from raysearch.results.mlflow._writer import TRIAL_TAG, RunBuffer, Writer, find_children
from raysearch.trials import COSTS, TrialInfo, TrialResult

CHOICES = ("method.name", "data.name", "model.name")
POLICY_TAG = "raysearch.policy"
DRAIN_SECONDS = 10.0
_log = logging.getLogger(__name__)


class Tracker:
    """Writes an experiment, or one method of it, to MLflow; a `Watcher`, used on the driver only.

    Metrics have the same names in every run, so that the UI's comparison plots work:
    `train_loss`, `val_loss`, `val_error`, `lr`, `entropy`, `kl_uniform`, `share/<Op>`,
    `mean/<parameter>`, `std/<parameter>` and `epoch_equivalents` over epochs; `test_error` (or what
    the task's metric is); `wall_seconds`, `device_seconds`, `epoch_equivalents` for what the run
    itself cost; `search_wall_seconds`, `search_device_seconds`, `search_epoch_equivalents` for what
    finding its policy cost (0 for the baselines). See `summary_metrics` for the parent's.

    Writing happens in the background. When the store fails in mid-run the search goes on, `warn`
    is called once, and the buffered values are written when it answers again.

    Args:
        uri: `http://host:port` of an MLflow server; None is `sqlite:///mlflow.db` in the working
            directory.
        experiment: MLflow experiment, created where missing.
        run_name: name of the parent run.
        params: the composed configuration; becomes the parent's parameters, flattened.
        resume_run_id: id of the parent run to continue; its children are continued, too.
        method: whose trials are written; None: those of all.
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
        method: str | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self._store = Store(uri, experiment)
        self._method = method
        self._warn = warn or _log.warning
        self._warned = self._finished = False
        self._children: dict[str, RunBuffer] = {}
        settings = dict(flatten(params))
        self._choices = {key: text for key, text in settings.items() if key in CHOICES}
        self._tags = {
            "mlflow.user": _user(),
            "mlflow.source.name": "raysearch",
            "mlflow.source.type": "LOCAL",
        }
        tags = {**self._tags, "raysearch.version": __version__}
        self._parent = RunBuffer(run_name, tags, params=list(settings.items()))
        try:
            if resume_run_id is not None:
                self._reopen(resume_run_id)
            self._writer = Writer(self._store, self._parent)
        except Exception as error:
            raise RaysearchError(f"MLflow at {self._store.place}: {reason(error)}") from None
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

    def planned(self, trials: Sequence[TrialInfo], done: int) -> None:
        """Marks on the parent what is going on."""
        stages = dict.fromkeys(trial.stage for trial in trials if self._is_own(trial))
        self._parent.new_tags += [("raysearch.stage", stage) for stage in stages]

    def trial_started(self, trial: TrialInfo) -> None:
        """Opens the trial's child run, or continues it."""
        if self._is_own(trial):
            self._child(trial).status = "RUNNING"
        self._check()

    def trial_progress(self, trial: TrialInfo, epoch: int, metrics: Mapping[str, float]) -> None:
        """Logs an epoch, unless a retried trial reports it again or `RunBuffer.log_epoch` won't."""
        if self._is_own(trial) and epoch > (child := self._child(trial)).last_epoch:
            child.log_epoch({**metrics, "epoch": epoch}, epoch)
        self._check()

    def trial_finished(
        self, trial: TrialInfo, error: str | None, metrics: Mapping[str, float]
    ) -> None:
        """Logs the last values and ends the child run."""
        if not self._is_own(trial):
            return
        ends = ("_seconds", "_equivalents")
        final = {k: v for k, v in metrics.items() if k.startswith("test_") or k.endswith(ends)}
        if trial.stage == "search":
            final |= {f"search_{k}": v for k, v in final.items() if f"search_{k}" in SEARCH_COSTS}
        child = self._child(trial)
        if error is not None:
            child.new_tags.append(("raysearch.error", error))
        child.end("FINISHED" if error is None else "FAILED", final)
        self._check()

    def complete(self, results: Sequence[TrialResult]) -> None:
        """End the child runs of trials that ended while nobody listened, as the driver died."""
        for result in results:
            if self._is_own(result.trial) and not self._child(result.trial).ended:
                costs = {cost: getattr(result, cost) for cost in COSTS}
                self.trial_finished(result.trial, result.error, {**result.metrics, **costs})

    def message(self, text: str) -> None:
        """Remarks are for the display and the log file."""

    def ended(self) -> None:
        """Nothing to write: the experiment's figures come with the summary."""
        self._check()

    def finish(
        self,
        summary: Mapping[str, Any] | None,
        artifacts: Path | None,
        status: str = "FINISHED",
    ) -> None:
        """Write what is left, attach the files and end the parent run, once. Never raises.

        Args:
            summary: what `write` returned; None when the experiment did not get that far.
            artifacts: the experiment's folder; its files (and `policies/`) are attached.
            status: `FINISHED`, `FAILED` or `KILLED`.
        """
        if self._finished:
            return
        if summary is not None:
            self._log_summary(summary)
        stage = "done" if status == "FINISHED" else "stopped"
        self._parent.new_tags.append(("raysearch.stage", stage))
        for child in self._children.values():
            if not child.ended:
                child.end("KILLED", {})
        try:
            self._writer.drain(DRAIN_SECONDS)
            if artifacts is not None:
                self._attach(artifacts)
            self._parent.end(status, {})
            self._writer.drain(DRAIN_SECONDS)
        except Exception as error:  # whatever a store raises, the results are on disk already
            where = f"; all results are in {artifacts}" if artifacts is not None else ""
            self._warn(f"MLflow at {self._store.place} is incomplete ({reason(error)}){where}")
        self._writer.stop()
        self._finished = True

    def _reopen(self, run_id: str) -> None:
        """Continue an earlier parent run, unless the store does not have it any more."""
        from mlflow.exceptions import MlflowException

        try:
            run = self._store.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            place = self._store.place
            self._warn(f"MLflow at {place} has no run {run_id}; tracking in a new one")
            return
        if run.info.lifecycle_stage != "active":
            self._warn(f"MLflow run {run_id} was deleted; tracking in a new one")
            return
        self._store.experiment_id = run.info.experiment_id
        parent = self._parent
        parent.id, parent.stored_status = run_id, run.info.status
        parent.params = [entry for entry in parent.params if entry[0] not in run.data.params]
        for child in find_children(self._store, run_id):
            trial_id = child.data.tags.get(TRIAL_TAG)
            if trial_id is not None:
                self._children[trial_id] = RunBuffer(
                    child.info.run_name,
                    {TRIAL_TAG: trial_id, POLICY_TAG: child.data.tags[POLICY_TAG]},
                    id=child.info.run_id,
                    status=child.info.status,
                    stored_status=child.info.status,
                    last_epoch=int(child.data.metrics.get("epoch", 0)),
                )

    def _child(self, trial: TrialInfo) -> RunBuffer:
        """The trial's buffer, made when the trial is first heard of."""
        child = self._children.get(trial.id)
        if child is None:
            tags = {
                **self._tags,
                TRIAL_TAG: trial.id,
                "raysearch.stage": trial.stage,
                POLICY_TAG: trial.policy or "",
            }
            known = {"stage": trial.stage, "policy": trial.policy, "seed": trial.seed}
            params = {**self._choices, **dict(flatten({**trial.params, **known}))}
            child = RunBuffer(trial.name, tags, params=list(params.items()))
            self._children[trial.id] = child
            self._writer.add(child)
        return child

    def _is_own(self, trial: TrialInfo) -> bool:
        return self._method is None or trial.method == self._method

    def _log_summary(self, summary: Mapping[str, Any]) -> None:
        self._parent.log(summary_metrics(summary, self._method), 0)
        for child in self._children.values():
            if (row := child.tags[POLICY_TAG]) in summary["rows"]:
                child.log(search_costs(summary, row), child.last_epoch)

    def _attach(self, folder: Path) -> None:
        """Upload the experiment's files; raises what MLflow raises."""
        if self._method is None:
            attach(self._store, self.run_id, folder)
        else:  # the experiment's own files go to the run of the whole; see `log_comparison`
            own = folder / policy_file(self._method, methods=2)
            if own.is_file():
                self._store.client.log_artifact(self.run_id, str(own))

    def _check(self) -> None:
        """Say once, from the driver's thread, that writing has failed."""
        if self._writer.trouble is not None and not self._warned:
            self._warned = True
            self._warn(
                f"MLflow at {self._store.place} does not take values ({self._writer.trouble}); "
                "the run goes on and tries again"
            )


def _user() -> str:
    """Name for MLflow's "Created by" column."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a user data base
        return "unknown"
