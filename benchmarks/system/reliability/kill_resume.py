"""kill -9 at random moments: the same command goes on, and ends with the same bytes.

    python -m benchmarks.system.reliability.kill_resume --count 50

The trials are those of benchmarks/system/kill_resume.py, which also takes other options of the run.
"""

from __future__ import annotations

import random
import shlex
from collections.abc import Iterator
from pathlib import Path

from benchmarks.system.kill_resume import OPTIONS, trial, whole_run
from benchmarks.system.reliability.promise import Promise, Trial, main


def trials(count: int, rng: random.Random, folder: Path) -> Iterator[Trial]:
    options = ["--data", "digits", *shlex.split(OPTIONS)]
    seconds, expected = whole_run(folder, options)
    done = tries = 0
    while done < count:
        tries += 1
        after = (done + rng.random()) / count * seconds
        found = trial(folder / f"run{tries}", options, after, expected)
        if found is None:  # it had ended before: the slice is tried again
            continue
        done += 1
        yield Trial(bool(found["equal"]), f"killed after {after:.2f} s, {found['after']}")


PROMISE = Promise(
    "kill -9",
    "a run that is killed at any moment goes on with the same command and ends with the same bytes",
    "SIGKILL at moments spread over the run's time; model and samples compared with an uninterrupted run",
    trials,
    full=50,
    sample=3,
    part=10,
)

if __name__ == "__main__":
    main(PROMISE)
