"""What a training step takes beside what `--batch auto` reckons: growth of the peak of the resident set, CPU, fp32.

python -m benchmarks.system.step_memory --out RESULT.json
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys

import torch
from torch.nn import functional as F

from benchmarks.common import add_out, parser_of, write_result
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.memory import bytes_per_image
from dlp_fast.models.registry import build_model

CELLS = (
    "wrn-16-1,32,1024",
    "torchvision:resnet18,64,128",
    "torchvision:mobilenet_v2,32,256",
    "torchvision:densenet121,32,256",
    "torchvision:vgg16_bn,32,512",
)


def step(model: torch.nn.Module, side: int, batch: int) -> None:
    x = torch.randn(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
    F.cross_entropy(model(x), torch.zeros(batch, dtype=torch.int64)).backward()


def measure(cell: str) -> dict[str, object]:
    name, side, batch = cell.split(",")
    model = build_model(name, 10, int(side), 0).train()
    reckoned = int(batch) * bytes_per_image(model, (int(side), int(side)), choose_compute("cpu", "fp32"))
    step(model, int(side), 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step(model, int(side), int(batch))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return {"cell": cell, "reckoned_megabytes": reckoned / 1e6, "measured_megabytes": grown / 1e6}


def parser() -> argparse.ArgumentParser:
    arguments = parser_of(__doc__, "benchmarks.system.step_memory")
    add_out(arguments)
    arguments.add_argument(
        "--cell",
        metavar="NETWORK,SIDE,BATCH",
        help="only this one, in this process; unset: all, each in a process of its own",
    )
    return arguments


def main() -> None:
    options = parser().parse_args()
    if options.cell:
        print(json.dumps(measure(options.cell)))
        return
    rows = []
    for cell in CELLS:
        command = [sys.executable, "-m", "benchmarks.system.step_memory", *sys.argv[1:], "--cell", cell]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    write_result(options.out, {"rows": rows}, "CPU, fp32")


if __name__ == "__main__":
    main()
