"""Buffered, batched writing to MLflow in the background.

The search never waits for the store. What could not be delivered stays in the buffer and is
tried again, so a server that is restarted in mid-run misses nothing. Of epochs so short that
writing all of them would take more than `DUTY` of the trial's time, some are passed over.

Why MLflow's own queue (`log_batch(synchronous=False)`) is not used, tried with MLflow 3.17 and a
server that was killed and came back after half a minute: what is queued is tried as often as a
request is and then dropped. With one retry 60 of 160 batches were lost; with MLflow's seven none
was, but then everything else waits for a dead server as long, some four minutes a request: runs
are created and ended in the caller's thread, and a process waits for the queue when it ends. On
SQLite nothing is tried again, and nothing limits what writing costs.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from raysearch.results.mlflow._fields import TAG_LIMIT, cut, flatten, numbers
from raysearch.results.mlflow._store import Store, reason

if TYPE_CHECKING:
    from mlflow.entities import Metric

FLUSH_SECONDS = 1.0
DUTY = 0.006  # of the time of a trial that runs, what writing may take of one core
FLUSH_DUTY = 0.003  # the same, from one time to the next: epochs written together cost half
RUN_SECONDS = 0.03  # that MLflow needs to create a run and to end it
VALUE_SECONDS = 1e-4  # that MLflow needs to write a value, before it has been measured
VALUES_KNOWN = 100  # values whose measurement that guess is worth
MAX_PAUSE = 30.0
METRICS_PER_BATCH = 1000  # MLflow's limits
PARAMS_PER_BATCH = 100
TRIAL_TAG = "raysearch.trial_id"
PARENT_TAG = "mlflow.parentRunId"


@dataclass
class RunBuffer:
    """What is still to be written to one MLflow run.

    `id` is None until the run exists in the store; `open` while its trial is going on;
    `ended` once it has ended for good; `status` is the status to set once all else is written.
    Times are in milliseconds since 1970: those of the events, not of the writing.

    `passed_over` is the last epoch where that has not been logged. `since` is when the trial
    began, on the monotonic clock, and `spent` the seconds that writing it takes so far.
    """

    name: str
    tags: dict[str, str]
    id: str | None = None
    last_epoch: int = 0
    params: dict[str, str] = field(default_factory=dict)
    new_tags: dict[str, str] = field(default_factory=dict)
    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)
    status: str | None = None
    started_at: int = field(default_factory=lambda: milliseconds())
    ended_at: int | None = None
    open: bool = False
    ended: bool = False
    attempted: bool = False
    latest: dict[str, tuple[float, int]] = field(default_factory=dict)
    passed_over: tuple[Mapping[str, Any], int] | None = None
    since: float = field(default_factory=time.monotonic)
    spent: float = 0.0

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Append numbers as of now; `step` is the epoch. What was just said is not repeated."""
        now = milliseconds()
        for name, value in numbers(metrics).items():
            if self.latest.get(name) != (value, step):
                self.latest[name] = (value, step)
                self.metrics.append((name, value, now, step))

    def log_epoch(self, metrics: Mapping[str, Any], step: int, value_seconds: float) -> None:
        """Append an epoch's numbers, unless writing the run so far takes `DUTY` of the time so far.

        The first is always appended.

        Args:
            metrics: the epoch's.
            step: its number.
            value_seconds: what writing a value takes.
        """
        if self.spent > DUTY * (time.monotonic() - self.since):
            self.passed_over = metrics, step
            return
        self.passed_over = None
        self.spent = (self.spent or RUN_SECONDS) + len(metrics) * value_seconds
        self.log(metrics, step)

    def log_last(self, metrics: Mapping[str, Any]) -> None:
        """Append a trial's last numbers, its last epoch's among them."""
        if self.passed_over is not None:
            self.log(*self.passed_over)
            self.passed_over = None
        self.log(metrics, self.last_epoch)

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Add parameters; each can be written once."""
        self.params.update(flatten(params))

    @property
    def dirty(self) -> bool:
        """Whether something is still to be written."""
        return bool(self.id is None or self.params or self.new_tags or self.metrics or self.status)


class Writer:
    """A thread that writes the buffers of all runs to the store.

    Args:
        store: where to.
        parent_id: the run under which new ones nest.
    """

    def __init__(self, store: Store, parent_id: str) -> None:
        self.store, self.parent_id = store, parent_id
        self.trouble: str | None = None
        self._buffers: list[RunBuffer] = []
        self.lock = threading.Lock()
        self._sending = threading.Lock()
        self._wake = threading.Event()
        self._stopped = False
        self.seconds = 0.0  # CPU time spent on writing
        self.value_seconds = VALUE_SECONDS  # of it, on each value
        self._values = 0
        self._thread = threading.Thread(target=self._loop, name="mlflow-writer", daemon=True)
        self._thread.start()

    def add(self, buffer: RunBuffer) -> None:
        """Take care of another run."""
        with self.lock:
            self._buffers.append(buffer)

    def undelivered(self) -> int:
        """How many runs still have something to be written."""
        with self.lock:
            return sum(buffer.dirty for buffer in self._buffers)

    def drain(self, seconds: float) -> bool:
        """Write all there is now; False when the store did not take it in `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            delivered = self._flush()
            if delivered and not self.undelivered():
                return True
            if time.monotonic() + 1.0 > deadline:
                return False
            time.sleep(0.5)

    def stop(self) -> None:
        """End the thread; what is in the buffers then is not written any more."""
        self._stopped = True
        self._wake.set()
        self._thread.join(timeout=1.0)

    def _loop(self) -> None:
        pause = FLUSH_SECONDS
        while not self._wake.wait(pause) and not self._stopped:
            start = time.thread_time()
            delivered = self._flush()
            took = time.thread_time() - start  # waiting for the store takes nothing from the trials
            with self.lock:
                running = max(1, sum(buffer.open for buffer in self._buffers))
            rest = took / (FLUSH_DUTY * running) if delivered else 5.0
            pause = min(MAX_PAUSE, max(FLUSH_SECONDS, rest))

    def _flush(self) -> bool:
        """One round over all runs; stops at the first that the store does not take."""
        with self._sending, self._timed():
            with self.lock:
                dirty = [buffer for buffer in self._buffers if buffer.dirty]
            try:
                for buffer in dirty:
                    self._send(buffer)
            except Exception as error:
                self.trouble = reason(error)
                return False
            return True

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.thread_time()
        try:
            yield
        finally:
            self.seconds += time.thread_time() - start

    def _send(self, buffer: RunBuffer) -> None:
        client = self.store.client
        if buffer.id is None:
            buffer.id = self._create(buffer)
        for params, tags, metrics in _batches(buffer, self.lock):
            start = time.thread_time()
            self._attempt(
                buffer,
                client.log_batch,
                buffer.id,
                metrics=metrics,
                params=params,
                tags=tags,
            )
            if metrics and not params:
                self._measure(len(metrics), time.thread_time() - start)
            with self.lock:
                del buffer.metrics[: len(metrics)]
                for param in params:
                    buffer.params.pop(param.key, None)
                for tag in tags:  # unless it has been given another value in the meantime
                    if cut(buffer.new_tags.get(tag.key, ""), TAG_LIMIT) == tag.value:
                        buffer.new_tags.pop(tag.key, None)
        status = buffer.status
        if status is not None:
            if status == "RUNNING":
                self._attempt(buffer, client.update_run, buffer.id, status=status)
            else:
                end = buffer.ended_at
                self._attempt(buffer, client.set_terminated, buffer.id, status=status, end_time=end)
            with self.lock:
                if buffer.status == status:
                    buffer.status = None

    def _measure(self, values: int, seconds: float) -> None:
        """What a value takes, the mean over all so far."""
        known = VALUES_KNOWN + self._values
        self._values += values
        self.value_seconds = (known * self.value_seconds + seconds) / (known + values)

    def _attempt(
        self, buffer: RunBuffer, call: Callable[..., Any], *args: Any, **named: Any
    ) -> None:
        """Call MLflow; a refusal (the run was deleted in the UI, say) is noted and passed over."""
        try:
            call(*args, **named)
        except Exception as error:
            if not _is_refusal(error):
                raise
            self.trouble = f"{buffer.name}: {reason(error)}"

    def _create(self, buffer: RunBuffer) -> str:
        """The run's id; a first attempt whose answer got lost may have made it already."""
        if buffer.attempted:
            for run in find_children(self.store, self.parent_id):
                if run.data.tags.get(TRIAL_TAG) == buffer.tags.get(TRIAL_TAG):
                    return str(run.info.run_id)
        buffer.attempted = True
        run = self.store.client.create_run(
            self.store.experiment_id,
            tags={**buffer.tags, PARENT_TAG: self.parent_id},
            start_time=buffer.started_at,
            run_name=buffer.name,
        )
        return str(run.info.run_id)


def milliseconds() -> int:
    """Now, as MLflow counts time."""
    return int(time.time() * 1000)


def find_children(store: Store, parent_id: str) -> Iterator[Any]:
    """The MLflow runs that nest under `parent_id`."""
    token = None
    while True:
        page = store.client.search_runs(
            [store.experiment_id], f"tags.`{PARENT_TAG}` = '{parent_id}'", page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _batches(
    buffer: RunBuffer, lock: threading.Lock
) -> Iterator[tuple[list[Any], list[Any], list[Metric]]]:
    """The buffer's content in batches that MLflow takes, while there is any."""
    from mlflow.entities import Metric, Param, RunTag

    while True:
        with lock:
            # A request may hold 1,000 entities in all.
            params = [Param(k, v) for k, v in list(buffer.params.items())[:PARAMS_PER_BATCH]]
            tags = [
                RunTag(k, cut(v, TAG_LIMIT))
                for k, v in list(buffer.new_tags.items())[:PARAMS_PER_BATCH]
            ]
            room = METRICS_PER_BATCH - len(params) - len(tags)
            metrics = [Metric(*entry) for entry in buffer.metrics[:room]]
        if not (params or tags or metrics):
            return
        yield params, tags, metrics


def _is_refusal(error: Exception) -> bool:
    """Whether the store understood and said no, so that asking again is of no use."""
    code = getattr(error, "error_code", None)
    return code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST")
