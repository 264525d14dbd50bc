"""How long each rank works on its part of a step, so that one which all others wait for is named."""

from __future__ import annotations

import statistics
import time

FACTOR = 2.0  # times as long as the others
LEAST = 0.01  # seconds a step, and more: below, it is the noise of a machine
ENOUGH = 20  # steps of each rank that are compared


class Pace:
    """What one rank has done: steps, and the seconds it worked on them, without those in which it waited for others.

    Where steps are replays of a CUDA graph nothing is counted: what the GPU does, and what it waits for, the host does
    not see.
    """

    def __init__(self) -> None:
        self.steps, self.busy = 0, 0.0
        self._waited = 0.0
        self._since: float | None = None

    def wait(self, seconds: float) -> None:
        """So long it has just waited for others."""
        self._waited += seconds

    def restart(self) -> None:
        """What was done since the last step is no part of the next one."""
        self._since = None

    def step(self) -> None:
        """A step is done. The first one tells when the others begin."""
        now = time.monotonic()
        if self._since is not None:
            self.steps += 1
            self.busy += max(0.0, now - self._since - self._waited)
        self._since, self._waited = now, 0.0


class Straggler:
    """Compares the ranks by what each tells of its Pace."""

    def __init__(self) -> None:
        self._before: dict[int, tuple[int, float]] = {}

    def look(self, told: dict[int, tuple[int, float]]) -> str | None:
        """A line on the slowest rank, where it takes FACTOR times as long as the median of the others.

        Args: told: (steps, busy seconds) of each rank so far.
        """
        before = {rank: self._before.get(rank, (0, 0.0)) for rank in told}
        done = {rank: (told[rank][0] - before[rank][0], told[rank][1] - before[rank][1]) for rank in told}
        if len(done) < 2 or min(steps for steps, _ in done.values()) < ENOUGH:
            return None
        self._before = dict(told)
        each = {rank: busy / steps for rank, (steps, busy) in done.items()}
        slowest = max(each, key=lambda rank: each[rank])
        others = statistics.median(seconds for rank, seconds in each.items() if rank != slowest)
        if each[slowest] < max(FACTOR * others, others + LEAST):
            return None
        return (
            f"rank {slowest} takes {each[slowest] * 1000:.0f} ms for its part of a step, the others "
            f"{others * 1000:.0f} ms, and wait for it: see what else its machine does, or leave it out"
        )


PACE = Pace()
"""Of this process."""
