"""What --dry-run says beside what the run then took, on drawn images of several numbers and sizes.

Seconds are the processor's, of one thread, so that what else a shared machine does is not compared with itself.

python -m benchmarks.system.cost_check --out RESULT.json
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import add_out, chosen, parser_of, write_result
from benchmarks.system.reliability.tiny_run import finish, work_together
from dlp_fast.api import execute
from dlp_fast.commands.dry_run import dry_runs
from dlp_fast.config import RunConfig
from dlp_fast.data import sources

SIZES = ((1000, 16, "wrn-16-1"), (1000, 32, "wrn-16-1"), (3000, 16, "wrn-10-1"))  # images, pixels, network
CLASSES = 10
STAGES = ("supervised", "finetuning")
WAIT = 3600  # seconds for a run, on a machine that others use


def drawn(images: int, side: int, model: str, parts: int | None) -> tuple[RunConfig, sources.Dataset]:
    """A run of which nothing ends earlier than planned, and in which nothing is found."""
    rng = np.random.default_rng(0)
    labels = np.arange(images) % CLASSES
    pixels = rng.integers(0, 256, (images, side, side, 3), dtype=np.uint8)
    config = RunConfig(
        data="array",
        attack="none",
        device="cpu",
        threads=1,
        batch_parts=parts,
        model=model,
        supervised={"epochs": 6, "min_steps": 0, "target_train_accuracy": 1.0},
        finetuning={"steps": 60},
        detection={"networks": 1, "proposals": ("learning_curves",)},
    )
    return config, sources.from_arrays(pixels, labels, None, None, None)


def take(out: Path, size: tuple[int, int, str], parts: int | None) -> None:
    """The run itself, in this process or as one of several; the processor seconds of each stage go to `out`.<pid>."""
    time.monotonic = time.process_time
    found = execute(*drawn(*size, parts), quiet=True, keep=False).results["stages"]
    seconds = {stage: found[stage]["seconds"] for stage in STAGES}
    Path(f"{out}.{os.getpid()}").write_text(json.dumps(seconds))


def took(size: tuple[int, int, str], world: int, parts: int | None) -> dict[str, float]:
    """Processor seconds of each stage, of the process that took the most."""
    with tempfile.TemporaryDirectory() as place:
        children = work_together(world, take, (Path(place, "took"), size, parts), Path(place))
        codes = [finish(child, WAIT) for child in children]
        assert codes == [0] * world, Path(place, "rank0.log").read_text()
        each = [json.loads(file.read_text()) for file in Path(place).glob("took.*")]
    return {stage: max(one[stage] for one in each) for stage in STAGES}


def compared(size: tuple[int, int, str], worlds: list[int], parts: int | None) -> list[dict[str, Any]]:
    """Seconds of each stage as foretold and as taken, for each number of processes."""
    load, rows = os.getloadavg()[0], []
    real, time.monotonic = time.monotonic, time.process_time  # what dry run looks at
    try:
        foretold = dry_runs(*drawn(*size, parts), quiet=True, worlds=worlds)
    finally:
        time.monotonic = real
    for world, told in zip(worlds, foretold, strict=True):
        row: dict[str, Any] = dict(zip(("images", "side", "model"), size)) | {"processes": world}
        taken = took(size, world, parts)
        for stage in STAGES:
            row[stage] = {"told": told.seconds[stage], "took": taken[stage]}
            row[stage]["ratio"] = told.seconds[stage] / taken[stage]
        row["ratio"] = sum(told.seconds[stage] for stage in STAGES) / sum(taken.values())
        rows.append(row | {"load_average": load})
    return rows


def main() -> None:
    arguments = parser_of(__doc__, "benchmarks.system.cost_check")
    arguments.add_argument("--worlds", type=int, nargs="*", default=[1, 2], help="numbers of processes")
    arguments.add_argument(
        "--batch-parts", type=int, help="of each batch, as of dlp_fast.run; unset: one a process"
    )
    add_out(arguments)
    options = arguments.parse_args()
    rows = []
    for size in SIZES:
        for row in compared(size, options.worlds, options.batch_parts):
            rows.append(row)
            print(row, flush=True)
    within = all(0.75 <= row["ratio"] <= 1.25 for row in rows)
    write_result(options.out, {**chosen(options), "rows": rows, "within_25_per_cent": within}, "CPU")


if __name__ == "__main__":
    main()
