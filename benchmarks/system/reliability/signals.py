"""SIGINT, SIGTERM, SIGHUP and SIGPIPE at random moments: the run ends within ten seconds, and goes on.

    python -m benchmarks.system.reliability.signals --count 40

A signal before training has begun ends the process as the system does; afterwards the state is saved first. SIGPIPE is
what a run gets whose output nobody reads any more: it ignores it.
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

from benchmarks.system.reliability.promise import Promise, Trial, main
from benchmarks.system.reliability.tiny_run import finish, hashes, options, start

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)
WITHIN = 10.0  # seconds


def begin(run: Path):
    return start("run", ["--out", str(run), *options()], run.with_suffix(".log"))


def signalled(run: Path, name: signal.Signals, draw: Callable[[], float]) -> tuple[Process, float]:
    """A run that was sent the signal, and after how many seconds; one that ended before is begun anew, not counted."""
    while True:
        child, moment = begin(run), draw()
        time.sleep(moment)
        if child.is_alive():
            os.kill(child.pid, name)
            return child, moment
        finish(child)
        shutil.rmtree(run, ignore_errors=True)


def trials(count: int, rng: random.Random, folder: Path) -> Iterator[Trial]:
    whole, began = folder / "whole", time.monotonic()
    code = finish(begin(whole))
    seconds, expected = time.monotonic() - began, hashes(whole)
    yield Trial(code == 0, "the run itself, without a signal")
    for number in range(count):
        run, name = folder / f"run{number}", SIGNALS[number % len(SIGNALS)]
        child, moment = signalled(run, name, lambda: rng.uniform(0, seconds))
        what, sent = f"{name.name} after {moment:.1f} s", time.monotonic()
        if name == signal.SIGPIPE:
            code = finish(child)
            yield Trial(code == 0 and hashes(run) == expected, f"{what}: code {code}")
            continue
        code, took = finish(child), time.monotonic() - sent
        text = run.with_suffix(".log").read_text()
        clean = code in (0, 128 + name, -name) and "Traceback" not in text and took <= WITHIN
        again = finish(begin(run))
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
