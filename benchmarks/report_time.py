"""How long the report of a finished run takes to write, and its size.

python benchmarks/report_time.py RUN --out RESULT.json
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from dlp_fast.checkpoint import write_atomic
from dlp_fast.runfiles import read_samples
from dlp_fast.runfolder import environment

from dlp_fast.report.render import write_report


@dataclass
class Options:
    run: tyro.conf.Positional[Path]
    """A finished run folder."""
    out: Path
    """Result file, JSON."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    with tempfile.TemporaryDirectory() as folder:
        wall, processor = time.monotonic(), time.process_time()
        path = write_report(options.run, Path(folder) / "report.html")
        row = {
            "images": len(read_samples(options.run)["path"]),
            "seconds": time.monotonic() - wall,
            "processor_seconds": time.process_time() - processor,
            "bytes": path.stat().st_size,
        }
    print(row)
    saved = row | {"environment": environment("CPU")}
    write_atomic(options.out, json.dumps(saved, indent=1).encode() + b"\n")


if __name__ == "__main__":
    main()
