"""CPU time of processes, as the kernel counts it."""

import time
from collections.abc import Iterable
from contextlib import suppress

import psutil


def cpu_seconds(root: psutil.Process) -> float:
    """Return the CPU time of a process and of all its descendants, those that have ended included, since they began.

    The clock of a living process counts nanoseconds, and the threads that have ended; /proc counts hundredths of a
    second. clock_getcpuclockid(3) makes its number of the process's.
    """
    total = 0.0
    for process in tree(root):
        with suppress(psutil.NoSuchProcess, OSError):
            ended = process.cpu_times()
            total += time.clock_gettime(~process.pid << 3 | 2) + ended.children_user + ended.children_system
    return total


def tree(root: psutil.Process) -> Iterable[psutil.Process]:
    """Return a process and all its descendants."""
    return [root, *root.children(recursive=True)]
