"""What is predicted and how that is judged; a task differs from another here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from raysearch.errors import unknown
from raysearch.tasks._classification import Classification
from raysearch.tasks._multi_label import MultiLabel
from raysearch.tasks._task import Measure, Metric, Task

__all__ = [
    "Classification",
    "Measure",
    "Metric",
    "MultiLabel",
    "Task",
    "find",
    "metrics",
    "names",
    "suited",
]

_TASKS: dict[str, tuple[Sequence[str], Callable[[Any], Task]]] = {
    task.name: (task.METRICS, task) for task in (Classification, MultiLabel)
}
_OF_KIND = {task.KIND: task.name for task in (Classification, MultiLabel)}


def names() -> list[str]:
    """The tasks that there are."""
    return list(_TASKS)


def metrics(name: str) -> list[str]:
    """What a task can be judged by; the first is the default.

    Raises:
        RaysearchError: there is no such task.
    """
    if name not in _TASKS:
        raise unknown("task", name, _TASKS)
    return list(_TASKS[name][0])


def suited(kind: str) -> str:
    """The task that takes such targets, a `Dataset.kind`.

    >>> suited("multi")
    'multi_label'
    """
    return _OF_KIND[kind]


def find(name: str, metric: str | None = None) -> Task:
    """A task by its name.

    Args:
        name: of `names()`.
        metric: of `metrics(name)`; None is the task's default.

    Raises:
        RaysearchError: there is no such task, or it is not judged by that metric.

    >>> find("classification", "auroc").metric.label
    'test AUROC'
    """
    known = metrics(name)
    metric = metric or known[0]
    if metric not in known:
        raise unknown(f"metric of task={name}", metric, known)
    return _TASKS[name][1](metric)
