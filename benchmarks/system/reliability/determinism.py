"""The same command gives the same bytes, run after run, in one process and in others.

python -m benchmarks.system.reliability.determinism --count 5
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from benchmarks.system.reliability.promise import Promise, Trial, main
from benchmarks.system.reliability.tiny_run import finish, finished_run, hashes, options, start


def trials(count: int, rng: random.Random, folder: Path) -> Iterator[Trial]:
    for threads in ("1", "2"):
        expected = hashes(finished_run(folder / f"first{threads}", *options(), "--threads", threads))
        for number in range(count):
            run = folder / f"run{threads}-{number}"
            if number % 2:
                yield Trial(
                    hashes(finished_run(run, *options(), "--threads", threads)) == expected,
                    f"{threads} threads, here",
                )
                continue
            words = ["--out", str(run), *options(), "--threads", threads]
            code = finish(start("run", words, run.with_suffix(".log")))
            yield Trial(code == 0 and hashes(run) == expected, f"{threads} threads, in another process")


PROMISE = Promise(
    "determinism",
    "the same command gives the same bytes on the same machine, for one and for two threads each",
    "runs in one process and in others; model, samples, classes and predictions compared",
    trials,
    full=5,
    sample=1,
)

if __name__ == "__main__":
    main(PROMISE)
