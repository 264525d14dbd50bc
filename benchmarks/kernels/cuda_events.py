"""Every op on a GPU: equal to the CPU kernel, then timed, beside fair peers, a copy of the same bytes and the goal.

    python -m benchmarks.kernels.cuda_events --out benchmarks/results/kernels_events_<device>_<date>.json

    python -m benchmarks.kernels.cuda_events --rehearse      (every case once on a CPU, with few rows; nothing is timed)

Medians of CUDA events. Inputs rotate where a set of them would stay in the second-level cache. `copy` is a
device-to-device copy that reads and writes as many bytes as the op must at least. It is meant to take six minutes:
what is left then is named. Exit code 5 where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import parser_of
from benchmarks.kernels import cuda_cases, cuda_layer_cases, cuda_picture_cases
from benchmarks.kernels.cuda_timing import Bench, Rehearsal, table
from dlp_fast.engine.device import choose_compute
from dlp_fast.runs.environment import environment
from dlp_fast.runs.files import write_atomic

# the cases that say most come first, should the time be short
PARTS = (
    cuda_cases.small_ranking,
    cuda_cases.selections,
    cuda_cases.entropies,
    cuda_picture_cases.triggers,
    cuda_picture_cases.normalised_triggers,
    cuda_picture_cases.views,
    cuda_layer_cases.batch_norms,
    cuda_cases.rankings,
    cuda_cases.selections_by_class,
    cuda_picture_cases.residuals,
    cuda_picture_cases.files,
)


def parser() -> argparse.ArgumentParser:
    arguments = parser_of(__doc__, "benchmarks.kernels.cuda_events")
    what = arguments.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--out", type=Path, metavar="FILE", help="result file, JSON; a Markdown table is written beside it"
    )
    what.add_argument("--rehearse", action="store_true", help="on a CPU, a few rows of every case, no times")
    arguments.add_argument("--seconds", type=float, default=0.2, help="time for each contender")
    arguments.add_argument("--budget", type=float, default=330, help="seconds after which no case is begun")
    return arguments


def measured(bench: Bench, out: Path | None, facts: dict[str, Any]) -> list[dict[str, str]]:
    """Every part, each kept in `out` as soon as it is over; returns which failed, and why."""
    failed = []
    for part in PARTS:
        try:
            part(bench)
        except Exception as error:  # the other ops are still worth measuring
            print(f"{part.__name__} FAILED: {error}", flush=True)
            failed.append({"name": part.__name__, "failed": str(error)})
        if bench.device == "cuda":
            torch.cuda.empty_cache()
        if out:
            result = {"rows": bench.rows + failed, "skipped": bench.skipped, "environment": facts}
            write_atomic(out, json.dumps(result, indent=1).encode() + b"\n")
            line = f"{facts['device']}, torch {facts['torch']}, CUDA {facts['cuda']}. Medians of CUDA events."
            write_atomic(out.with_suffix(".md"), table(bench.rows, line, bench.skipped).encode())
    return failed


def main() -> None:
    options = parser().parse_args()
    if options.rehearse:
        sys.exit(bool(measured(Rehearsal(0, float("inf")), None, {})))
    if not torch.cuda.is_available():
        print("cuda_events: no GPU here; --rehearse runs every case once on a CPU", file=sys.stderr)
        sys.exit(5)
    facts = environment(choose_compute("cuda", "auto").describe())
    sys.exit(bool(measured(Bench(options.seconds, options.budget), options.out, facts)))


if __name__ == "__main__":
    main()
