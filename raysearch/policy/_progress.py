"""How far a training has come, where the workers of a DataLoader see it too."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.context import get_spawning_popen
from multiprocessing.sharedctypes import RawValue
from typing import Any


class Progress:
    """A number that processes started by this one share, however they are started.

    A copy, by `copy`, `pickle` or what is built on them, begins with the same number and then has
    its own, which the processes that get the copy share. It is no tensor: modes of PyTorch do not
    touch it, and it needs no space in /dev/shm.

    Args:
        value: in [0, 1].
    """

    def __init__(self, value: float) -> None:
        self._cell: Any = RawValue("d", value)

    @property
    def value(self) -> float:
        """The number."""
        return float(self._cell.value)

    @value.setter
    def value(self, value: float) -> None:
        self._cell.value = value

    def __reduce__(self) -> tuple[Callable[..., Progress], tuple[Any]]:
        if get_spawning_popen() is not None:  # on the way into a process that is being started
            return _of_cell, (self._cell,)
        return Progress, (self.value,)


def _of_cell(cell: Any) -> Progress:
    progress = Progress.__new__(Progress)
    progress._cell = cell
    return progress
