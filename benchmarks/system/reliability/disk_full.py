"""A disk that is full at a random size: exit code 5 in words, and the same command ends with the same bytes afterwards.

    python -m benchmarks.system.reliability.disk_full --count 20

The limit is RLIMIT_FSIZE, which fails a write with EFBIG where a file grows beyond it, as a full disk does with ENOSPC.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from benchmarks.system.reliability.promise import Promise, Trial, main
from benchmarks.system.reliability.tiny_run import command, finished_run, full_disk, hashes, options


def trials(count: int, rng: random.Random, folder: Path) -> Iterator[Trial]:
    whole = finished_run(folder / "whole")
    expected = hashes(whole)
    largest = max(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    for number in range(count):
        run, room = folder / f"run{number}", int(largest ** rng.uniform(0.3, 0.99))
        with full_disk(room):
            done = command("run", "--out", run, *options())
        clean = done.code == 5 and "Traceback" not in done.text and "error: " in done.text
        again = command("run", "--out", run, *options())
        same = again.code == 0 and hashes(run) == expected
        last = " ".join(done.text.split())[-160:]
        yield Trial(
            clean and same, f"{room} bytes: code {done.code} ({last}), then {again.code}, same bytes: {same}"
        )


PROMISE = Promise(
    "disk full",
    "a full disk ends a run with exit code 5 and loses nothing: the same command goes on when there is room",
    "no file may grow beyond a random size; then the same command without the limit, bytes compared",
    trials,
    full=20,
    sample=3,
    part=4,
)

if __name__ == "__main__":
    main(PROMISE)
