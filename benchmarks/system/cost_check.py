"""What --dry-run says beside what the run then took, on drawn images of several numbers and sizes.

Seconds are the processor's, of one thread, so that what else a shared machine does is not compared with itself.

python -m benchmarks.system.cost_check --out RESULT.json
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from benchmarks.common import add_out, chosen, parser_of, write_result
from dlp_fast.api import execute
from dlp_fast.commands.dry_run import dry_run
from dlp_fast.config import RunConfig
from dlp_fast.data import sources

SIZES = ((1000, 16, "wrn-16-1"), (1000, 32, "wrn-16-1"), (3000, 16, "wrn-10-1"))  # images, pixels, network
CLASSES = 10


def compared(images: int, side: int, model: str) -> dict[str, Any]:
    """Seconds of each stage as foretold and as taken; nothing ends earlier than planned, and nothing is found."""
    rng = np.random.default_rng(0)
    labels = np.arange(images) % CLASSES
    pixels = rng.integers(0, 256, (images, side, side, 3), dtype=np.uint8)
    config = RunConfig(
        data="array",
        attack="none",
        device="cpu",
        threads=1,
        model=model,
        supervised={"epochs": 6, "min_steps": 0, "target_train_accuracy": 1.0},
        finetuning={"steps": 60},
        detection={"networks": 1, "proposals": ("learning_curves",)},
    )
    dataset = sources.from_arrays(pixels, labels, None, None, None)
    load = os.getloadavg()[0]
    told = dry_run(config, dataset, quiet=True)
    took = execute(config, dataset, quiet=True, keep=False).results["stages"]
    row: dict[str, Any] = {"images": images, "side": side, "model": model, "load_average": load}
    for stage in ("supervised", "finetuning"):
        row[stage] = {"told": told.seconds[stage], "took": took[stage]["seconds"]}
        row[stage]["ratio"] = row[stage]["told"] / row[stage]["took"]
    both = [sum(row[stage][which] for stage in ("supervised", "finetuning")) for which in ("told", "took")]
    row["ratio"] = both[0] / both[1]
    return row


def main() -> None:
    arguments = parser_of(__doc__, "benchmarks.system.cost_check")
    add_out(arguments)
    options = arguments.parse_args()
    time.monotonic = time.process_time  # what dry run and stages look at
    rows = []
    for size in SIZES:
        rows.append(compared(*size))
        print(rows[-1], flush=True)
    within = all(0.75 <= row["ratio"] <= 1.25 for row in rows)
    write_result(options.out, {**chosen(options), "rows": rows, "within_25_per_cent": within}, "CPU")


if __name__ == "__main__":
    main()
