"""How long a run still takes: all of it, and not only the stage that is under way."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@dataclass(frozen=True)
class Work:
    """A part of a run that has a progress bar of its own.

    title: how the title of its bar begins; steps: of one bar; cost: of a step, in images that pass the network forward
    (training on one is three); most: bars of this kind there may be at most. granted: there are as many as fit into
    this many steps after one of an earlier work that is as long, or, where `whole`, with one of its own in any case.
    times: all of this comes so many times.
    """

    title: str
    steps: int
    cost: float
    most: int = 1
    granted: int | None = None
    whole: bool = False
    times: int = 1

    def bars(self, steps: int) -> int:
        """How many bars there are where one takes `steps`."""
        if self.granted is None:
            return self.most * self.times
        fit = self.granted // max(1, steps)
        return max(1, min(self.most, fit)) * self.times if self.whole else max(0, min(self.most, fit - 1))


class TimeLeft:
    """Told of each bar that begins, moves and ends; answers with the seconds that the whole run still takes.

    Work that comes is reckoned by its cost at the rate of all work so far, that of the bar under way at its own rate. A
    bar that ends before its last step tells how long the others of `same_end` will be.
    """

    def __init__(
        self,
        work: Sequence[Work],
        same_end: dict[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """`work`: in its order; `same_end`: title of a work to that of the earlier one that ends as early."""
        self._work, self._same_end, self._clock = list(work), same_end or {}, clock
        self._at: int | None = None
        self._apart = False  # the bar under way is no work of a stage: what a step of it costs is not known
        self._bars = 0  # of the work under way, that one included
        self._total = self._done = self._from = 0
        self._began = 0.0
        self._spent = self._paid = 0.0  # seconds and cost of bars that ended
        self._took: dict[str, int] = {}

    def start(self, title: str, total: int, done: int = 0) -> None:
        """A bar begins, `done` of whose steps lie behind."""
        self.end()
        found = next((i for i, work in enumerate(self._work) if title.startswith(work.title)), None)
        self._apart = found is None and not title.startswith("stage ")
        if self._apart:
            return
        if found is None:  # a network that nobody could foresee
            before = self._work[self._at] if self._at is not None else Work("", 0, 1.0)
            found = 0 if self._at is None else self._at + 1
            self._work.insert(found, Work(title, total, before.cost))
        self._bars = self._bars + 1 if found == self._at else 1
        self._at, self._total, self._done, self._from = found, total, done, done
        self._began = self._clock()

    def advance(self, done: int) -> None:
        if not self._apart:
            self._done = done

    def end(self) -> None:
        """The bar under way, if there is one, has ended."""
        if self._at is None or self._apart or self._done == self._from:
            return
        work = self._work[self._at]
        self._spent += self._clock() - self._began
        self._paid += (self._done - self._from) * work.cost
        self._took[work.title] = self._done
        self._total = self._from = self._done

    def seconds(self) -> float | None:
        """Seconds that the run still takes; None where nothing is known yet, or something else is done."""
        if self._at is None or self._apart:
            return None
        work = self._work[self._at]
        now = self._clock() - self._began if self._done > self._from else 0.0
        paid = (self._done - self._from) * work.cost
        if self._paid + paid <= 0 or self._spent + now <= 0:
            return None
        overall = (self._spent + now) / (self._paid + paid)
        own = now / paid if paid and now else overall
        steps = self._steps(work, self._total)
        left = max(0, min(self._total, steps) - self._done) * work.cost * own
        left += max(0, work.bars(steps) - self._bars) * steps * work.cost * own
        for later in self._work[self._at + 1 :]:
            steps = self._steps(later, later.steps)
            left += later.bars(steps) * steps * later.cost * overall
        return left

    def _steps(self, work: Work, planned: int) -> int:
        """Steps of a bar of `work`, by what an earlier one of the same end took."""
        return self._took.get(self._same_end.get(work.title, ""), planned)
