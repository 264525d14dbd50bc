"""How long the report of a finished run takes to write, and its size.

python -m benchmarks.system.report_time RUN --out RESULT.json
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks.common import add_out, parser_of, write_result
from dlp_fast.report.render import write_report
from dlp_fast.runs.reader import read_samples


def parser() -> argparse.ArgumentParser:
    arguments = parser_of(__doc__, "benchmarks.system.report_time")
    arguments.add_argument("run", type=Path, help="a finished run folder")
    add_out(arguments)
    return arguments


def main() -> None:
    options = parser().parse_args()
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
    write_result(options.out, row, "CPU")


if __name__ == "__main__":
    main()
