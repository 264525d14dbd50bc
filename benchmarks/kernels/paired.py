"""Two builds of the CPU kernels in one process, call by call in turn, so that a busy machine slows both alike.

    python -m benchmarks.kernels.paired --before OLD/_native.so --out benchmarks/results/kernels_paired_<date>.json

The older library is loaded under another namespace, from a copy in which the name of the ops is changed. Results are
compared first: ids, entropies and counts to the bit. A Markdown table is written beside the result.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.common import add_out, add_threads, parser_of, write_result
from benchmarks.kernels.peers import KINDS, keys, logits
from dlp_fast.ops import native_available
from dlp_fast.runs.files import write_atomic

BEFORE = "dlp_prev"  # as long as the name that it replaces


def load_before(library: Path) -> None:
    """Load `library` so that its ops are torch.ops.dlp_prev."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "_before.so"
        copy.write_bytes(library.read_bytes().replace(b"dlp_fast", BEFORE.encode()))
        torch.ops.load_library(copy)


Case = tuple[str, Callable[[Any], Any]]


def cases() -> list[Case]:
    """(what, call on a namespace of ops)."""
    found: list[Case] = []
    for classes in (10, 100, 1000):
        for dtype in (torch.float32, torch.bfloat16):
            x, kind = logits(50_000, classes, dtype), str(dtype).removeprefix("torch.")
            found.append((f"row_entropy [50,000, {classes:,}] {kind}", lambda ops, x=x: ops.row_entropy(x)))
        k, m = 500, max(1, 500 // classes)
        x = logits(50_000, classes, torch.float32)
        name = f"entropy_rank [50,000, {classes:,}], lowest {k}, highest {m} of each class"
        found.append((name, lambda ops, x=x, k=k, m=m: ops.entropy_rank(x, k, m, None)))
    n = 1_280_000
    for kind in KINDS:
        x = keys(kind, n)
        name = f"select, lowest 1 % of {n:,}, {kind}"
        found.append((name, lambda ops, x=x: ops.select(x, len(x) // 100, 0, None, 0)))
    many = keys("random", 10_000_000)
    found.append(("select, lowest 1 % of 10,000,000", lambda ops: ops.select(many, 100_000, 0, None, 0)))
    some = keys("random", n)
    for classes, m in ((10, 1280), (1000, 12)):
        labels = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(2))
        name = f"select, lowest 1 % and highest {m:,} of {classes:,} classes, {n:,}"
        found.append((name, lambda ops, y=labels, c=classes, m=m: ops.select(some, n // 100, m, y, c)))
    few = keys("random", 50_000)
    found.append(("select, order of all 50,000", lambda ops: ops.select(few, 50_000, 0, None, 0)))
    return found


def pair(call: Callable[[Any], Any], seconds: float) -> dict[str, float]:
    """Median and smallest seconds of both builds, which take turns."""
    builds = {"before": getattr(torch.ops, BEFORE), "now": torch.ops.dlp_fast}
    for a, b in zip(*(call(ops) for ops in builds.values()), strict=True):
        assert torch.equal(a, b), "the two builds differ"
    times: dict[str, list[float]] = {name: [] for name in builds}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["now"]) < 7:
        for name, ops in builds.items():
            start = time.perf_counter()
            call(ops)
            times[name].append(time.perf_counter() - start)
    found = {name: median(values) for name, values in times.items()}
    return found | {f"{name}, smallest": min(values) for name, values in times.items()}


def table(rows: dict[str, dict[str, float]]) -> str:
    lines = ["| what | before | now | ratio of medians | of minima |", "|---|---:|---:|---:|---:|"]
    for what, of in rows.items():
        least = of["before, smallest"] / of["now, smallest"]
        lines.append(
            f"| {what} | {1e3 * of['before']:.3f} ms | {1e3 * of['now']:.3f} ms | "
            f"{of['before'] / of['now']:.2f} | {least:.2f} |"
        )
    return "\n".join(lines) + "\n"


def parser() -> argparse.ArgumentParser:
    arguments = parser_of(__doc__, "benchmarks.kernels.paired")
    arguments.add_argument("--before", type=Path, required=True, metavar="FILE", help="_native.so to compare")
    add_out(arguments, "result file, JSON; a Markdown table is written beside it")
    arguments.add_argument("--seconds", type=float, default=0.8, help="time for each case")
    add_threads(arguments, 1)
    return arguments


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    if not native_available():
        raise SystemExit("paired: the native ops of this tree are not built; run `make build` first.")
    load_before(options.before)
    rows = {}
    for what, call in cases():
        rows[what] = pair(call, options.seconds)
        print(what, {k: round(1e3 * v, 3) for k, v in rows[what].items()}, flush=True)
    write_result(options.out, {"rows": rows, "threads": options.threads}, "CPU")
    write_atomic(options.out.with_suffix(".md"), table(rows).encode())


if __name__ == "__main__":
    main()
