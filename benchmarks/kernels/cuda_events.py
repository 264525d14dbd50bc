"""Every op on a GPU: equal to the CPU kernel, then timed, beside fair peers, a copy of the same bytes and the goal.

    python -m benchmarks.kernels.cuda_events --out benchmarks/results/kernels_events_<device>_<date>.json

Medians of CUDA events. Inputs rotate where a set of them would stay in the second-level cache. `copy` is a
device-to-device copy that reads and writes as many bytes as the op must at least. It is meant to take six minutes:
what is left then is named. Exit code 5 where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import sys

import torch

from benchmarks.common import add_out, parser_of
from benchmarks.kernels.cuda_cases import PARTS
from benchmarks.kernels.cuda_timing import Bench, table
from dlp_fast.engine.device import choose_compute
from dlp_fast.runs.environment import environment
from dlp_fast.runs.files import write_atomic


def parser() -> argparse.ArgumentParser:
    arguments = parser_of(__doc__, "benchmarks.kernels.cuda_events")
    add_out(arguments, "result file, JSON; a Markdown table is written beside it")
    arguments.add_argument("--seconds", type=float, default=0.2, help="time for each contender")
    arguments.add_argument("--budget", type=float, default=330, help="seconds after which no case is begun")
    return arguments


def main() -> None:
    options = parser().parse_args()
    if not torch.cuda.is_available():
        print("cuda_events: no GPU here", file=sys.stderr)
        sys.exit(5)
    bench, failed = Bench(options.seconds, options.budget), []
    for part in PARTS:
        try:
            part(bench)
        except (AssertionError, RuntimeError) as error:  # the other ops are still worth measuring
            print(f"{part.__name__} FAILED: {error}", flush=True)
            failed.append({"name": part.__name__, "failed": str(error)})
        torch.cuda.empty_cache()
    facts = environment(choose_compute("cuda", "auto").describe())
    result = {"rows": bench.rows + failed, "skipped": bench.skipped, "environment": facts}
    write_atomic(options.out, json.dumps(result, indent=1).encode() + b"\n")
    line = f"{facts['device']}, torch {facts['torch']}, CUDA {facts['cuda']}. Medians of CUDA events."
    write_atomic(options.out.with_suffix(".md"), table(bench.rows, line, bench.skipped).encode())
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
