"""What this process may use of the machine."""

from __future__ import annotations

import os
import sys


def usable_cores() -> int:
    """Cores that this process may use: fewer than the machine has where a scheduler or ``taskset`` says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_memory() -> None:
    """Let this process keep up to 128 MiB of memory that it has freed, for the next image.

    The GNU C library gives large blocks back to the kernel as soon as they are free; to fetch them again, page by page, takes longer than
    to decode a JPEG. Other C libraries are left as they are.
    """
    if sys.platform != "linux":
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-3, 32 * 2**20)  # M_MMAP_THRESHOLD, at its greatest
        mallopt(-1, 128 * 2**20)  # M_TRIM_THRESHOLD
