"""How the resident set grows over many epochs of each loader; goal: under 1 MB an epoch after the third.

python benchmarks/memory_growth.py --data DIR --out RESULT.json
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from dlp_fast.checkpoint import write_atomic
from dlp_fast.runfolder import environment

from dlp_fast.data import dali, sources

SETTLED = 3  # epochs before growth counts: pools and caches fill


@dataclass
class Options:
    data: Path
    """Image folder."""
    out: Path
    """Result file, JSON."""
    epochs: int = 100
    """Passes over the images, for each loader."""
    image_size: int = 64
    """Side in pixels."""
    loader: str | None = None
    """Only this one, in this process; unset: each in a process of its own."""


def resident() -> int:
    """Bytes of this process that are in memory now."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")
    )
    return int(line.split()[1]) * 1024


def growth(options: Options, loader: str) -> dict[str, float]:
    images = sources.load(options.data, loader=loader, image_size=options.image_size).train.images
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


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    if options.epochs <= SETTLED + 1:
        sys.exit(f"--epochs: expected more than {SETTLED + 1}, since growth is measured after {SETTLED}")
    if options.loader:
        print(json.dumps(growth(options, options.loader)))
        return
    loaders = ["resident", "torchvision"] + ([] if dali.available() else ["dali"])
    rows = {}
    for loader in loaders:
        command = [sys.executable, __file__, *sys.argv[1:], "--loader", loader]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows[loader] = json.loads(done.stdout.splitlines()[-1])
        print(f"{loader:<12} {rows[loader]['megabytes_an_epoch']:+.3f} MB an epoch", flush=True)
    saved = {"rows": rows, "image_size": options.image_size, "environment": environment("CPU")}
    write_atomic(options.out, json.dumps(saved, indent=1).encode() + b"\n")


if __name__ == "__main__":
    main()
