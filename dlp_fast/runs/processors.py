"""How many processors a process has to itself just now: those it may use, less what other programs keep busy.

Threads of a training step wait for one another hundreds of times, and do so by asking again and again. Where one of
them shares a processor with another program, all wait for it: with two threads on two processors, one of them busy, a
step took forty times as long as with one thread (decision 033).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil

QUOTAS = Path("/sys/fs/cgroup")  # of a container, both generations of control groups
SECONDS = 0.4  # for which the processors are watched
BUSY = 0.25  # of a processor, kept busy by others, that is let be


def idle_processors(seconds: float = SECONDS, quotas: Path = QUOTAS) -> int:
    """At least 1. Waits for `seconds`, in which this process does nothing."""
    mine = usable()
    try:
        before = _at_work(mine)
        time.sleep(seconds)
        busy = (_at_work(mine) - before) / seconds
    except (OSError, RuntimeError, LookupError, psutil.Error):  # no such counters here
        busy = 0.0
    idle = len(mine) - busy
    return max(1, int(min(idle, quota(quotas)) + BUSY))


def usable() -> list[int]:
    """Numbers of the processors that this process may run on."""
    try:
        return sorted(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not on every system
        return list(range(os.cpu_count() or 1))


def quota(quotas: Path = QUOTAS) -> float:
    """Processors' worth of time that a container's control group gives; infinite where it sets no limit."""
    try:
        limit, _, period = (quotas / "cpu.max").read_text().partition(" ")
        return float("inf") if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        pass
    try:
        limit, period = (int((quotas / "cpu" / f"cpu.cfs_{of}_us").read_text()) for of in ("quota", "period"))
        return limit / period if limit > 0 else float("inf")
    except (OSError, ValueError, ZeroDivisionError):
        return float("inf")


def _at_work(numbers: list[int]) -> float:
    """Seconds that these processors have worked since the system began."""
    each = psutil.cpu_times(percpu=True)
    return sum(
        sum(each[k]) - each[k].idle - getattr(each[k], "iowait", 0.0) - _twice(each[k]) for k in numbers
    )


def _twice(times) -> float:
    """What Linux counts among user and nice already."""
    return getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
