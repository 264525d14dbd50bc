"""Every op on a GPU: first equal to the CPU kernel, then timed, beside eager torch and a copy of the same bytes.

    python -m benchmarks.kernels.cuda_events --out benchmarks/results/kernels_events_<device>_<date>.json

Medians of CUDA events. Inputs rotate where a set of them would stay in the second-level cache. `copy` is a
device-to-device copy that reads and writes as many bytes as the op must at least. Exit code 5 where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from itertools import cycle, pairwise
from statistics import median
from typing import Any

import torch

from benchmarks.common import add_out, parser_of
from dlp_fast.engine.device import choose_compute
from dlp_fast.ops import TriggerTable, augment, entropy_rank, inject_trigger, row_entropy, select
from dlp_fast.runs.environment import environment
from dlp_fast.runs.files import write_atomic

CACHE = 100e6  # bytes: twice the second-level cache of an H100
ALPHA = 6554 / 32768  # 0.2 as the op's fixed point has it
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def timed(call: Callable[[], object], seconds: float) -> float:
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


def graphed(call: Callable[[], object]) -> Callable[[], object]:
    """The kernels of `call` without the time that it takes to launch them."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def copy_of(moved: float) -> Callable[[], object]:
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


def rotating(inputs: list[torch.Tensor], of: Callable[[torch.Tensor], object]) -> Callable[[], object]:
    turn = cycle(inputs)
    return lambda: of(next(turn))


def sets_of(make: Callable[[int], torch.Tensor]) -> list[torch.Tensor]:
    one = make(0)
    count = max(1, min(32, int(CACHE // one.nbytes) + 1))
    return [one, *(make(k) for k in range(1, count))]


def logits(rows: int, classes: int, dtype: torch.dtype) -> Callable[[int], torch.Tensor]:
    def make(seed: int) -> torch.Tensor:
        generator = torch.Generator("cuda").manual_seed(seed)
        x = torch.randn(rows, classes, generator=generator, device="cuda") * 2
        at = torch.randint(classes, (rows, 1), generator=generator, device="cuda")
        return x.scatter_add_(1, at, torch.full((rows, 1), 6.0, device="cuda")).to(dtype)

    return make


def eager_entropy(x: torch.Tensor) -> torch.Tensor:
    p = torch.softmax(x.float(), 1)
    return -(p * torch.log2(p + 1e-8)).sum(1)


def eager_rank(x: torch.Tensor, lowest: int) -> tuple[torch.Tensor, torch.Tensor]:
    h = eager_entropy(x)
    return torch.topk(h, lowest, largest=False).indices, x.argmax(1)


Row = dict[str, Any]


def measure(name: str, moved: float, seconds: float, contenders: dict[str, Callable[[], object]]) -> Row:
    times = {who: timed(call, seconds) for who, call in contenders.items()}
    times["copy"] = timed(copy_of(moved), seconds)
    ours = times["ours"]
    row = {"name": name, "bytes": moved, "seconds": times, "bytes_per_second": moved / ours}
    told = ", ".join(f"{who} {1e6 * s:,.1f} µs" for who, s in times.items())
    print(f"{name}: {told}; {moved / ours / 1e9:,.0f} GB/s", flush=True)
    return row


def entropies(seconds: float) -> list[Row]:
    rows = []
    compiled = torch.compile(eager_entropy, dynamic=False)
    for n, classes, dtype in (
        (50_000, 10, torch.float32),
        (50_000, 1000, torch.float32),
        (50_000, 1000, torch.bfloat16),
        (1_280_000, 100, torch.bfloat16),
        (400_000, 1000, torch.bfloat16),
    ):
        inputs = sets_of(logits(n, classes, dtype))
        x, k = inputs[0], n // 100
        some = x[:50_000]
        assert torch.equal(row_entropy(some).cpu(), row_entropy(some.cpu())), "CUDA and CPU differ"
        ours, theirs = entropy_rank(some, len(some) // 100), entropy_rank(some.cpu(), len(some) // 100)
        assert torch.equal(ours.lowest.cpu(), theirs.lowest) and torch.equal(
            ours.entropy.cpu(), theirs.entropy
        )
        torch.testing.assert_close(row_entropy(x), eager_entropy(x), rtol=1e-3, atol=1e-4)
        moved = x.nbytes + 8.0 * n
        kind = str(dtype).removeprefix("torch.")
        rows.append(
            measure(
                f"row_entropy [{n:,}, {classes:,}] {kind}",
                moved,
                seconds,
                {
                    "ours": rotating(inputs, row_entropy),
                    "eager": rotating(inputs, eager_entropy),
                    "compile": rotating(inputs, compiled),
                },
            )
        )
        rows.append(
            measure(
                f"entropy_rank, lowest 1 % of [{n:,}, {classes:,}] {kind}",
                moved,
                seconds,
                {
                    "ours": rotating(inputs, lambda x, k=k: entropy_rank(x, k)),
                    "eager": rotating(inputs, lambda x, k=k: eager_rank(x, k)),
                },
            )
        )
    return rows


def selections(seconds: float) -> list[Row]:
    rows = []
    for n in (1_280_000, 10_000_000):
        scores = torch.rand(n, generator=torch.Generator().manual_seed(n)).cuda()
        k = n // 100
        wanted = torch.sort(scores.cpu(), stable=True).indices[:k]
        assert torch.equal(select(scores, k).lowest.cpu(), wanted), "not the k smallest in order"
        rows.append(
            measure(
                f"select, lowest 1 % of {n:,}",
                4.0 * n,
                seconds,
                {
                    "ours": lambda scores=scores, k=k: select(scores, k),
                    "torch.topk": lambda scores=scores, k=k: torch.topk(scores, k, largest=False),
                    "torch.sort": lambda scores=scores: torch.sort(scores, stable=True),
                },
            )
        )
    return rows


def blended(images: torch.Tensor, overlay: torch.Tensor) -> torch.Tensor:
    return torch.floor((1 - ALPHA) * images.float() + ALPHA * overlay.float() + 0.5).to(torch.uint8)


def triggers(seconds: float) -> list[Row]:
    rows = []
    for size, n in ((32, 50_000), (224, 2048)):
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=generator).cuda()
        overlay = torch.randint(0, 256, (size, size, 3), dtype=torch.uint8, generator=generator)
        table = TriggerTable.blend(overlay, ALPHA)
        which = torch.full((n,), -1, dtype=torch.int64)
        which[torch.randperm(n, generator=generator)[: n // 10]] = 0
        on_device, overlay, where = table.to("cuda"), overlay.cuda(), which.cuda()
        poisoned = inject_trigger(images, on_device, where)
        assert torch.equal(poisoned[:500].cpu(), inject_trigger(images[:500].cpu(), table, which[:500]))
        ids = (where >= 0).nonzero().flatten()
        assert torch.equal(poisoned[ids], blended(images[ids], overlay))
        work = images.clone()

        def by_index(work=work, where=where, overlay=overlay) -> None:
            ids = (where >= 0).nonzero().flatten()
            work[ids] = blended(work[ids], overlay)

        rows.append(
            measure(
                f"inject_trigger, 10 % of {n:,} x {size} px in place",
                2 * 0.1 * images.nbytes,
                seconds,
                {
                    "ours": lambda w=work, t=on_device, on=where: inject_trigger(w, t, on, out=w),
                    "eager": by_index,
                },
            )
        )
        out = torch.empty(
            (n, 3, size, size), dtype=torch.bfloat16, device="cuda", memory_format=torch.channels_last
        )
        mean, std = (torch.tensor(v, device="cuda").view(1, 3, 1, 1) for v in (MEAN, STD))

        def normalised(images=images, where=where, overlay=overlay, mean=mean, std=std) -> torch.Tensor:
            x = torch.where((where >= 0).view(-1, 1, 1, 1), blended(images, overlay), images)
            return ((x.permute(0, 3, 1, 2).float() / 255 - mean) / std).to(torch.bfloat16)

        keywords = {"out": out, "mean": MEAN, "std": STD}
        inject_trigger(images, on_device, where, **keywords)
        assert (out[:256].float() - normalised()[:256].float()).abs().max() <= 2**-6
        rows.append(
            measure(
                f"inject_trigger, 10 % of {n:,} x {size} px, normalised into bf16",
                3.0 * images.nbytes,
                seconds,
                {
                    "ours": lambda i=images, t=on_device, on=where, k=keywords: inject_trigger(i, t, on, **k),
                    "eager": normalised,
                },
            )
        )
    return rows


def views(seconds: float) -> list[Row]:
    """No peer draws each image's own RandAugment on a GPU; what Pillow takes is in the CPU benchmarks."""
    rows = []
    for size, n in ((32, 448), (32, 8192), (224, 128)):
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=generator)
        ids = torch.arange(n)
        here, on = images.cuda(), ids.cuda()
        given = {"pad": size // 8, "cutout": size // 2, "mean": MEAN, "std": STD}
        for ours, wanted in zip(
            augment(here[:64], on[:64], 3, 1, **given), augment(images[:64], ids[:64], 3, 1, **given)
        ):
            assert torch.equal(ours.cpu(), wanted), "CUDA and CPU views differ"

        def both(images=here, ids=on, given=given) -> object:
            return augment(images, ids, 3, 1, dtype=torch.bfloat16, **given)

        moved = images.nbytes * (1 + 2 * 2.0)  # read once, two views of two bytes a value
        rows.append(
            measure(
                f"augment, both views of {n:,} x {size} px into bf16",
                moved,
                seconds,
                {"ours": graphed(both), "ours with its launch": both},
            )
        )
        print(f"  {n / rows[-1]['seconds']['ours']:,.0f} images/s")
    return rows


def table(rows: list[Row], facts: str) -> str:
    lines = [facts, "", "| op | ours | GB/s | copy of the same bytes | peers |", "|---|---:|---:|---:|---|"]
    for row in rows:
        s = row["seconds"]
        peers = ", ".join(
            f"{who} {1e6 * v:,.1f} µs ({v / s['ours']:.1f} x)"
            for who, v in s.items()
            if who not in ("ours", "copy")
        )
        lines.append(
            f"| {row['name']} | {1e6 * s['ours']:,.1f} µs | {row['bytes_per_second'] / 1e9:,.0f} | "
            f"{1e6 * s['copy']:,.1f} µs | {peers} |"
        )
    return "\n".join(lines) + "\n"


def parser() -> argparse.ArgumentParser:
    arguments = parser_of(__doc__, "benchmarks.kernels.cuda_events")
    add_out(arguments, "result file, JSON; a Markdown table is written beside it")
    arguments.add_argument("--seconds", type=float, default=0.4, help="time for each contender")
    return arguments


def main() -> None:
    options = parser().parse_args()
    if not torch.cuda.is_available():
        print("cuda_events: no GPU here", file=sys.stderr)
        sys.exit(5)
    rows: list[Row] = []
    for part in (triggers, views, selections, entropies):
        try:
            rows += part(options.seconds)
        except (AssertionError, RuntimeError) as error:
            print(f"{part.__name__} FAILED: {error}", flush=True)
            rows.append({"name": part.__name__, "failed": str(error)})
    facts = environment(choose_compute("cuda", "auto").describe())
    write_atomic(options.out, json.dumps({"rows": rows, "environment": facts}, indent=1).encode() + b"\n")
    good = [r for r in rows if "failed" not in r]
    text = table(
        good, f"{facts['device']}, torch {facts['torch']}, CUDA {facts['cuda']}. Medians of CUDA events."
    )
    write_atomic(options.out.with_suffix(".md"), text.encode())
    sys.exit(len(good) < len(rows))


if __name__ == "__main__":
    main()
