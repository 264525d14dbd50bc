"""How the resident set grows over many epochs of each loader; goal: under 1 MB an epoch after the third.

python -m benchmarks.system.memory_growth --data DIR --out RESULT.json
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.common import add_out, parser_of, write_result
from dlp_fast.config import DataConfig
from dlp_fast.data import dali, sources

SETTLED = 3  # epochs before growth counts: pools and caches fill


def resident() -> int:
    """Bytes of this process that are in memory now."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")
    )
    return int(line.split()[1]) * 1024


def growth(options: argparse.Namespace, loader: str) -> dict[str, float]:
    images = sources.load(options.data, DataConfig(image_size=options.image_size), loader=loader).train.images
    sizes = []
    for _ in range(options.epochs):
        for ids in torch.arange(len(images)).split(64):
            images.expect(ids)
            images.get(ids)
        gc.collect()
        sizes.append(resident())
    late = sizes[SETTLED:]
    return {
        "images": len(images),
        "epochs": options.epochs,
        "resident_megabytes": sizes[-1] / 1e6,
        "megabytes_an_epoch": (late[-1] - late[0]) / 1e6 / (len(late) - 1),
    }


def parser() -> argparse.ArgumentParser:
    arguments = parser_of(__doc__, "benchmarks.system.memory_growth")
    add_out(arguments)
    arguments.add_argument("--data", required=True, metavar="DIR", help="image folder")
    arguments.add_argument("--image-size", type=int, default=64, metavar="PIXELS", help="side in pixels")
    arguments.add_argument("--epochs", type=int, default=100, help="passes over the images, for each loader")
    arguments.add_argument(
        "--loader", help="only this one, in this process; unset: each in a process of its own"
    )
    return arguments


def main() -> None:
    options = parser().parse_args()
    if options.epochs <= SETTLED + 1:
        sys.exit(f"--epochs: expected more than {SETTLED + 1}, since growth is measured after {SETTLED}")
    if options.loader:
        print(json.dumps(growth(options, options.loader)))
        return
    loaders = ["resident", "torchvision"] + ([] if dali.available() else ["dali"])
    rows = {}
    for loader in loaders:
        command = [sys.executable, "-m", "benchmarks.system.memory_growth", *sys.argv[1:], "--loader", loader]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows[loader] = json.loads(done.stdout.splitlines()[-1])
        print(f"{loader:<12} {rows[loader]['megabytes_an_epoch']:+.3f} MB an epoch", flush=True)
    write_result(options.out, {"rows": rows, "image_size": options.image_size}, "CPU")


if __name__ == "__main__":
    main()
