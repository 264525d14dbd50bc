"""A training step on a CPU, alone and beside another training of one thread: with all threads, and with those idle.

python -m benchmarks.system.busy_processors --out RESULT.json
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import torch
from torch.nn import functional as F

from benchmarks.common import add_out, parser_of, write_result
from dlp_fast.engine.device import choose_compute
from dlp_fast.models.registry import build_model
from dlp_fast.runs.processors import idle_processors, usable

BATCH, SIDE, STEPS = 128, 16, 5
STARTED = 8.0  # seconds until the other trains
FOR_EVER = 10**9  # steps
OTHER = f"from benchmarks.system.busy_processors import milliseconds as train; train(1, {FOR_EVER})"


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "benchmarks.system.busy_processors")
    add_out(of)
    return of


def milliseconds(threads: int, steps: int = STEPS) -> tuple[float, float]:
    """Of a step, by the clock and of processor time."""
    torch.set_num_threads(threads)
    compute = choose_compute("cpu", "auto")
    model = build_model("wrn-16-1", 10, SIDE, seed=0).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x = torch.randn(BATCH, 3, SIDE, SIDE).to(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (BATCH,))
    for step in range(steps + 2):
        if step == 2:
            began = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        with compute.forward():
            logits = model(x)
        F.cross_entropy(logits.float(), y).backward()
        optimizer.step()
    ended = time.perf_counter(), time.process_time()
    wall, work = (1e3 * (end - begin) / steps for begin, end in zip(began, ended, strict=True))
    return round(wall, 1), round(work, 1)


def main() -> None:
    options = parser().parse_args()
    rows, most = [], len(usable())
    for busy in (0, 1):
        # in a session of its own, as another person's is: Linux shares processors out among sessions
        command = [sys.executable, "-c", OTHER]
        others = [subprocess.Popen(command, start_new_session=True) for _ in range(busy)]
        try:
            time.sleep(STARTED)
            idle = idle_processors()
            for threads in dict.fromkeys((most, idle, 1)):
                wall, work = milliseconds(threads)
                rows.append(
                    {
                        "busy": busy,
                        "idle": idle,
                        "threads": threads,
                        "milliseconds": wall,
                        "of_processor": work,
                    }
                )
                print(rows[-1], flush=True)
        finally:
            for other in others:
                other.kill()
    write_result(options.out, {"processors": most, "rows": rows}, "CPU")


if __name__ == "__main__":
    main()
