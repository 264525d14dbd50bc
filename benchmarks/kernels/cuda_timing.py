"""Times by CUDA events, beside a copy of the same bytes and the goal; what cuda_cases.py measures with."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import cycle, pairwise
from statistics import median
from typing import Any

import torch

CACHE = 100e6  # bytes: twice the second-level cache of an H100
Call = Callable[[], object]
Row = dict[str, Any]


def timed(call: Call, seconds: float) -> float:
    """Median seconds of `call`, by events."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    first.record()
    for _ in range(5):
        call()
    last.record()
    torch.cuda.synchronize()
    rounds = max(10, min(500, int(seconds / max(first.elapsed_time(last) / 5e3, 1e-6))))
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(rounds + 1)]
    marks[0].record()
    for mark in marks[1:]:
        call()
        mark.record()
    torch.cuda.synchronize()
    return median(a.elapsed_time(b) for a, b in pairwise(marks)) / 1e3


def copy_of(moved: float) -> Call:
    """A copy that reads moved / 2 bytes and writes as many."""
    size = max(16, int(moved / 2))
    sets = max(2, int(CACHE // size) + 1) if size < CACHE else 1
    pairs = [
        (
            torch.zeros(size, dtype=torch.uint8, device="cuda"),
            torch.empty(size, dtype=torch.uint8, device="cuda"),
        )
        for _ in range(min(sets, 64))
    ]
    turn = cycle(pairs)

    def run() -> None:
        source, target = next(turn)
        target.copy_(source)

    return run


def rotating(inputs: list[torch.Tensor], of: Callable[[torch.Tensor], object]) -> Call:
    """`of` on one input after the other, so that none is still in the cache."""
    turn = cycle(inputs)
    return lambda: of(next(turn))


def sets_of(make: Callable[[int], torch.Tensor]) -> list[torch.Tensor]:
    one = make(0)
    count = max(1, min(32, int(CACHE // one.nbytes) + 1))
    return [one, *(make(k) for k in range(1, count))]


def lazily(make: Callable[[], Call]) -> Call:
    """What `make` gives, made by the first call: where that fails, it is the peer that failed, and not the case."""
    made: list[Call] = []

    def run() -> object:
        if not made:
            made.append(make())
        return made[0]()

    return run


class Bench:
    """Measures cases until the time is up; what is left then is named, not measured.

    Attributes: device: where tensors of cases are; rows: what was measured; skipped: names of what was not.
    """

    device = "cuda"

    def __init__(self, seconds: float, budget: float):
        self.seconds, self.end = seconds, time.monotonic() + budget
        self.rows: list[Row] = []
        self.skipped: list[str] = []

    def late(self, name: str) -> bool:
        """Whether the time is up; notes `name` then. Asked before tensors are made for a case."""
        if time.monotonic() < self.end:
            return False
        self.skipped.append(name)
        return True

    def few(self, n: int) -> int:
        """How many rows or images a case of `n` has here."""
        return n

    def graphed(self, call: Call) -> Call:
        """The kernels of `call` without the time that it takes to launch them."""
        call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        return graph.replay

    def compiled(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """By torch.compile for the sizes at hand."""
        return torch.compile(call, dynamic=False)

    def times(self, contenders: dict[str, Call], moved: float) -> tuple[dict[str, float], dict[str, str]]:
        """(seconds of each that ran and of a copy, why each other peer did not)."""
        seconds, why = {"ours": timed(contenders["ours"], self.seconds)}, {}
        for who, call in contenders.items():
            if who == "ours":
                continue
            try:
                seconds[who] = timed(call, self.seconds)
            except Exception as error:  # a peer's failure is no reason to lose ours
                why[who] = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        seconds["copy"] = timed(copy_of(moved), self.seconds)
        return seconds, why

    def measure(
        self,
        name: str,
        moved: float,
        contenders: dict[str, Call | None],
        goals: dict[str, float] | None = None,
    ) -> None:
        """Time "ours" and its peers, None for those that are not installed. moved: bytes that the op must move at
        least; goals: how many times as fast as a peer it is to be; as "copy" the share of a copy's bandwidth, as "µs"
        the microseconds that it may take.
        """
        goals = goals or {}
        unknown = set(goals) - set(contenders) - {"copy", "µs"}
        assert not unknown, f"{name}: goals of {unknown}, who are not in it"
        seconds, why = self.times({who: call for who, call in contenders.items() if call}, moved)
        why |= {who: "not installed" for who, call in contenders.items() if not call}
        row = {"name": name, "bytes": moved, "seconds": seconds, "goals": goals, "left_out": why}
        row["bytes_per_second"] = moved / seconds["ours"]
        self.rows.append(row)
        print(self.line(row), flush=True)

    def line(self, row: Row) -> str:
        told = [f"{who} {1e6 * s:,.1f} µs" for who, s in row["seconds"].items()]
        told += [f"{who} left out ({reason})" for who, reason in row["left_out"].items()]
        return f"{row['name']}: {', '.join(told)}; {row['bytes_per_second'] / 1e9:,.0f} GB/s"


class Rehearsal(Bench):
    """Every case once on a CPU with few rows, so that a GPU's minutes are not spent on a slip. Nothing is timed."""

    device = "cpu"
    most = 2000

    def few(self, n: int) -> int:
        return min(n, self.most)

    def graphed(self, call: Call) -> Call:
        return call

    def compiled(self, call: Callable[..., Any]) -> Callable[..., Any]:
        return call

    def times(self, contenders: dict[str, Call], moved: float) -> tuple[dict[str, float], dict[str, str]]:
        for call in contenders.values():
            call()
        return dict.fromkeys((*contenders, "copy"), float("nan")), {}

    def line(self, row: Row) -> str:
        ran = [who for who in row["seconds"] if who != "copy"]
        ran += [f"{who} left out ({reason})" for who, reason in row["left_out"].items()]
        return f"{row['name']}: {', '.join(ran)}"


def table(rows: list[Row], facts: str, skipped: list[str]) -> str:
    """Markdown: ours, the share of a copy's bandwidth, and each peer with its ratio and the goal."""
    lines = [facts, "", "| op | ours | GB/s | of a copy | goal | peers, times as long (goal) |"]
    lines.append("|---|---:|---:|---:|---:|---|")
    for row in rows:
        seconds, goals = row["seconds"], row["goals"]
        ours = seconds["ours"]

        def aim(who: str, goals: dict[str, float] = goals) -> str:
            return f" ({goals[who]:g})" if who in goals else ""

        peers = [
            f"{who} {1e6 * taken:,.1f} µs, {taken / ours:.1f}" + aim(who)
            for who, taken in seconds.items()
            if who not in ("ours", "copy")
        ]
        peers += [f"{who}: {reason}" + aim(who) for who, reason in row.get("left_out", {}).items()]
        goal = f"{100 * goals['copy']:.0f} %" if "copy" in goals else ""
        goal += f"{goals['µs']:g} µs" if "µs" in goals else ""
        lines.append(
            f"| {row['name']} | {1e6 * ours:,.1f} µs | {row['bytes_per_second'] / 1e9:,.0f} | "
            f"{100 * seconds['copy'] / ours:.0f} % | {goal} | {'; '.join(peers)} |"
        )
    if skipped:
        lines += ["", f"Not measured for lack of time: {', '.join(skipped)}."]
    return "\n".join(lines) + "\n"
