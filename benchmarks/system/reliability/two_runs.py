"""Two runs in one folder, a lock whose holder is dead, and a clock that jumps.

python -m benchmarks.system.reliability.two_runs --count 10
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.system.reliability.promise import Promise, Trial, main
from benchmarks.system.reliability.tiny_run import command, finished_run, hashes, small
from dlp_fast.config import RunConfig, resolve
from dlp_fast.errors import ResourceError
from dlp_fast.runs.writer import RunFolder


def hold(run: Path) -> int:
    """The process id of a child that holds the lock of the folder."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        file = (run / ".lock").open("w")
        fcntl.flock(file, fcntl.LOCK_EX)
        os.write(tell, b"1")
        signal.pause()
    os.read(ready, 1)
    return child


def opens(run: Path) -> bool:
    folder = RunFolder(run)
    try:
        folder.open(resolve(RunConfig()))
    except ResourceError:
        return False
    folder.close()
    return True


def trials(count: int, rng: random.Random, folder: Path) -> Iterator[Trial]:
    for number in range(count):
        run = folder / f"lock{number}"
        run.mkdir()
        child = hold(run)
        yield Trial(not opens(run), "a folder whose lock a living process holds is refused")
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        yield Trial(opens(run), "a folder whose lock's holder was killed is taken")
    words = small(folder)
    whole = finished_run(folder / "whole", *words)
    clock = time.time
    time.time = lambda: clock() + rng.choice((-1e6, 0.0, 1e6))
    try:
        done = command("run", "--out", folder / "jumps", *words)
    finally:
        time.time = clock
    yield Trial(done.code == 0 and hashes(folder / "jumps") == hashes(whole), "a clock that jumps by 11 days")


PROMISE = Promise(
    "two runs, dead locks, jumping clocks",
    "one process at a time works in a run folder, a dead one blocks nobody, and no clock changes a result",
    "a lock held by a child, then by a killed child; a run whose time.time() jumps to and fro",
    trials,
    full=20,
    sample=5,
)

if __name__ == "__main__":
    main(PROMISE)
