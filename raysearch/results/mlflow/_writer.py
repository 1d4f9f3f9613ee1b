"""Buffered, batched writing to MLflow in the background.

The search never waits for the store. What could not be delivered stays in the buffer and is
tried again, so a server that is restarted in mid-run misses nothing. Of epochs so short that
their values come faster than `VALUES_PER_SECOND`, some are passed over.

Why MLflow's own queue (`log_batch(synchronous=False)`) is not used, tried with MLflow 3.17 and a
server that was killed and came back after half a minute: what is queued is tried as often as a
request is and then dropped. With one retry 60 of 160 batches were lost; with MLflow's seven none
was, but then everything else waits for a dead server as long, some four minutes a request: runs
are created and ended in the caller's thread, and a process waits for the queue when it ends. On
SQLite nothing is tried again, and nothing limits what writing costs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from raysearch.errors import RaysearchError
from raysearch.results.mlflow._fields import TAG_LIMIT, cut, numbers
from raysearch.results.mlflow._reasons import reason
from raysearch.results.mlflow._store import Store

FLUSH_SECONDS = 1.0
DUTY = 0.01  # of one core, what writing may take from one time to the next
MAX_PAUSE = 10.0
RETRY_SECONDS = 5.0
VALUES_PER_SECOND = 60  # of a trial that runs: MLflow needs some 0.1 ms for each
METRICS_PER_BATCH = 1000  # MLflow's limits
PARAMS_PER_BATCH = 100
TRIAL_TAG = "raysearch.trial_id"
PARENT_TAG = "mlflow.parentRunId"
REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST")


@dataclass
class RunBuffer:
    """What is still to be written to one MLflow run.

    Its lists are made longer by the driver's thread and shorter by the one that writes, so they
    need no lock. Times are in milliseconds since 1970: those of the events, not of the writing.

    Attributes:
        name: of the run.
        tags: that it is created with.
        id: None until the run exists in the store.
        status: that it has to have; `stored_status` is the one that the store has.
        last_epoch: the last that was reported; what came before is not logged again.
        params, new_tags: name and value, to be written.
        metrics: name, value, time and step, to be written.
        latest: value and step of each metric so far.
        passed_over: the last epoch, where that has not been logged.
        since: when the trial began, on the monotonic clock; `logged`, values of epochs so far.
        attempted: whether it has been tried to create the run.
    """

    name: str
    tags: dict[str, str]
    id: str | None = None
    status: str = "RUNNING"
    stored_status: str = "RUNNING"
    last_epoch: int = 0
    params: list[tuple[str, str]] = field(default_factory=list)
    new_tags: list[tuple[str, str]] = field(default_factory=list)
    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)
    latest: dict[str, tuple[float, int]] = field(default_factory=dict)
    passed_over: tuple[Mapping[str, Any], int] | None = None
    since: float = field(default_factory=time.monotonic)
    logged: int = 0
    started_at: int = field(default_factory=lambda: milliseconds())
    ended_at: int | None = None
    attempted: bool = False

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Append numbers as of now; `step` is the epoch. What was just said is not repeated."""
        now = milliseconds()
        for name, value in numbers(metrics).items():
            if self.latest.get(name) != (value, step):
                self.latest[name] = (value, step)
                self.metrics.append((name, value, now, step))

    def log_epoch(self, metrics: Mapping[str, Any], step: int) -> None:
        """Append an epoch's numbers, unless the trial has had more than its share of them.

        The first is always appended.
        """
        self.last_epoch = step
        if self.logged > VALUES_PER_SECOND * (time.monotonic() - self.since):
            self.passed_over = metrics, step
            return
        self.passed_over = None
        self.logged += len(metrics)
        self.log(metrics, step)

    def end(self, status: str, metrics: Mapping[str, Any]) -> None:
        """Append a trial's last numbers, its last epoch's among them, and end its run."""
        if self.passed_over is not None:
            self.log(*self.passed_over)
            self.passed_over = None
        self.log(metrics, self.last_epoch)
        self.ended_at = milliseconds()
        self.status = status

    @property
    def ended(self) -> bool:
        """Whether the trial has ended for good."""
        return self.status in ("FINISHED", "FAILED")

    @property
    def dirty(self) -> bool:
        """Whether something is still to be written."""
        changed = self.status != self.stored_status
        return self.id is None or self.unsent or changed

    @property
    def unsent(self) -> bool:
        """Whether there is something for a batch."""
        return bool(self.params or self.new_tags or self.metrics)


class Writer:
    """A thread that writes the buffers of all runs to the store.

    Args:
        store: where to.
        parent: of all runs that are added; created now, unless it has an `id`.

    Attributes:
        trouble: why the store did not take something, the last time; None: it took everything.
        seconds: CPU time spent on writing.

    Raises:
        Exception: the parent cannot be created; whatever MLflow raises.
    """

    def __init__(self, store: Store, parent: RunBuffer) -> None:
        self.store = store
        self.trouble: str | None = None
        self.seconds = 0.0
        self._parent_id: str | None = None
        if parent.id is None:
            self._create(parent)
        self._parent_id = parent.id
        self._buffers = [parent]
        self._sending = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="mlflow-writer", daemon=True)
        self._thread.start()

    def add(self, buffer: RunBuffer) -> None:
        """Take care of another run."""
        self._buffers.append(buffer)

    def drain(self, seconds: float) -> None:
        """Write all there is now.

        Raises:
            RaysearchError: the store did not take it in `seconds`; the message says why.
        """
        deadline = time.monotonic() + seconds
        while not self._flush():
            if time.monotonic() + 1.0 > deadline:
                raise RaysearchError(self.trouble or "no answer")
            time.sleep(0.5)

    def stop(self) -> None:
        """End the thread; what is in the buffers then is not written any more."""
        self._stopped.set()
        self._thread.join(timeout=1.0)

    def _loop(self) -> None:
        pause = FLUSH_SECONDS
        while not self._stopped.wait(pause):
            before = self.seconds
            delivered = self._flush()
            rest = (self.seconds - before) / DUTY if delivered else RETRY_SECONDS
            pause = min(MAX_PAUSE, max(FLUSH_SECONDS, rest))

    def _flush(self) -> bool:
        """One round over all runs; stops at the first that the store does not take."""
        with self._sending:
            start = time.thread_time()  # waiting for the store takes nothing from the trials
            try:
                for buffer in [each for each in self._buffers if each.dirty]:
                    self._send(buffer)
            except Exception as error:
                self.trouble = reason(error)
                return False
            finally:
                self.seconds += time.thread_time() - start
            return True

    def _send(self, buffer: RunBuffer) -> None:
        from mlflow.entities import Metric, Param, RunTag

        client = self.store.client
        if buffer.id is None:
            self._create(buffer)
        while buffer.unsent:
            params, tags = buffer.params[:PARAMS_PER_BATCH], buffer.new_tags[:PARAMS_PER_BATCH]
            metrics = buffer.metrics[: METRICS_PER_BATCH - len(params) - len(tags)]
            self._attempt(
                buffer,
                client.log_batch,
                metrics=[Metric(*entry) for entry in metrics],
                params=[Param(*entry) for entry in params],
                tags=[RunTag(key, cut(text, TAG_LIMIT)) for key, text in dict(tags).items()],
            )
            del buffer.metrics[: len(metrics)]
            del buffer.params[: len(params)], buffer.new_tags[: len(tags)]
        status = buffer.status
        if status == buffer.stored_status:
            return
        if status == "RUNNING":
            self._attempt(buffer, client.update_run, status=status)
        else:
            self._attempt(buffer, client.set_terminated, status=status, end_time=buffer.ended_at)
        buffer.stored_status = status

    def _create(self, buffer: RunBuffer) -> None:
        """Create the run; a first attempt whose answer got lost may have made it already."""
        tags = dict(buffer.tags)
        if self._parent_id is not None:
            tags[PARENT_TAG] = self._parent_id
            for run in find_children(self.store, self._parent_id) if buffer.attempted else ():
                if run.data.tags.get(TRIAL_TAG) == tags[TRIAL_TAG]:
                    buffer.id = str(run.info.run_id)
                    return
        buffer.attempted = True
        run = self.store.client.create_run(
            self.store.experiment_id,
            tags=tags,
            start_time=buffer.started_at,
            run_name=buffer.name,
        )
        buffer.id = str(run.info.run_id)

    def _attempt(self, buffer: RunBuffer, call: Callable[..., Any], **named: Any) -> None:
        """Call MLflow; a refusal (the run was deleted in the UI, say) is noted and passed over."""
        try:
            call(buffer.id, **named)
        except Exception as error:
            if getattr(error, "error_code", None) not in REFUSALS:
                raise
            self.trouble = f"{buffer.name}: {reason(error)}"


def milliseconds() -> int:
    """Now, as MLflow counts time."""
    return int(time.time() * 1000)


def find_children(store: Store, parent_id: str) -> list[Any]:
    """The MLflow runs that nest under `parent_id`."""
    return store.search(f"tags.`{PARENT_TAG}` = '{parent_id}'")
