"""Share of the time in which the GPU runs no kernel during stage 3, with and without graphs, and the slowest kernels by
name; goal: at most 10 %. With graphs also with batch norm and ReLU as one operation (`fused`), not the default.

    python -m benchmarks.system.idle_share --out RESULT.json

WRN-16-1, 32 px, 64 labeled + 448 weak + 448 strong views a step, images on the device. Exit code 5 where there
is no GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.common import add_out, parser_of, write_result
from dlp_fast.config import FinetuningConfig
from dlp_fast.data.storage import ResidentImages
from dlp_fast.engine.batches import TrainingData
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.session import Session
from dlp_fast.models.batch_norm import fused_also_on
from dlp_fast.models.registry import build_model
from dlp_fast.runs.log import RunLog
from dlp_fast.selection.labels import Labels
from dlp_fast.stages.finetuning import finetuning

N = 20_000
SETTLED = 0.3  # share of the time that is not looked at
SLOWEST = 20  # kernels that are named

Kernel = tuple[str, float, float]  # name, start and end in microseconds


def covered(spans: list[tuple[float, float]]) -> float:
    """Length of the union of (start, end)."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def slowest(kernels: list[Kernel], count: int) -> list[dict[str, Any]]:
    """The `count` names that take most time in all, the slowest first: their share of the time of all kernels, the
    microseconds of a call, and how many calls there were.
    """
    times: dict[str, list[float]] = {}
    for name, start, end in kernels:
        times.setdefault(name, []).append(end - start)
    everything = sum(map(sum, times.values()))
    ranked = sorted(times.items(), key=lambda item: (-sum(item[1]), item[0]))
    return [
        {
            "name": name,
            "share": sum(taken) / everything,
            "microseconds": sum(taken) / len(taken),
            "calls": len(taken),
        }
        for name, taken in ranked[:count]
    ]


def measure(steps: int, graphs: str) -> dict[str, Any]:
    compute = choose_compute("cuda", "auto", graphs)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (N, 32, 32, 3), generator=generator, dtype=torch.uint8).cuda()
    labels = torch.randint(0, 10, (N,), generator=generator)
    data = TrainingData(ResidentImages(pixels), labels, 10, (0.5,) * 3, (0.25,) * 3, True, 0, compute.device)
    ids = torch.arange(N)
    labels_used = Labels(ids[:2000], ids[2000:], torch.zeros(N, dtype=torch.bool))

    def run(count: int) -> float:
        model = build_model("wrn-16-1", 10, 32, 0).to(compute.device)
        config = FinetuningConfig(steps=count, batch=64, mu=7, norm_batches=0)
        with Session(compute, RunLog(None, quiet=True), every=1e9) as session:
            torch.cuda.synchronize()
            began = time.monotonic()
            finetuning(session, model, data, labels_used, config)
            torch.cuda.synchronize()
            return time.monotonic() - began

    run(30)
    seconds = run(steps)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        run(steps)
    kernels = [
        (e.name, e.time_range.start, e.time_range.end)
        for e in seen.events()
        if e.device_type == torch.autograd.DeviceType.CUDA
    ]
    first, last = min(start for _, start, _ in kernels), max(end for _, _, end in kernels)
    settled = first + SETTLED * (last - first)  # before, there is the warm-up and the capture
    kernels = [(name, max(start, settled), end) for name, start, end in kernels if end > settled]
    return {
        "steps_per_second": steps / seconds,
        "images_per_second": steps * 64 * 15 / seconds,
        "idle_share": 1 - covered([(start, end) for _, start, end in kernels]) / (last - settled),
        "slowest_kernels": slowest(kernels, SLOWEST),
    }


# name of a row: whether steps are captured, and whether batch norm and ReLU are one operation
ROWS = {"off": ("off", False), "auto": ("auto", False), "auto, fused": ("auto", True)}


def row(steps: int, graphs: str, fused: bool) -> dict[str, Any]:
    with fused_also_on("cuda") if fused else contextlib.nullcontext():
        return measure(steps, graphs)


def parser() -> argparse.ArgumentParser:
    arguments = parser_of(__doc__, "benchmarks.system.idle_share")
    add_out(arguments)
    arguments.add_argument("--steps", type=int, default=200, help="optimizer steps that are timed")
    return arguments


def main() -> None:
    options = parser().parse_args()
    if not torch.cuda.is_available():
        print("idle_share: no GPU here", file=sys.stderr)
        sys.exit(5)
    rows = {name: row(options.steps, *how) for name, how in ROWS.items()}
    for name, of in rows.items():
        print(
            f"graphs {name:<11} {of['steps_per_second']:8.1f} steps/s {of['images_per_second']:12,.0f} images/s "
            f"idle {of['idle_share']:.1%}"
        )
        for kernel in of["slowest_kernels"]:
            print(
                f"  {kernel['share']:6.1%} {kernel['calls']:7} x {kernel['microseconds']:8.1f} us  {kernel['name']}"
            )
    write_result(options.out, {"rows": rows}, choose_compute("cuda", "auto").describe())


if __name__ == "__main__":
    main()
