"""kill -9 at random moments: the same command goes on, and ends with the same bytes.

    python -m benchmarks.system.reliability.kill_resume --count 50

Moments are counted in the seconds of CPU that a run has used, so that they are spread over its stages on a busy machine
too. benchmarks/system/kill_resume.py does the same by the clock, with other options and other sets.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from multiprocessing import Process
from pathlib import Path

from benchmarks.system.kill_resume import reached
from benchmarks.system.reliability.promise import Promise, Trial, main
from benchmarks.system.reliability.tiny_run import finish, hashes, small, start, used


def begin(run: Path, options: list[str]) -> Process:
    return start("run", ["--out", str(run), *options], run.with_suffix(".log"))


def whole_run(run: Path, options: list[str]) -> float:
    """Seconds of CPU of an uninterrupted run."""
    child, last = begin(run, options), 0.0
    while child.is_alive():
        last = max(last, used(child))
        time.sleep(0.02)
    assert finish(child) == 0, run.with_suffix(".log").read_text()
    return last


def reach(child: Process, moment: float) -> bool:
    """Wait until a run has used `moment` seconds of CPU; False where it ended before."""
    while child.is_alive():
        if used(child) >= moment:
            return True
        time.sleep(0.005)
    return False


def trials(count: int, rng: random.Random, folder: Path) -> Iterator[Trial]:
    options = small(folder)
    seconds, expected = whole_run(folder / "whole", options), hashes(folder / "whole")
    done = tries = 0
    while done < count:
        tries += 1
        run, moment = folder / f"run{tries}", (done + rng.random()) / count * seconds
        child = begin(run, options)
        if not reach(child, moment):  # it was faster than the first: the slice is tried again
            continue
        child.kill()
        child.join()
        last = reached(run)
        again = finish(begin(run, options))
        same = again == 0 and hashes(run) == expected
        done += 1
        yield Trial(same, f"killed after {moment:.2f} s of CPU, {last}: code {again}, same bytes: {same}")
        shutil.rmtree(run)


PROMISE = Promise(
    "kill -9",
    "a run that is killed at any moment goes on with the same command and ends with the same bytes",
    "SIGKILL at moments spread over a run with a second network, one without the labels in question, and two rounds; "
    "model, samples, classes and predictions compared with an uninterrupted run",
    trials,
    full=50,
    sample=3,
    part=10,
)

if __name__ == "__main__":
    main(PROMISE)
