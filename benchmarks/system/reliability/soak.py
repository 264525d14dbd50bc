"""Run after run in one process: memory, open files and threads stay what they were.

python -m benchmarks.system.reliability.soak --count 100
"""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from benchmarks.system.reliability.promise import Promise, Trial, main
from benchmarks.system.reliability.tiny_run import finished_run, small

WARM = 2  # runs before the first measurement: libraries are loaded, caches are filled
MOST_GROWTH = 0.2  # MiB of resident memory a run, over all


def resident() -> float:
    """MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def held() -> tuple[int, int]:
    """(open files, threads)."""
    return len(os.listdir("/proc/self/fd")), threading.active_count()


def trials(count: int, _: random.Random, folder: Path) -> Iterator[Trial]:
    first, files, of = 0.0, (0, 0), small(folder)
    for number in range(WARM + count):
        shutil.rmtree(finished_run(folder / "run", *of))
        if number == WARM - 1:
            first, files = resident(), held()
        if number >= WARM:
            yield Trial(held() == files, f"run {number}: open files and threads {held()}, at first {files}")
    grown = (resident() - first) / count
    yield Trial(grown <= MOST_GROWTH, f"resident memory grew by {grown:.2f} MiB a run over {count} runs")


PROMISE = Promise(
    "soak",
    "many runs in one process need no more memory, open files and threads than a few",
    f"runs with all stages one after the other; resident memory may grow by {MOST_GROWTH:g} MiB a run",
    trials,
    full=100,
    sample=4,
)

if __name__ == "__main__":
    main(PROMISE)
