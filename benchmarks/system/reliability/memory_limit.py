"""Too little memory: a run ends with a message and exit code 5, and not by a kill or a traceback.

    python -m benchmarks.system.reliability.memory_limit --count 6

The limit is RLIMIT_DATA of the run's process, at shares between what it holds when it begins and what it takes at most.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.system.reliability.promise import Promise, Trial, main
from benchmarks.system.reliability.tiny_run import finish, options

SIDE = ("--dataset.image-size", "160", "--supervised.batch", "256", "--finetuning.batch", "256")


def data_bytes() -> int:
    """Private memory of this process that RLIMIT_DATA counts."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status says nothing of VmData")


def child(run: str, log: str, room: int) -> None:
    from dlp_fast.commands.options import guarded
    from dlp_fast.run import main as run_main

    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    limit = data_bytes() + room
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    sys.argv = ["run", "--out", run, *options(), *SIDE]
    guarded(run_main)


def trials(count: int, rng: random.Random, folder: Path) -> Iterator[Trial]:
    context = multiprocessing.get_context("spawn")
    for number in range(count):
        room = rng.randrange(50, 700) << 20
        log = folder / f"{number}.log"
        process = context.Process(target=child, args=(str(folder / f"run{number}"), str(log), room))
        process.start()
        code = finish(process)
        text = log.read_text() if log.exists() else ""
        told = " ".join(text.split())[-160:]
        clean = code == 5 and "Traceback" not in text and "memory" in text
        yield Trial(clean, f"{room >> 20} MiB beyond what it began with: code {code} ({told})")


PROMISE = Promise(
    "too little memory",
    "a run that needs more memory than it may have ends with exit code 5 and says what it needs",
    "RLIMIT_DATA 50 to 700 MiB above what the process holds at the start, on pictures of 160 pixels in batches of 256",
    trials,
    full=6,
    sample=2,
    part=2,
)

if __name__ == "__main__":
    main(PROMISE)
