"""One of two processes of a run killed at random moments of every stage: the other ends, and nothing is lost.

python -m benchmarks.system.reliability.killed_ranks --count 40
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import time
from collections.abc import Iterator
from multiprocessing import Process
from pathlib import Path

from benchmarks.system.reliability.promise import Promise, Trial, main
from benchmarks.system.reliability.tiny_run import finish, hashes, small, start_together

WITHIN = 60.0  # seconds in which the other process has ended
LOST = 5  # its exit code
AT_MOST = 1800  # seconds for a run, on a machine that others use
BETWEEN = "detection, between stages"


def begin(run: Path, world: int, options: list[str]) -> list[Process]:
    """A checkpoint after each step, so that a number of checkpoints is a place in the run."""
    logs = run.with_suffix(".logs")
    logs.mkdir(exist_ok=True)
    words = ["--out", str(run), "--batch-parts", "2", *options, "--checkpoint-seconds", "0"]
    return start_together(world, words, logs)


def saved(run: Path) -> int:
    """The number of its newest checkpoint."""
    return max((int(p.name) for p in (run / "checkpoints").glob("[0-9]*") if p.name.isdigit()), default=0)


def reached(run: Path, number: int) -> str:
    """The stage that checkpoint `number` is of."""
    state = (run / "checkpoints" / str(number) / "state.json").read_text()
    found = re.search(r'"current", \{"items": \[\["name", \{"plain": "([^"]+)"', state)
    return found[1] if found else BETWEEN


def stages(run: Path, options: list[str]) -> dict[str, list[int]]:
    """The checkpoints of each stage of an uninterrupted run of two."""
    children, places, seen = begin(run, 2, options), {}, 0
    while any(child.is_alive() for child in children):
        time.sleep(0.005)
        number = saved(run)
        if number > seen:
            with contextlib.suppress(OSError):  # a newer one is there, and this one is gone
                places.setdefault(reached(run, number), []).append(number)
                seen = number
    codes = [finish(child) for child in children]
    assert codes == [0, 0], run.with_suffix(".logs").joinpath("rank0.log").read_text()
    return places


def trial(
    run: Path, options: list[str], place: int, victim: int, delay: float, expected: dict[str, str]
) -> Trial | None:
    """Kill process `victim` `delay` seconds after checkpoint `place`; None where the run had ended before."""
    children = begin(run, 2, options)
    while saved(run) < place and all(child.is_alive() for child in children):
        time.sleep(0.005)
    time.sleep(delay)
    if not all(child.is_alive() for child in children):
        for child in children:
            finish(child, AT_MOST)
        return None
    os.kill(children[victim].pid, signal.SIGKILL)
    killed = time.monotonic()
    code, took = finish(children[1 - victim], AT_MOST), time.monotonic() - killed
    said = run.with_suffix(".logs").joinpath(f"rank{1 - victim}.log").read_text()
    clear = said.count("error: ") == 1 and "goes on from the last checkpoint" in said
    where = reached(run, saved(run))
    (other,) = begin(run, 1, options)
    same = finish(other, AT_MOST) == 0 and hashes(run) == expected
    ended = code == LOST and took <= WITHIN and clear
    what = f"rank {victim} killed in {where}: the other ended with {code} in {took:.1f} s, same bytes: {same}"
    print(f"  {what}", flush=True)
    return Trial(ended and same, what if clear else f"{what}; it said: {said[-500:]}")


def trials(count: int, rng: random.Random, folder: Path) -> Iterator[Trial]:
    """Each stage in turn, at a random one of its checkpoints."""
    options, whole = small(folder), folder / "whole"
    places, done, tries = list(stages(whole, options).values()), 0, 0
    expected = hashes(whole)
    while done < count:
        tries += 1
        place = rng.choice(places[done % len(places)])
        found = trial(
            folder / f"run{tries}", options, place, rng.randrange(2), rng.uniform(0, 0.05), expected
        )
        if found is not None:  # else it had ended before: the stage is tried again
            done += 1
            yield found


PROMISE = Promise(
    "killed ranks",
    "where one of two processes of a run is killed, the other ends within 60 s with a clear line, and nothing is lost",
    "SIGKILL to either at ten random moments of each stage and of the detection between them; then the same command in "
    "one process; bytes compared with an uninterrupted run of two (`--batch-parts 2`)",
    trials,
    full=40,
    sample=4,
)

if __name__ == "__main__":
    main(PROMISE)
