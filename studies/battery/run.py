"""Records of stage 1 on attacked and on honest image sets, a folder a cell, for studies of detection.

    python -m studies.battery.run --pack cifar10_jpeg.npz --out OUT [--half development|held_out] [--cell NAME]

Cells that are there already are left alone, so that the same command goes on where it stopped. Each cell is made by a
process of its own, one at a time, and its folder appears when it is complete. See README.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.common import parser_of
from studies.battery.cells import CELLS


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "studies.battery.run")
    of.add_argument("--pack", type=Path, required=True, help="cifar10_jpeg.npz")
    of.add_argument("--out", type=Path, required=True, help="folder of the cells")
    of.add_argument("--half", choices=["development", "held_out"], help="only this half")
    of.add_argument("--cell", help="only this cell, in this process")
    return of


def main() -> None:
    options = parser().parse_args()
    chosen = [c for c in CELLS if options.half in (None, c.half) and options.cell in (None, c.name)]
    if not chosen:
        parser().error(f"no such cell; there are: {', '.join(c.name for c in CELLS)}")
    for cell in chosen:
        if (options.out / cell.name / "cell.json").exists():
            continue
        if options.cell:
            from studies.battery.record import (
                make,  # here: the process that only waits for the others stays small
            )

            make(cell, options.pack, options.out)
            continue
        print(time.strftime("%H:%M:%S"), cell.name, "begun", flush=True)
        command = [
            sys.executable,
            "-m",
            "studies.battery.run",
            "--pack",
            options.pack,
            "--out",
            options.out,
            "--cell",
            cell.name,
        ]
        done = subprocess.run(command, check=False)
        print(time.strftime("%H:%M:%S"), cell.name, f"ended, exit code {done.returncode}", flush=True)


if __name__ == "__main__":
    main()
