"""The parts of a batch on the CPU's cores.

PyTorch's own parallelism cuts up every single operation, so that its threads wait for each other
hundreds of times per batch, and on a machine that is busy with something else as well each of these
waits can cost a time slice of the scheduler. Here every part is worked on serially, by the calling
thread and helpers that take parts as they come, and threads wait for each other once per batch.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import torch

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}  # by process, as forks lose theirs, and size
_openmp = ctypes.CDLL(torch._C.__file__)  # and what that is linked with


def set_threads(count: int) -> None:
    """Let PyTorch use so many threads in the calling one, whatever other threads have.

    `torch.set_num_threads` would also change what threads that begin from now on have.
    """
    torch.get_num_threads()  # PyTorch's first look in a thread sets OpenMP's number
    if hasattr(_openmp, "omp_set_num_threads"):
        _openmp.omp_set_num_threads(count)
    if torch.get_num_threads() != count:  # another OpenMP than that, or none
        torch.set_num_threads(count)


def run(work: Callable[[slice], None], parts: Iterable[slice]) -> None:
    """Do the work for all parts, on as many threads as PyTorch may use in the calling one.

    Raises:
        Exception: what `work` raised.
    """
    waiting = deque(parts)
    threads = torch.get_num_threads()

    def drain() -> None:
        set_threads(1)
        while True:
            try:
                part = waiting.popleft()
            except IndexError:
                return
            work(part)

    helpers = min(threads, len(waiting)) - 1
    if helpers > 0:
        key = os.getpid(), threads
        pool = _pools.get(key) or _pools.setdefault(key, ThreadPoolExecutor(threads))
        futures = [pool.submit(drain) for _ in range(helpers)]
    else:
        futures = []
    try:
        drain()
    finally:
        # A helper that has not begun by now is not needed; the others finish their last part.
        errors = [future.exception() for future in futures if not future.cancel()]
        set_threads(threads)
    for error in errors:
        if error is not None:
            raise error
