"""SIGINT, SIGTERM, SIGHUP and SIGPIPE at random moments: the run ends within ten seconds, and goes on.

    python -m benchmarks.system.reliability.signals --count 40

A signal before training has begun ends the process as the system does; afterwards the state is saved first. SIGPIPE is
what a run gets whose output nobody reads any more: it ignores it. Of the ten seconds do not count those in which the
process was ready and other processes had the CPU.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing import Process
from pathlib import Path

from benchmarks.system.reliability.kill_resume import begin, reach, whole_run
from benchmarks.system.reliability.promise import Promise, Trial, main
from benchmarks.system.reliability.tiny_run import finish, hashes, small

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)
WITHIN = 10.0  # seconds


def waited(child: Process) -> float | None:
    """Seconds for which a process has waited for a CPU; None where it is gone."""
    try:
        return int(Path(f"/proc/{child.pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None


def ended(child: Process) -> tuple[int, float]:
    """(exit code, seconds until the end without those of waiting for a CPU)."""
    began, first = time.monotonic(), waited(child) or 0.0
    last = first
    while child.is_alive():
        last = waited(child) or last
        time.sleep(0.01)
    return finish(child), time.monotonic() - began - (last - first)


def signalled(run: Path, options: list[str], draw: Callable[[], float]) -> tuple[Process, float]:
    """A run that has used as many seconds of CPU as were drawn; one that ended before is begun anew, not counted."""
    while True:
        child, moment = begin(run, options), draw()
        if reach(child, moment):
            return child, moment
        shutil.rmtree(run, ignore_errors=True)


def trials(count: int, rng: random.Random, folder: Path) -> Iterator[Trial]:
    options = small(folder)
    seconds, expected = whole_run(folder / "whole", options), hashes(folder / "whole")
    for number in range(count):
        run, name = folder / f"run{number}", SIGNALS[number % len(SIGNALS)]
        child, moment = signalled(run, options, lambda: rng.uniform(0, seconds))
        os.kill(child.pid, name)
        what = f"{name.name} after {moment:.2f} s of CPU"
        if name == signal.SIGPIPE:
            code = finish(child)
            yield Trial(code == 0 and hashes(run) == expected, f"{what}: code {code}")
            continue
        code, took = ended(child)
        text = run.with_suffix(".log").read_text()
        clean = code in (0, 128 + name, -name) and "Traceback" not in text and took <= WITHIN
        again = finish(begin(run, options))
        same = again == 0 and hashes(run) == expected
        yield Trial(clean and same, f"{what}: code {code} in {took:.1f} s, then {again}, same bytes: {same}")


PROMISE = Promise(
    "signals",
    "SIGINT, SIGTERM and SIGHUP end a run within ten seconds, SIGPIPE does not; the same command goes on with it",
    "signals at random moments of a run, then the same command; bytes compared with an uninterrupted run",
    trials,
    full=40,
    sample=4,
    part=8,
)

if __name__ == "__main__":
    main(PROMISE)
