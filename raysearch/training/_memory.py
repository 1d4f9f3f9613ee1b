"""The C library's allocator, told to keep what is freed."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
NEVER, NONE = -1, 0


def keep_freed_memory() -> None:
    """Let this process keep freed memory for its next step rather than give it back.

    For processes that train on the CPU; on a GPU the activations are not in this memory.

    A training step on the CPU allocates and frees gigabytes of activations. glibc gives large
    blocks back to the kernel, which has to clear every page anew in the next step. The process
    then holds what its largest step needed until it ends. Other C libraries are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(M_MMAP_MAX, NONE)
    mallopt(M_TRIM_THRESHOLD, NEVER)
