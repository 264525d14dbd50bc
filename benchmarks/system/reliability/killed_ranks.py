"""One of two processes of a run killed at random moments of every stage: the other ends, and nothing is lost.

python -m benchmarks.system.reliability.killed_ranks --count 20
"""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.system.reliability.promise import Promise, Trial, main
from benchmarks.system.reliability.tiny_run import finish, hashes, options, start_together

WITHIN = 60.0  # seconds in which the other process has ended
LOST = 5  # its exit code
AT_MOST = 1800  # seconds for a run, on a machine that others use


def begin(run: Path, world: int) -> list:
    """A checkpoint after each step, so that a number of checkpoints is a place in the run."""
    logs = run.with_suffix(".logs")
    logs.mkdir(exist_ok=True)
    words = [
        "--out",
        str(run),
        "--batch-parts",
        "2",
        *options(checkpoint_seconds=0),
        "--detection.networks",
        "1",
    ]
    return start_together(world, words, logs)


def saved(run: Path) -> int:
    """The number of its newest checkpoint."""
    return max((int(p.name) for p in (run / "checkpoints").glob("[0-9]*") if p.name.isdigit()), default=0)


def reached(run: Path) -> str:
    """The stage that the newest checkpoint is of."""
    state = run / "checkpoints" / str(saved(run)) / "state.json"
    found = re.search(r'\["current".*?\["name", \{"plain": "([\w ]+)"\}\]', state.read_text())
    return found[1] if found else "between stages"


def trial(run: Path, place: int, victim: int, delay: float, expected: dict[str, str]) -> Trial | None:
    """Kill process `victim` `delay` seconds after checkpoint `place`; None where the run had ended before."""
    children = begin(run, 2)
    while saved(run) < place and all(child.is_alive() for child in children):
        time.sleep(0.02)
    time.sleep(delay)
    if not all(child.is_alive() for child in children):
        return None
    os.kill(children[victim].pid, signal.SIGKILL)
    killed = time.monotonic()
    code, took = finish(children[1 - victim], AT_MOST), time.monotonic() - killed
    said = run.with_suffix(".logs").joinpath(f"rank{1 - victim}.log").read_text()
    clear = said.count("error: ") == 1 and "goes on from the last checkpoint" in said
    where = reached(run)
    (other,) = begin(run, 1)
    same = finish(other, AT_MOST) == 0 and hashes(run) == expected
    ended = code == LOST and took <= WITHIN and clear
    what = f"rank {victim} killed in {where}: the other ended with {code} in {took:.1f} s, same bytes: {same}"
    print(f"  {what}", flush=True)
    return Trial(ended and same, what)


def trials(count: int, rng: random.Random, folder: Path) -> Iterator[Trial]:
    whole = folder / "whole"
    codes = [finish(child, AT_MOST) for child in begin(whole, 2)]
    assert codes == [0, 0], whole.with_suffix(".logs").joinpath("rank0.log").read_text()
    places, expected, done, tries = saved(whole), hashes(whole), 0, 0
    while done < count:
        tries += 1
        place = 1 + int((done + rng.random()) / count * (places - 2))
        found = trial(folder / f"run{tries}", place, rng.randrange(2), rng.uniform(0, 0.1), expected)
        if found is not None:  # else it had ended before: the slice is tried again
            done += 1
            yield found


PROMISE = Promise(
    "killed ranks",
    "where one of two processes of a run is killed, the other ends within 60 s with a clear line, and nothing is lost",
    "SIGKILL to either at moments spread over the stages; then the same command in one process; bytes compared with an "
    "uninterrupted run of two (`--batch-parts 2`)",
    trials,
    full=20,
    sample=2,
)

if __name__ == "__main__":
    main(PROMISE)
